"""The learning curves of a training, from its log, and whether it was too short."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from adtr_jax.training import log

# Where the held-out loss falls by this share in the second half of the epochs, more are advised.
# The last ones by themselves say nothing: as the learning rate goes to zero, the loss is flat at
# the end of a training that was far too short, too. The `fast` preset on MVTec-AD's toothbrush: in
# 60, 120, 240 and 480 steps it fell by 21, 39, 22 and 13 % in the second half, by less than 0.5 %
# in the last tenth; and with twice the steps the first three ended 62, 53 and 37 % lower.
FALL = 1 / 6


class Curves(NamedTuple):
    """The mean losses of the images, an epoch each.

    Attributes:
        epochs: their numbers, from 1.
        loss: of the images trained on, while they were.
        held_out: of the held-out ones, after the epoch; None: there are none.
    """

    epochs: Int[np.ndarray, "n"]
    loss: Float[np.ndarray, "n"]
    held_out: Float[np.ndarray, "n"] | None

    @classmethod
    def read(cls, directory: Path) -> "Curves":
        """Reads the log of a training from its folder, as far as it is sound."""
        lines = log.read(directory)
        held = [line for line in lines if "validation_loss" in line]
        epochs, loss, held_out = (
            np.array([line[name] for line in held or lines if name in line])
            for name in ("epoch", "loss", "validation_loss")
        )
        return cls(epochs, loss, held_out if held else None)

    def remark(self, epochs: int, option: str) -> str:
        """Returns what the held-out images say of the training's length; "" where it is nothing.

        Args:
            epochs: how many there were to be.
            option: what sets their number.
        """
        if self.held_out is None:
            return ""
        if (last := self.epochs[-1]) < epochs:
            best = self.epochs[self.held_out.argmin()]
            return (
                f"stopped after epoch {last} of {epochs}: the loss of held-out images was lowest "
                f"after epoch {best}, and what was learned until then is kept"
            )
        fall = 1 - self.held_out[-1] / self.held_out[(len(self.held_out) - 1) // 2]
        if not fall >= FALL:
            return ""
        return (
            f"warning: the loss of held-out images fell by {100 * fall:.0f} % in the second half "
            f"of the epochs: more of them would help ({option})"
        )
