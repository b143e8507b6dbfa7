"""EfficientNet: PyTorch's key names and layouts -> Flax's.

Source names: the packages efficientnet-pytorch and efficientnet-lite-pytorch. Target names and
shapes: the module that `adtr_jax.backbones.create` makes.
"""

import functools
import re
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np

from adtr_jax.errors import InputError
from conversion.state_dict import shown

Transform = Callable[[np.ndarray], np.ndarray]


def _same(tensor: np.ndarray) -> np.ndarray:
    return tensor


def _hwio(tensor: np.ndarray) -> np.ndarray:
    """Convolution kernel [out, in, h, w] -> [h, w, in, out]; in is 1 if it is depthwise."""
    return tensor.transpose(2, 3, 1, 0)


def _dense(tensor: np.ndarray) -> np.ndarray:
    """Dense kernel [out, in] -> [in, out]."""
    return tensor.transpose(1, 0)


def _pointwise(tensor: np.ndarray) -> np.ndarray:
    """1x1 convolution kernel [out, in, 1, 1] -> dense kernel [in, out]."""
    return tensor.squeeze((2, 3)).transpose(1, 0)


_BLOCK = r"_blocks\.(\d+)\."

# A block with expand ratio 1 has no expansion, and its BatchNorms are still called _bn1 and _bn2.
_NORMS = (
    (r"_bn0", r"stem"),
    (rf"{_BLOCK}_bn0", r"blocks.\1.expand"),
    (rf"{_BLOCK}_bn1", r"blocks.\1.depthwise"),
    (rf"{_BLOCK}_bn2", r"blocks.\1.project"),
    (r"_bn1", r"head"),
)
_STATISTICS = (
    ("weight", "scale"),
    ("bias", "bias"),
    ("running_mean", "mean"),
    ("running_var", "var"),
)

# (PyTorch's key as a pattern, our key, transformation)
RULES: tuple[tuple[str, str, Transform], ...] = (
    (r"_conv_stem\.weight", r"stem.kernel", _hwio),
    (rf"{_BLOCK}_expand_conv\.weight", r"blocks.\1.expand.kernel", _hwio),
    (rf"{_BLOCK}_depthwise_conv\.weight", r"blocks.\1.depthwise.kernel", _hwio),
    (rf"{_BLOCK}_se_reduce\.weight", r"blocks.\1.squeeze.kernel", _pointwise),
    (rf"{_BLOCK}_se_reduce\.bias", r"blocks.\1.squeeze.bias", _same),
    (rf"{_BLOCK}_se_expand\.weight", r"blocks.\1.excite.kernel", _pointwise),
    (rf"{_BLOCK}_se_expand\.bias", r"blocks.\1.excite.bias", _same),
    (rf"{_BLOCK}_project_conv\.weight", r"blocks.\1.project.kernel", _hwio),
    (r"_conv_head\.weight", r"head.kernel", _hwio),
    (r"_fc\.weight", r"classifier.kernel", _dense),
    (r"_fc\.bias", r"classifier.bias", _same),
    *(
        (rf"{theirs}\.{old}", f"{ours}.{new}", _same)
        for theirs, ours in _NORMS
        for old, new in _STATISTICS
    ),
)

# A training counter that inference does not need.
DROPPED = (rf"({_BLOCK})?_bn[012]\.num_batches_tracked",)


def to_flax(
    tensors: Mapping[str, np.ndarray], name: str, *, source: str = "state dict"
) -> dict[str, np.ndarray]:
    """Maps a PyTorch state dict to the arrays of the Flax module, one to one.

    Args:
        tensors: the state dict, floating-point except for `num_batches_tracked`.
        name: the network, such as efficientnet-b4.
        source: the file's name, for errors.

    Returns:
        float32 arrays by joined names (`blocks.3.expand.kernel`), all those of the module.

    Raises:
        InputError: a tensor too many, too few, of the wrong shape or type, or not finite.
    """
    shapes = _expected_shapes(name)
    advice = f"is it a checkpoint of {name}?"
    arrays: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        if any(re.fullmatch(pattern, key) for pattern in DROPPED):
            continue
        target, transform = _rule(key)
        where = f"{source}: key '{shown(key)}'"
        if target not in shapes:
            raise InputError(f"{where} is unused: {name} has no such tensor; {advice}")
        arrays[target] = _convert(tensor, transform, target, shapes[target], where)
    missing = [target for target in shapes if target not in arrays]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{source}: no key for {missing[0]!r}{more}, which {name} needs; {advice}")
    return {target: arrays[target] for target in shapes}


def _rule(key: str) -> tuple[str, Transform]:
    """Our key for PyTorch's `key`, empty if no rule fits, and the transformation."""
    for pattern, ours, transform in RULES:
        if match := re.fullmatch(pattern, key):
            return match.expand(ours), transform
    return "", _same


def _convert(
    tensor: np.ndarray, transform: Transform, target: str, shape: tuple[int, ...], where: str
) -> np.ndarray:
    """A float32 copy of the transformed tensor; nothing is copied before its shape is checked."""
    if tensor.dtype.kind != "f" and tensor.dtype != ml_dtypes.bfloat16:
        raise InputError(f"{where} is {tensor.dtype}, not floating-point")
    try:
        transformed = transform(tensor)
    except ValueError:  # not even the number of axes fits
        transformed = tensor
    if transformed.shape != shape:
        raise InputError(
            f"{where} has shape {tensor.shape}, which does not give {target!r} "
            f"its shape {shape}; is it a checkpoint of another network?"
        )
    array = np.array(transformed, np.float32, order="C")
    if not np.isfinite(array).all():
        raise InputError(f"{where} has values that are not finite; get the file again")
    return array


@functools.cache
def _expected_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The module's arrays: joined name -> shape. Nothing is computed or allocated."""
    from flax import nnx

    from adtr_jax import backbones, state_file

    module = nnx.eval_shape(lambda: backbones.create(name, rngs=nnx.Rngs(0)))
    leaves = nnx.to_flat_state(nnx.state(module))
    return {state_file.name(path): tuple(leaf.get_value().shape) for path, leaf in leaves}
