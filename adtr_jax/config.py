"""The settings of a run: one frozen dataclass, checked when it is made."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from adtr_jax.backbones import NAMES
from adtr_jax.errors import InputError, unknown
from adtr_jax.models import ModelName

ImageScore = Literal["pooled_max", "max", "mean", "top"]


@dataclass(frozen=True)
class Settings:
    """How to train and score; the defaults are the paper's for MVTec-AD (Section 4.2)."""

    backbone: str = "efficientnet-b4"
    """The frozen ImageNet network: efficientnet-b0..b7, efficientnet-lite0..lite4, resnet-18,
    resnet-34 or wide-resnet-50-2; pixels: none, the image itself is reconstructed."""
    layers: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Which of the backbone's five layers (strides 2, 4, 8, 16, 32) are reconstructed."""
    model: ModelName = "adtr"
    """What reconstructs the features: adtr, or a row of Table 4a: no_query, no_attention, cnn."""
    standardise: bool = False
    """Bring every feature channel to mean 0 and standard deviation 1 on the training images."""
    image_size: int = 256
    """Side s of the images, in pixels; 512 gives 32 x 32 tokens (Appendix A)."""
    token_stride: int = 16
    """Pixels a token: the feature maps are s / token_stride on a side."""
    epochs: int = 500
    """Passes over the normal training images."""
    max_steps: int | None = None
    """Fewer epochs where they would take more steps than this, rounded up to a whole epoch."""
    batch_size: int = 16
    """Images a step, over all devices."""
    learning_rate: float = 1e-4
    """AdamW's, at first; then as `schedule` says."""
    schedule: Literal["step", "cosine"] = "step"
    """step: the paper's, tenfold less after `drop_after`. cosine: a short warm-up, then falling to
    zero."""
    drop_after: float = 0.8
    """The share of the epochs after which `step` lowers the learning rate."""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay."""
    dropout: float = 0.1
    """Probability, in attention weights and FFN, in training only."""
    aligned: bool = False
    """Start with an attention that looks where it stands, which saves the plateau of the first
    epochs; the paper's initial values are random throughout."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation, float32 in full precision; parameters and optimiser stay float32."""
    placement: Literal["corners", "centres"] = "corners"
    """Where a token's score goes in the score map. corners: the paper's resize, from corner to
    corner. centres: where the network saw it, which its padding shifts up and to the left."""
    image_score: ImageScore = "pooled_max"
    """How a score map becomes the image's score."""
    seed: int = 0
    """Of the parameters, the order of the images and the dropout."""

    def __post_init__(self) -> None:
        """Raises InputError where a value makes no sense."""
        if self.backbone not in NAMES:
            raise unknown("no backbone", self.backbone, NAMES)
        for name in ("image_size", "token_stride", "epochs", "batch_size", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name}={getattr(self, name)} must be greater than 0")
        if self.image_size % self.token_stride or self.image_size < 32:
            raise InputError(
                f"--image_size={self.image_size} must be at least 32 and a multiple of "
                f"--token_stride={self.token_stride}"
            )
        if not self.layers or list(self.layers) != sorted(set(self.layers) & {1, 2, 3, 4, 5}):
            raise InputError(
                f"--layers {' '.join(map(str, self.layers))} must be numbers from 1 to 5, rising"
            )
        if self.max_steps is not None and self.max_steps <= 0:
            raise InputError(f"--max_steps={self.max_steps} must be greater than 0, or None")
        if not 0 < self.drop_after <= 1:
            raise InputError(f"--drop_after={self.drop_after} must be above 0 and at most 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout={self.dropout} must be at least 0 and below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"--weight_decay={self.weight_decay} must be at least 0")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"--seed={self.seed} must be at least 0 and below 2^31")

    def epochs_of(self, steps: int) -> int:
        """The epochs to train for, of so many steps each: as many as `max_steps` allows."""
        if self.max_steps is None:
            return self.epochs
        return min(self.epochs, -(-self.max_steps // steps))

    @property
    def tokens_per_side(self) -> int:
        """Side h = w of the feature maps."""
        return self.image_size // self.token_stride


@dataclass(frozen=True)
class Plus:
    """ADTR+: how a trained model goes on where anomalies are known; the paper's defaults."""

    epochs: int = 300
    """Passes over the normal images, each with as many anomalous ones."""
    max_steps: int | None = None
    """Fewer epochs where they would take more steps than this, rounded up to a whole epoch."""
    learning_rate: float = 1e-4
    """AdamW's, at first."""
    drop_after: float = 2 / 3
    """The share of the epochs after which `--schedule=step` lowers the learning rate."""
    alpha: float = 0.003
    """Weight of the anomalous term (Eqs. 7 and 9)."""
    k: int = 20
    """How many positions count where images are labelled and pixels are not (Eq. 8)."""
    variants: int = 8
    """How many synthetic anomalies are made of every normal image; each epoch draws from them."""

    def __post_init__(self) -> None:
        """Raises InputError where a value makes no sense; Settings checks the others."""
        for name in ("alpha", "k", "variants"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--plus.{name}={getattr(self, name)} must be greater than 0")

    def settings(self, start: Settings) -> Settings:
        """The settings of the second training, of a model that was trained with `start`."""
        if start.batch_size % 2:
            raise InputError(
                f"--batch_size={start.batch_size} must be even: half of each batch is anomalous"
            )
        return dataclasses.replace(
            start,
            epochs=self.epochs,
            max_steps=self.max_steps,
            learning_rate=self.learning_rate,
            drop_after=self.drop_after,
        )


Preset = Literal["paper", "fast"]
PAPER = Settings()
FAST = dataclasses.replace(
    PAPER,
    layers=(2, 3, 4),
    standardise=True,
    image_size=160,
    epochs=150,
    max_steps=450,
    learning_rate=5e-4,
    schedule="cosine",
    dropout=0.0,
    aligned=True,
    placement="centres",
    image_score="top",
)
PRESETS: dict[Preset, Settings] = {"paper": PAPER, "fast": FAST}
PLUS: dict[Preset, Plus] = {
    "paper": Plus(),
    "fast": Plus(epochs=100, max_steps=300, learning_rate=2e-4),
}
