"""Where the tokens are in the image."""

import numpy as np

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings


def token_positions(backbone: Backbone, settings: AdtrSettings) -> tuple[float, float]:
    """Returns spacing and offset in pixels: token i is centred on the pixel `spacing * i + offset`.

    The resize with align_corners=True samples every layer at other places; their mean, weighted by
    the channels of the chosen layers, counts.
    """
    size, last = settings.image_size, settings.tokens_per_side - 1
    chosen = [i - 1 for i in settings.layers]
    weights = [backbone.channels[i] for i in chosen]
    spacings = [2 ** (i + 1) * (-(-size // 2 ** (i + 1)) - 1) / max(last, 1) for i in chosen]
    spacing = float(np.average(spacings, weights=weights))
    return spacing, float(np.average([backbone.centres[i] for i in chosen], weights=weights))
