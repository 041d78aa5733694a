"""Sources of tokens that know the choices of a router, and no logits."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.types import Batch


class ChoicesAlone:
    """What such sources have in common: they refuse to give logits, with the sentence `no_logits`."""

    no_logits: ClassVar[str]

    def logits(
        self,
        batch: Batch,  # noqa: ARG002 - those of the Protocol
        layer: int,  # noqa: ARG002
        first: int,  # noqa: ARG002
        last: int,  # noqa: ARG002
        out: NDArray[np.float32],  # noqa: ARG002
    ) -> None:
        """Raise.

        Raises:
            InputError: always.
        """
        raise InputError(self.no_logits)
