"""What is cut where kernels run as plain Python (NUMBA_DISABLE_JIT=1), hundreds of times slower."""

from __future__ import annotations

import os

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def enough(samples: int) -> int:
    """So many samples, a tenth of them for plain Python: the same law, within the bounds of fewer."""
    return samples // 10 if INTERPRETED else samples
