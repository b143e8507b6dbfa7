"""A trained detector as one safetensors file that says in its header what it is.

The tensors are the detector's `params` and `rest` and, in a complete file, those of the backbone
and of the calibration. The header has one entry, a JSON object (see `Header`), with a digest of all
tensors, by which the model is known, and one of the file. A file without the backbone names it,
with the SHA-256 of its weights.
"""

import dataclasses
import hashlib
import typing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from adtr_jax import backbones, detectors
from adtr_jax.config import OF_THE_EVALUATION, Settings
from adtr_jax.detectors import features
from adtr_jax.detectors.detector import Detector
from adtr_jax.detectors.header import KEY, Header, header_in
from adtr_jax.errors import InputError
from adtr_jax.files import state_file

_RETRAIN = "train it again with --retrain"


class Contents(typing.NamedTuple):
    """What a model file holds.

    Attributes:
        header: what it says about itself.
        detector: the trained detector.
        calibration: arrays by name, see `save`; empty: there is none.
    """

    header: Header
    detector: Detector
    calibration: dict[str, np.ndarray]


def save(
    detector: Detector,
    path: Path,
    *,
    complete: bool = False,
    licence: str = "",
    calibration: dict[str, np.ndarray] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Atomically writes what the detector has learned, and its header.

    Args:
        detector: the trained detector.
        path: the file.
        complete: whether to write the backbone's weights, too.
        licence: of these weights.
        calibration: float32 arrays by name: `scores` and `peaks` `[n]`, and of p products `means`
            `[p c]` and `spread` `[c]`.
        extra: JSON values for the header.
    """
    arrays = calibration or {}
    header = describe(
        detector, complete=complete, licence=licence, calibration=arrays, extra=extra or {}
    )
    state_file.save(path, _state(detector, complete, arrays), {KEY: header.to_json()})


def describe(
    detector: Detector,
    *,
    complete: bool,
    licence: str,
    calibration: dict[str, np.ndarray],
    extra: dict[str, Any],
) -> Header:
    """Returns the header of a file that holds the detector; the arguments are those of `save`."""
    return Header(
        settings=detector.settings,
        backbone_sha256=detector.backbone_sha256 or backbones.digest(detector.backbone),
        licence=licence,
        complete=complete,
        calibrated=len(next(iter(calibration.values()), ())),
        extra=extra,
        sha256=_digest(_state(detector, complete, calibration)),
    )


def read_header(path: Path) -> Header:
    """Reads what a model file says about itself.

    Raises:
        InputError: the file is not there, is damaged, is no model, or of a newer version.
    """
    header = header_in(state_file.read_metadata(path, _RETRAIN), path, _RETRAIN)
    if header.format > 1 and not header.file_sha256:
        raise InputError(
            f"{path} has a damaged header (the digest of the file is missing); {_RETRAIN}"
        )
    return header


def load(path: Path, weights: Path | None = None) -> Contents:
    """Loads a model file as its header says; of the backbone, as many layers as are needed.

    Args:
        path: the model file.
        weights: the folder of converted backbone weights, for a file that is not complete.

    Raises:
        InputError: as `read_header`; the backbone's weights are not there, or are not those that
            the model was trained on; the tensors are damaged, or not those of the model.
    """
    header = read_header(path)
    name = header.settings.backbone
    if header.complete:
        backbone = backbones.shapes(name)
        backbone.trim(max(header.settings.layers))
    elif weights is None:
        raise InputError(f"{path} does not hold the weights of {name}: say where they are")
    else:
        backbone = backbones.load(name, weights)
        _require_backbone(header, backbones.digest(backbone), path)
        backbone.trim(max(header.settings.layers))
    detector = detectors.create(backbone, header.settings)
    held = _held(detector, header, path)
    return Contents(header, _filled(detector, held, header), _calibration(held))


def load_into(detector: Detector, path: Path) -> Detector:
    """Returns the detector with what a model file of the same backbone and settings has learned.

    Settings that only evaluation uses may differ: the detector keeps its own.

    Raises:
        InputError: as `load`; or the settings differ.
    """
    header = read_header(path)
    wanted, found = _trained_with(detector.settings), _trained_with(header.settings)
    for name in wanted | found:
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"{path} was trained with {name}={found.get(name)}, not {wanted.get(name)}; give "
                f"the same settings, or {_RETRAIN}"
            )
    _require_backbone(header, backbones.digest(detector.backbone), path)
    return _filled(detector, _held(detector, header, path), header)


def _require_backbone(header: Header, digest: str, path: Path) -> None:
    if header.backbone_sha256 != digest:
        raise InputError(
            f"{path} was trained on weights of {header.settings.backbone} with SHA-256 "
            f"{header.backbone_sha256[:16]}..., and these have {digest[:16]}...; convert the "
            f"checkpoint it was trained on, or {_RETRAIN}"
        )


def _held(detector: Detector, header: Header, path: Path) -> nnx.State:
    """The file's tensors, checked."""
    shapes: dict[str, tuple[int, ...]] = {}
    if header.calibrated:
        shapes = dict.fromkeys(("scores", "peaks"), (header.calibrated,))
    products = header.extra.get("products")
    if isinstance(products, list):
        c = features.channels(detector.backbone, header.settings.layers)
        shapes |= {"means": (len(products), c), "spread": (c,)}
    arrays = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    like = _state(detector, header.complete, arrays)
    held = state_file.load(path, like, _RETRAIN, sha256=header.file_sha256 or None)
    if _digest(held) != header.sha256:
        raise InputError(f"{path} is damaged: it does not hold what was written; {_RETRAIN}")
    return held


def _state(detector: Detector, complete: bool, calibration: dict[str, Any]) -> nnx.State:
    parts: dict[str, Any] = {"params": detector.params, "rest": detector.rest}
    if complete:
        parts["backbone"] = nnx.state(detector.backbone)
    if calibration:
        variables = {name: nnx.Variable(array) for name, array in calibration.items()}
        parts["calibration"] = nnx.State(variables)
    return nnx.State(parts)


def _filled(detector: Detector, held: nnx.State, header: Header) -> Detector:
    """The detector with the file's values."""
    values: dict[str, Any] = {"params": held["params"], "rest": held.get("rest", nnx.State({}))}
    if header.complete:
        graph, _ = nnx.split(detector.backbone)
        values["backbone"] = nnx.merge(graph, held.get("backbone", nnx.State({})))
    return dataclasses.replace(detector, backbone_sha256=header.backbone_sha256, **values)


def _calibration(held: nnx.State) -> dict[str, np.ndarray]:
    state = held.get("calibration", nnx.State({}))
    return {name: np.asarray(variable[...]) for name, variable in state.items()}


def _digest(state: nnx.State) -> str:
    """The SHA-256 of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    leaves = {state_file.name(keys): leaf for keys, leaf in nnx.to_flat_state(state)}
    for name in sorted(leaves):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaves[name].get_value()).data)
    return digest.hexdigest()


def _trained_with(settings: Settings) -> dict[str, Any]:
    """What the parameters depend on."""
    fields = {"method": settings.method} | dataclasses.asdict(settings)
    return {name: value for name, value in fields.items() if name not in OF_THE_EVALUATION}
