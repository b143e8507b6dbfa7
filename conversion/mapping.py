"""The mapping itself: a PyTorch state dict -> the arrays of the Flax module, one to one.

The families' key names are in `efficientnet` and `resnet`; target names and shapes are those of the
module that `adtr_jax.backbones.create` makes.
"""

import functools
import re
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from adtr_jax.backbones.scaling import LAYOUTS
from adtr_jax.errors import InputError
from adtr_jax.files.pickle_machine import shown
from conversion import efficientnet, resnet
from conversion.rules import Rule, Transform, same


def to_flax(
    tensors: Mapping[str, np.ndarray], name: str, *, source: str = "state dict"
) -> dict[str, np.ndarray]:
    """Maps a PyTorch state dict to the arrays of the Flax module, one to one.

    Args:
        tensors: the state dict, floating-point except for `num_batches_tracked`.
        name: the network, such as efficientnet-b4 or resnet-34.
        source: the file's name, for errors.

    Returns:
        float32 arrays by joined names (`blocks.3.expand.kernel`), all those of the module.

    Raises:
        InputError: a tensor too many, too few, of the wrong shape or type, or not finite.
    """
    shapes = _expected_shapes(name)
    keys = resnet.KEYS if name in LAYOUTS else efficientnet.KEYS
    advice = f"is it a checkpoint of {name}?"
    arrays: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        if re.fullmatch(keys.dropped, key):
            continue
        target, transform = _target(key, keys.rules)
        where = f"{source}: key '{shown(key)}'"
        if target not in shapes:
            raise InputError(f"{where} is unused: {name} has no such tensor; {advice}")
        arrays[target] = _convert(tensor, transform, target, shapes[target], where)
    missing = [target for target in shapes if target not in arrays]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{source}: no key for {missing[0]!r}{more}, which {name} needs; {advice}")
    return {target: arrays[target] for target in shapes}


def _target(key: str, rules: tuple[Rule, ...]) -> tuple[str, Transform]:
    """Our key for PyTorch's `key`, empty if no rule fits, and the transformation."""
    for rule in rules:
        if match := re.fullmatch(rule.pattern, key):
            return match.expand(rule.target), rule.transform
    return "", same


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

    from adtr_jax import backbones
    from adtr_jax.files import state_file

    module = backbones.shapes(name)
    leaves = nnx.to_flat_state(nnx.state(module))
    return {state_file.name(path): tuple(leaf.get_value().shape) for path, leaf in leaves}
