"""The methods: ADTR, ADTR+ and GTrans."""

from typing import cast

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings, GtransSettings, Settings
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.detector import Detector
from adtr_jax.detectors.gtrans import GtransDetector


def create(backbone: Backbone, settings: Settings) -> Detector:
    """The detector of the method whose settings these are; it has learned nothing yet."""
    if isinstance(settings, GtransSettings):
        return GtransDetector.create(backbone, settings)
    return AdtrDetector.create(backbone, cast(AdtrSettings, settings))
