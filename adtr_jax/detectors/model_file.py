"""A trained detector as one safetensors file that says in its header what it is.

The tensors are the detector's `params` and `rest`; the backbone is named, with the SHA-256 of its
weights, and lies elsewhere. The header has one entry, a JSON object (see `Header`).
"""

import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx
from typeguard import TypeCheckError, check_type

from adtr_jax import __version__, backbones, detectors
from adtr_jax.config import OF_THE_EVALUATION, SETTINGS, Settings
from adtr_jax.detectors.detector import Detector
from adtr_jax.errors import InputError
from adtr_jax.files import state_file

FORMAT = 1  # of the header and of the tensors' names
KEY = "adtr_jax"
_RETRAIN = "train it again with --retrain"


@dataclass(frozen=True)
class Header:
    """What a model file says about itself.

    Attributes:
        format: of the file; a newer one cannot be read.
        version: of adtr_jax, that wrote it.
        settings: method, and how the model was trained and scores.
        backbone_sha256: of the weights of the backbone that the settings name.
    """

    format: int
    version: str
    settings: Settings
    backbone_sha256: str

    def to_json(self) -> str:
        """Writes the header as JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        settings = dataclasses.asdict(self.settings)
        return json.dumps(fields | {"method": self.settings.method, "settings": settings})

    @classmethod
    def of_json(cls, text: str) -> "Header":
        """Reads a header.

        Raises:
            ValueError, TypeError, LookupError, TypeCheckError, InputError: it is none.
        """
        fields = json.loads(text)
        if fields["format"] > FORMAT:
            raise InputError(f"was written by adtr_jax {fields['version']}, which is newer: update")
        kind = SETTINGS[fields.pop("method")]
        return cls(**fields | {"settings": _settings(kind, fields["settings"])})


def save(detector: Detector, path: Path) -> None:
    """Writes what the detector has learned, and its header; whole or not at all."""
    digest = backbones.digest(detector.backbone)
    header = Header(FORMAT, __version__, detector.settings, digest)
    state_file.save(path, _state(detector), {KEY: header.to_json()})


def read_header(path: Path) -> Header:
    """Reads what a model file says about itself.

    Raises:
        InputError: the file is not there, is damaged, is no model, or of a newer version.
    """
    text = state_file.read_metadata(path, _RETRAIN).get(KEY)
    if text is None:
        raise InputError(
            f"{path} does not say what it is: it is no model of adtr_jax, or of a version before "
            f"0.2; {_RETRAIN}"
        )
    try:
        return Header.of_json(text)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, TypeCheckError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} has a damaged header ({reason}); {_RETRAIN}") from None


def load(path: Path, weights: Path) -> Detector:
    """Returns the detector in a model file, as its header says.

    Args:
        path: the model file.
        weights: the folder of converted backbone weights.

    Raises:
        InputError: as `read_header`; the backbone's weights are not there, or are not those that
            the model was trained on; a tensor is missing or of the wrong shape.
    """
    header = read_header(path)
    backbone = backbones.load(header.settings.backbone, weights)
    return load_into(detectors.create(backbone, header.settings), path)


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
    digest = backbones.digest(detector.backbone)
    if header.backbone_sha256 != digest:
        raise InputError(
            f"{path} was trained on weights of {header.settings.backbone} with SHA-256 "
            f"{header.backbone_sha256[:16]}..., and these have {digest[:16]}...; convert the "
            f"checkpoint it was trained on, or {_RETRAIN}"
        )
    state = state_file.load(path, _state(detector), _RETRAIN)
    rest = state.get("rest", nnx.State({}))
    return dataclasses.replace(detector, params=state["params"], rest=rest)


def _state(detector: Detector) -> nnx.State:
    return nnx.State({"params": detector.params, "rest": detector.rest})


def _trained_with(settings: Settings) -> dict[str, Any]:
    """What the parameters depend on."""
    fields = {"method": settings.method} | dataclasses.asdict(settings)
    return {name: value for name, value in fields.items() if name not in OF_THE_EVALUATION}


def _settings(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """The settings in a header; every one must be there, and of its type.

    Raises:
        ValueError, TypeError, LookupError, TypeCheckError, InputError: they are not.
    """
    hints = typing.get_type_hints(kind)
    values = values | {"layers": tuple(values["layers"])}  # JSON has lists alone
    names = {field.name for field in dataclasses.fields(kind)}
    if values.keys() != names:
        raise ValueError(f"settings too many or too few: {sorted(values.keys() ^ names)}")
    for name, value in values.items():
        check_type(value, hints[name])
    return kind(**values)
