"""The settings of a run: one frozen dataclass per method, validated on creation."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from adtr_jax import backbones
from adtr_jax.errors import InputError

ModelName = Literal["adtr", "layerwise_query", "no_query", "no_attention", "cnn"]
ImageScore = Literal["pooled_max", "max", "mean", "top", "relative"]
MaskFilter = Literal["keep", "nearest"]
Bits = Literal[8, 10, 12, 14, 16]
BITS: tuple[Bits, ...] = get_args(Bits)
Optimiser = Literal["adamw", "adam", "muon"]
Structure = Literal["none", "encoder", "decoder"]
QueryFrom = Literal["agn", "trans"]
Coefficient = Literal["half", "mse", "cos", "alpha"]
Fusion = Literal["P1", "P2", "P3", "P4", "P5", "P6"]
Pictures = int | Literal["all"]  # of how many test images
PICTURES = 100

# The settings that a trained model does not depend on.
OF_THE_EVALUATION = frozenset({"placement", "image_score", "mask_filter", "coefficient", "fusion"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings common to all methods."""

    method: ClassVar[str]  # its name, see `methods`

    backbone: str
    """The frozen ImageNet network: efficientnet-b0..b7, efficientnet-lite0..lite4, resnet-18,
    resnet-34 or wide-resnet-50-2; pixels: none, ADTR reconstructs the image itself. Installed
    packages may add others."""
    layers: tuple[int, ...]
    """Which of the backbone's five layers (strides 2, 4, 8, 16, 32) are reconstructed."""
    image_size: int
    """Side s of the images and score maps, in pixels."""
    crop: float
    """The share of an image's height and width that is kept: its centre. 1 keeps all of it."""
    bits: Bits | None = None
    """Of images of 16 bits: how many the camera uses. Default: the fewest that hold the largest
    value of the normal training images, which the model keeps."""
    epochs: int
    """Passes over the normal training images."""
    max_steps: int | None = None
    """Fewer epochs where they would take more steps than this, rounded up to a whole epoch."""
    held_out: float = 0.0
    """The share of the normal images that is not trained on: the validation set. Its loss is logged
    after every epoch, and tells whether more of them would help."""
    patience: int | None = None
    """Stop when the loss of the held-out images has not fallen for so many epochs, and keep the
    parameters of the epoch where it was lowest. With `--schedule=cosine` much of the fall comes in
    the last epochs, which an early stop cuts off. ADTR+ does not stop early."""
    batch_size: int
    """Images a step, over all devices."""
    optimiser: Optimiser
    """adamw: `weight_decay` shrinks the weights. adam: it is added to the gradient. muon: matrices
    move by orthogonalised momentum, which needs fewer steps; all else as with adamw."""
    learning_rate: float
    """The optimiser's, at first; then as `schedule` says."""
    schedule: Literal["step", "exponential", "cosine"]
    """step: ADTR's, tenfold less after `drop_after`. exponential: GTrans's, falling to 0.9 of it.
    cosine: a short warm-up, then falling to zero."""
    drop_after: float = 0.8
    """The share of the epochs after which `step` lowers the learning rate."""
    weight_decay: float = 1e-4
    """See `optimiser`."""
    clip: float | None = None
    """The largest norm of the gradient of all parameters; a larger one is scaled down to it. UniAD:
    0.1."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation, float32 in full precision; parameters and optimiser stay float32."""
    placement: Literal["corners", "centres"] = "corners"
    """Where a position's score goes in the score map. corners: the paper's resize, from corner to
    corner. centres: where the network saw it, which its padding may shift up and to the left."""
    image_score: ImageScore
    """How an image is scored. pooled_max, the papers', max and mean: by its score map. top: by the
    largest 5 % of its token scores. relative: likewise, but of scores in proportion to the features
    and in standard deviations from the training images at the same position."""
    mask_filter: MaskFilter = "keep"
    """How masks are brought to the score map's size, for the pixel metrics. keep: by nearest
    neighbour, and of a defect that it would lose every pixel that the defect touches is marked.
    nearest: as in the papers, and small defects may count as normal."""
    seed: int = 0
    """Of the parameters, the order of the images, the dropout and the jitter."""

    def __post_init__(self) -> None:
        """Raises InputError if a value is invalid."""
        backbones.require_known(self.backbone)
        for name in ("image_size", "epochs", "batch_size", "learning_rate", "clip"):
            require_positive(name, getattr(self, name))
        if self.image_size < 32:
            raise InputError(f"--image_size={self.image_size} must be at least 32")
        if not 0 < self.crop <= 1:
            raise InputError(f"--crop={self.crop} must be above 0 and at most 1")
        if not self.layers or list(self.layers) != sorted(set(self.layers) & {1, 2, 3, 4, 5}):
            raise InputError(
                f"--layers {' '.join(map(str, self.layers))} must be numbers from 1 to 5, rising"
            )
        if self.max_steps is not None and self.max_steps <= 0:
            raise InputError(f"--max_steps={self.max_steps} must be greater than 0, or None")
        if not 0 <= self.held_out < 1:
            raise InputError(f"--held_out={self.held_out} must be at least 0 and below 1")
        if self.patience is not None:
            require_positive("patience", self.patience)
            if not self.held_out:
                raise InputError(
                    f"--patience={self.patience} is of the loss of held-out images, and "
                    "--held_out=0 holds none out: give a share of the images, such as "
                    "--held_out=0.1"
                )
        if not 0 < self.drop_after <= 1:
            raise InputError(f"--drop_after={self.drop_after} must be above 0 and at most 1")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"--weight_decay={self.weight_decay} must be at least 0")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"--seed={self.seed} must be at least 0 and below 2^31")

    def epochs_of(self, steps: int) -> int:
        """Returns the number of epochs to train, of `steps` steps each, that `max_steps` allows."""
        if self.max_steps is None:
            return self.epochs
        return min(self.epochs, -(-self.max_steps // steps))


@dataclass(frozen=True, kw_only=True)
class AdtrSettings(Settings):
    """ADTR; the defaults are the paper's for MVTec-AD (You et al., Section 4.2)."""

    method = "adtr"
    backbone: str = "efficientnet-b4"
    layers: tuple[int, ...] = (1, 2, 3, 4, 5)
    image_size: int = 256
    crop: float = 1.0
    epochs: int = 500
    batch_size: int = 16
    optimiser: Optimiser = "adamw"
    learning_rate: float = 1e-4
    schedule: Literal["step", "exponential", "cosine"] = "step"
    image_score: ImageScore = "pooled_max"
    width: int = 256
    """d, the channels of a token."""
    heads: int = 8
    """Of the attention; they divide `width`."""
    depth: int = 4
    """Layers of the encoder, and of the decoder."""
    hidden: int = 1024
    """Channels between the two dense layers of an FFN."""
    model: ModelName = "adtr"
    """What reconstructs the features: adtr; layerwise_query, with a query in every layer of the
    decoder (UniAD); or a row of Table 4a: no_query, no_attention, cnn."""
    neighbours: int | None = None
    """No token attends to the window of so many positions a side around it, and so not to itself.
    Odd; UniAD: 7."""
    jitter: float | None = None
    """Scale of the noise on the features that the model reconstructs, in training only: of a
    standard deviation of so many c-ths of the token's norm, c being its channels. UniAD: 20."""
    standardise: bool = False
    """Bring every feature channel to mean 0 and standard deviation 1 on the training images."""
    token_stride: int = 16
    """Pixels a token: the feature maps are image_size / token_stride on a side. 512 px at 16 are
    32 x 32 tokens (Appendix A)."""
    dropout: float = 0.1
    """Probability, in attention weights and FFN, in training only. The paper names none; 0.1 is
    that of the transformer that it follows (Vaswani et al.)."""
    aligned: bool = False
    """Start with an attention that looks where it stands, which saves the plateau of the first
    epochs; the paper's initial values are random throughout."""

    def __post_init__(self) -> None:
        """Raises InputError if a value is invalid."""
        super().__post_init__()
        require_positive("token_stride", self.token_stride)
        if self.image_size % self.token_stride:
            raise InputError(
                f"--image_size={self.image_size} must be a multiple of "
                f"--token_stride={self.token_stride}"
            )
        if self.image_score == "relative" and not self.standardise:
            raise InputError("--image_score=relative is of standardised features: --standardise")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout={self.dropout} must be at least 0 and below 1")
        for name in ("width", "heads", "depth", "hidden", "jitter"):
            require_positive(name, getattr(self, name))
        if self.width % self.heads:
            raise InputError(f"--width={self.width} must be a multiple of --heads={self.heads}")
        if self.neighbours is not None:
            self._check_neighbours(self.neighbours)

    def _check_neighbours(self, size: int) -> None:
        if self.model in ("no_attention", "cnn"):
            raise InputError(f"--neighbours is of attention, and --model={self.model} has none")
        side = self.tokens_per_side
        if size < 1 or size % 2 == 0 or size >= side:
            raise InputError(
                f"--neighbours={size} must be odd, above 0 and below {side}, the tokens on a side "
                "of the feature maps: each token attends to those outside of its window"
            )

    @property
    def tokens_per_side(self) -> int:
        """Side h = w of the feature maps."""
        return self.image_size // self.token_stride


@dataclass(frozen=True, kw_only=True)
class GtransSettings(Settings):
    """GTrans; the defaults are the paper's for MVTec-AD (Yan et al., Section 4.2)."""

    method = "gtrans"
    backbone: str = "resnet-34"
    layers: tuple[int, ...] = (2, 3, 4)
    image_size: int = 224
    crop: float = 0.875
    epochs: int = 300
    batch_size: int = 32
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["step", "exponential", "cosine"] = "exponential"
    image_score: ImageScore = "max"
    held_out: float = 0.2
    structure: Structure = "decoder"
    """Of the TFM: decoder, the whole; encoder alone; none, plain imitation (Tables 4 and 5)."""
    blocks: int = 2
    """S, the blocks of the TFM's encoder, and of its decoder."""
    groups: int = 8
    """g, the tokens of a layer."""
    width: int = 256
    """d, the channels of a token."""
    query_from: QueryFrom = "agn"
    """Whose features the Mapper's queries are made of: agn's, as Eq. 12 is printed, or trans's."""
    coefficient: Coefficient = "alpha"
    """What weighs the layers' maps (Table 6)."""
    fusion: Fusion = "P6"
    """How three layers' maps become one (Table 7); P4, their sum, takes any number of layers."""

    def __post_init__(self) -> None:
        """Raises InputError if a value is invalid."""
        super().__post_init__()
        if self.backbone == backbones.PIXELS:
            raise InputError("--backbone=pixels has nothing to train: choose a network for GTrans")
        if self.image_score == "relative":
            raise InputError("--image_score=relative is of ADTR: leave it out, or --method=adtr")
        for name in ("blocks", "groups", "width"):
            require_positive(name, getattr(self, name))
        if len(self.layers) != 3 and self.fusion != "P4":
            raise InputError(
                f"--fusion={self.fusion} is of three layers, and --layers names "
                f"{len(self.layers)}: take --fusion=P4, the sum"
            )


def require_positive(name: str, value: float | int | None) -> None:
    """Raises InputError if the option `name` is not a positive number; None: it is not in use."""
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"--{name}={value} must be greater than 0")


@dataclass(frozen=True)
class Plus:
    """ADTR+: how training continues with known anomalies; the defaults are the paper's."""

    epochs: int = 300
    """Passes over the normal images, each with as many anomalous ones."""
    max_steps: int | None = None
    """Fewer epochs where they would take more steps than this, rounded up to a whole epoch."""
    learning_rate: float = 1e-4
    """The optimiser's, at first."""
    drop_after: float = 2 / 3
    """The share of the epochs after which `--schedule=step` lowers the learning rate."""
    alpha: float = 0.003
    """Weight of the anomalous term (Eqs. 7 and 9)."""
    k: int = 20
    """How many positions count where images are labelled and pixels are not (Eq. 8)."""
    variants: int = 8
    """How many synthetic anomalies are made of every normal image; each epoch draws from them. The
    paper says nothing of a fixed number: it is ours, so that features are computed once."""

    def __post_init__(self) -> None:
        """Raises InputError if a value is invalid; Settings checks the others."""
        for name in ("alpha", "k", "variants"):
            require_positive(f"plus.{name}", getattr(self, name))

    def settings(self, start: AdtrSettings) -> AdtrSettings:
        """Returns the settings of the second training, of a model that was trained with `start`.

        It does not stop early: where it learns anomalies, the loss of normal images rises at first.
        """
        if start.batch_size % 2:
            raise InputError(
                f"--batch_size={start.batch_size} must be even: half of each batch is anomalous"
            )
        return dataclasses.replace(
            start,
            epochs=self.epochs,
            max_steps=self.max_steps,
            patience=None,
            learning_rate=self.learning_rate,
            drop_after=self.drop_after,
        )


Preset = Literal["paper", "fast", "best"]
_FAST = AdtrSettings(
    layers=(2, 3, 4),
    standardise=True,
    image_size=160,
    epochs=150,
    max_steps=300,
    held_out=0.05,
    optimiser="muon",
    learning_rate=0.02,
    schedule="cosine",
    dropout=0.0,
    aligned=True,
    placement="centres",
    image_score="relative",
)
# The paper's settings; the best found for some minutes on two CPU cores; four times as many steps.
ADTR_PRESETS: Mapping[Preset, AdtrSettings] = {
    "paper": AdtrSettings(),
    "fast": _FAST,
    "best": dataclasses.replace(_FAST, epochs=600, max_steps=1200),
}
# What takes minutes on a CPU, with a network whose weights come with the installation. Nothing more
# is held out: `fit` has the images that it calibrates on.
FIT_PRESETS: Mapping[Preset, AdtrSettings] = {
    name: dataclasses.replace(settings, backbone="efficientnet-lite2", held_out=0.0)
    for name, settings in ADTR_PRESETS.items()
}
FIT_SETTINGS = FIT_PRESETS["fast"]
_FAST_GTRANS = GtransSettings(
    image_size=160,
    crop=1.0,
    epochs=150,
    max_steps=240,
    batch_size=16,
    optimiser="muon",
    learning_rate=0.02,
    schedule="cosine",
    held_out=0.0,
    query_from="trans",
    placement="centres",
    coefficient="half",
    fusion="P4",
)
GTRANS_PRESETS: Mapping[Preset, GtransSettings] = {
    "paper": GtransSettings(),
    "fast": _FAST_GTRANS,
    "best": dataclasses.replace(_FAST_GTRANS, epochs=600, max_steps=960),
}
_FAST_PLUS = Plus(epochs=100, max_steps=300, learning_rate=5e-3)
PLUS_PRESETS: Mapping[Preset, Plus] = {"paper": Plus(), "fast": _FAST_PLUS, "best": _FAST_PLUS}


def at_most(pictures: Pictures) -> int | None:
    """The number of test images that are drawn; None: of all.

    Raises:
        InputError: it is negative.
    """
    if pictures == "all":
        return None
    if pictures < 0:
        raise InputError(f"--pictures={pictures} must be at least 0, or all")
    return pictures
