"""Which images are trained on, and in what batches."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int32


def split(
    total: int, share: float, seed: int
) -> tuple[Int[np.ndarray, "kept"], Int[np.ndarray, "held_out"]]:
    """Draws the images to hold out, by the seed alone.

    Returns:
        The indices of the images to train on, at least one, and of those held out, both rising.
        Where `share * total` rounds to 0, none is held out.
    """
    order = np.random.default_rng(seed).permutation(total)
    kept = total - min(round(share * total), total - 1)
    return np.sort(order[:kept]), np.sort(order[kept:])


@dataclass(frozen=True)
class Sampling:
    """Draws the batches of every epoch from normal images and, for ADTR+, anomalous ones.

    An epoch has every normal image once and, if there are anomalous ones, as many of those, which
    are then half of each batch: their numbers of occurrences differ by at most one.

    Attributes:
        normal: number of normal images; they come first in the training data.
        anomalous: number of anomalous images, which follow them.
        batch_size: images per step, over all devices; must be even with anomalous images.
    """

    normal: int
    anomalous: int
    batch_size: int
    seed: int

    @property
    def images(self) -> int:
        """Number of images in one epoch."""
        return 2 * self.normal if self.anomalous else self.normal

    @property
    def steps(self) -> int:
        """Number of steps in one epoch."""
        return -(-self.images // min(self.batch_size, self.images))

    def epoch(
        self, number: int, devices: int
    ) -> tuple[Int32[np.ndarray, "steps b"], Float[np.ndarray, "steps b"]]:
        """Returns the indices of the images of every step of an epoch, shuffled, and their weights.

        If the batch size does not divide the images, the last batch is smaller: its surplus places
        have weight 0, as has the padding of batches to a multiple of the devices.
        """
        rng = np.random.default_rng([self.seed, number])
        order, weight = self._filled(rng.permutation(self.normal))
        if self.anomalous:
            rounds = -(-self.normal // self.anomalous)
            drawn = np.concatenate([rng.permutation(self.anomalous) for _ in range(rounds)])
            others = self._filled(self.normal + drawn[: self.normal])
            order, weight = np.hstack([order, others[0]]), np.hstack([weight, others[1]])
        padding = ((0, 0), (0, -order.shape[1] % devices))
        return np.pad(order, padding), np.pad(weight, padding)

    def _filled(
        self, images: Int[np.ndarray, "n"]
    ) -> tuple[Int32[np.ndarray, "steps width"], Float[np.ndarray, "steps width"]]:
        """Returns the images of each step as rows, padded, and weight 1 for each image."""
        width = min(self.batch_size, self.images) // (2 if self.anomalous else 1)
        order = np.zeros((self.steps, width), np.int32)
        weight = np.zeros((self.steps, width), np.float32)
        order.flat[: len(images)] = images
        weight.flat[: len(images)] = 1
        return order, weight
