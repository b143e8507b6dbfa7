"""What predict and evaluate keep of the model, for the report."""

from pathlib import Path
from typing import TYPE_CHECKING

from adtr_jax.html_report.card import ModelCard

if TYPE_CHECKING:
    from adtr_jax.api.model import Model


def card_of(model: "Model", path: Path) -> ModelCard:
    """Describes a model that was loaded from `path`."""
    return ModelCard.of(
        path.name,
        model.digest,
        model.settings,
        licence=model.licence,
        calibration=model.calibration,
        decision=model.decision,
    )
