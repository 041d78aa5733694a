"""What overlap costs, from published steps of DeepSeek-V3: python -m tests.validation.overlap.

Four deployments had even load and two micro-batches. For each: `simulation.overlap_slowdown` with which the simulated
step takes as long as the published one, and the error of the step with the mean of the other three. The mean of all
four is the default. Between two simulated slowdowns a step is taken to be linear in it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.validation.published import EVEN

LOSSES = 0.2, 0.5


def table() -> pd.DataFrame:
    """A row a deployment: published step, its loss, that of the others, and the error with it in per cent."""
    published = np.array([d.rate(d.published) for d in EVEN])  # seconds: tokens over rate, either way
    at = np.array([[d.step_s(simulation__overlap_slowdown=loss) for loss in LOSSES] for d in EVEN])
    slope = (at[:, 1] - at[:, 0]) / (LOSSES[1] - LOSSES[0])
    loss = LOSSES[0] + (published - at[:, 0]) / slope
    others = (loss.sum() - loss) / (len(loss) - 1)
    predicted = at[:, 0] + slope * (others - LOSSES[0])
    return pd.DataFrame(
        {
            "deployment": [f"{d.source}: {d.configuration}" for d in EVEN],
            "published_ms": published * 1e3,
            "loss": loss,
            "loss_of_others": others,
            "predicted_ms": predicted * 1e3,
            "error_percent": 100 * (predicted / published - 1),
        }
    )


def main() -> None:
    """Print the table and the mean."""
    found = table()
    print(found.to_string(index=False, float_format="{:.3f}".format))
    print(f"mean loss {found['loss'].mean():.3f}, worst error {found['error_percent'].abs().max():.1f} %")


if __name__ == "__main__":
    main()
