"""The methods: ADTR, ADTR+ and GTrans.

Importing this package imports no JAX: an exported model is described by the same `header`.
"""

from typing import TYPE_CHECKING

from adtr_jax.config import Settings
from adtr_jax.detectors.methods import METHODS

if TYPE_CHECKING:
    import adtr_jax.backbones.backbone
    import adtr_jax.detectors.detector


def create(
    backbone: "adtr_jax.backbones.backbone.Backbone", settings: Settings
) -> "adtr_jax.detectors.detector.Detector":
    """The detector of the method whose settings these are; it has learned nothing yet."""
    return METHODS[settings.method].detector().create(backbone, settings)
