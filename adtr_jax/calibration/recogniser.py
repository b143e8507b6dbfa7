"""Which of the products that a model knows an image shows: the one of the nearest mean features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Of the mean spread, added to each channel's: some channels are nearly constant within products.
LEAST_SPREAD = 0.1


@dataclass(frozen=True, eq=False)
class Recogniser:
    """Means of the products' embeddings, and the spread around them.

    An embedding is the mean over all positions of an image's features (`features.embed`).

    Attributes:
        names: of the products.
        means: of each product's training images.
        spread: a standard deviation by channel, from the own product's mean.
    """

    names: tuple[str, ...]
    means: Float[np.ndarray, "p c"]
    spread: Float[np.ndarray, " c"]

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        embeddings: Float[np.ndarray, "n c"],
        products: Int[np.ndarray, " n"],
    ) -> "Recogniser":
        """Takes the means of images whose products are known, at least one image each.

        Args:
            names: of the products.
            embeddings: of the images.
            products: which of `names` each image shows.
        """
        values = embeddings.astype(np.float64)
        means = np.stack([values[products == i].mean(axis=0) for i in range(len(names))])
        spread = np.sqrt(np.mean((values - means[products]) ** 2, axis=0))
        spread += LEAST_SPREAD * spread.mean()
        if not spread.any():  # one image each
            spread = np.ones_like(spread)
        return cls(tuple(names), means.astype(np.float32), spread.astype(np.float32))

    def nearest(self, embeddings: Float[np.ndarray, "n c"]) -> Int[np.ndarray, " n"]:
        """Returns which of `names` each image shows: that of the nearest mean, in spreads."""
        far = [np.sum(((embeddings - mean) / self.spread) ** 2, axis=1) for mean in self.means]
        return np.argmin(far, axis=0)
