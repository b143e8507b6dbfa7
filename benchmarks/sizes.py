"""The sizes of the timed jobs. Imports neither JAX nor PyTorch."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adtr_jax.config import AdtrSettings


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The defaults are those that the targets are set for.

    Attributes:
        backbone: the EfficientNet; its weights are random.
        image_size: side s in pixels; a token is 16 x 16 of them.
        feature_batches: images per call.
        train_steps: tokens and images of the batches whose training step is timed.
        depth: layers of the encoder, and of the decoder.
        images: number of RGB images of the small category, held in memory.
        batch_size: images per step of the whole training.
        epochs: of the whole training.
        file_size: side of the image files to predict, in pixels.
        prediction_batches: image files per call.
        maps: score maps to compute metrics of.
        repeats: number of timings of each way, in turn; the median counts.
        long_repeats: the same for what takes a minute: whole trainings, and start-ups.
        compiled: whether `torch.compile` is tried; compiling takes minutes.
    """

    backbone: str = "efficientnet-b4"
    image_size: int = 256
    dtype: Literal["float32", "bfloat16"] = "float32"
    feature_batches: tuple[int, ...] = (1, 8)
    train_steps: tuple[tuple[int, int], ...] = ((64, 128), (256, 16))
    depth: int = 4
    images: int = 32
    batch_size: int = 16
    epochs: int = 10
    file_size: int = 1024
    prediction_batches: tuple[int, ...] = (1, 16)
    maps: int = 160
    repeats: int = 7
    long_repeats: int = 3
    compiled: bool = True

    @property
    def settings(self) -> AdtrSettings:
        """The paper's ADTR settings at this size."""
        return AdtrSettings(
            backbone=self.backbone,
            image_size=self.image_size,
            dtype=self.dtype,
            depth=self.depth,
            batch_size=self.batch_size,
            epochs=self.epochs,
        )

    def step_settings(self, tokens: int, batch: int) -> AdtrSettings:
        """Returns the paper's settings for images of `tokens` tokens."""
        side = round(tokens**0.5)
        size = max(16 * side, 32)
        return AdtrSettings(
            backbone=self.backbone,
            image_size=size,
            token_stride=size // side,
            batch_size=batch,
            dtype=self.dtype,
            depth=self.depth,
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Sizes":
        values = json.loads(path.read_text())
        return cls(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


# A smoke test: whether everything runs, not how fast.
QUICK = Sizes(
    backbone="efficientnet-b0",
    image_size=64,
    feature_batches=(2,),
    train_steps=((4, 4),),
    images=4,
    batch_size=2,
    epochs=2,
    file_size=96,
    prediction_batches=(1,),
    maps=6,
    repeats=1,
    long_repeats=1,
)
