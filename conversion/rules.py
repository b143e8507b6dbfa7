"""What a table of key names is made of: rules and the changes of layout from PyTorch to Flax."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
    """Where tensors go."""

    pattern: str
    """PyTorch's whole key, a regular expression."""
    target: str
    """Our key, with the pattern's groups as \\1, \\2."""
    transform: Transform
    """PyTorch's layout -> Flax's."""


class KeyMap(NamedTuple):
    """The key names of one family of networks."""

    rules: tuple[Rule, ...]
    dropped: str
    """The keys that inference does not need, a regular expression."""


def same(tensor: np.ndarray) -> np.ndarray:
    """No change: a vector."""
    return tensor


def hwio(tensor: np.ndarray) -> np.ndarray:
    """Convolution kernel [out, in, h, w] -> [h, w, in, out]; in is 1 if it is depthwise."""
    return tensor.transpose(2, 3, 1, 0)


def dense(tensor: np.ndarray) -> np.ndarray:
    """Dense kernel [out, in] -> [in, out]."""
    return tensor.transpose(1, 0)


def pointwise(tensor: np.ndarray) -> np.ndarray:
    """1x1 convolution kernel [out, in, 1, 1] -> dense kernel [in, out]."""
    return tensor.squeeze((2, 3)).transpose(1, 0)


_STATISTICS = (
    ("weight", "scale"),
    ("bias", "bias"),
    ("running_mean", "mean"),
    ("running_var", "var"),
)


def norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The rules of one BatchNorm, whose four vectors join the convolution `ours`."""
    return tuple(Rule(rf"{theirs}\.{old}", f"{ours}.{new}", same) for old, new in _STATISTICS)
