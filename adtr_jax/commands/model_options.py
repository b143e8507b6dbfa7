"""The model of predict and evaluate: its options, and what their results keep of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adtr_jax.calibration.decision import ThresholdKind
from adtr_jax.export import format_of
from adtr_jax.html_report.card import ModelCard

if TYPE_CHECKING:
    from adtr_jax.api.model import Model


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model, and the threshold to use it with."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A model's file, an export (.onnx needs no JAX), or the folder of an experiment's run."""
    false_alarms: float | None = None
    """The share of good images that may be called anomalous. Default: the model's."""
    threshold: ThresholdKind | None = None
    """conformal or estimated; default: the model's."""
    product: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Of a model of several products: the one that the images show. Default: predict recognises it
    in each image."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of converted backbone weights, for an experiment's run."""

    def load(self) -> "Model":
        """Loads the model with the product and the threshold asked for.

        Raises:
            InputError: as `load`, `Model.of` and `Model.with_false_alarms`.
        """
        if format_of(self.model) != "onnx":
            from adtr_jax.devices.sharding import one_device_a_core, require_devices

            one_device_a_core()
            require_devices()
        from adtr_jax.api.model import load

        model = load(self.model, self.weights)
        if self.product is not None:
            model = model.of(self.product)
        if self.false_alarms is None and self.threshold is None:
            return model
        rate = model.false_alarms if self.false_alarms is None else self.false_alarms
        return model.with_false_alarms(rate, self.threshold)

    def card(self, model: "Model") -> ModelCard:
        """Describes the loaded model, for the report."""
        return ModelCard.of(
            self.model.name,
            model.digest,
            model.settings,
            licence=model.licence,
            calibration=model.calibration,
            decision=model.decision,
            products={
                name: (each.calibration, each.decision)
                for name, each in model.products.items()
                if each.calibration is not None and each.decision is not None
            },
        )
