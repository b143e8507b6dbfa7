"""What a file with a trained detector says about itself: a JSON object. Imports no JAX."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typeguard import TypeCheckError, check_type

from adtr_jax import backbones
from adtr_jax.config import Settings
from adtr_jax.detectors.methods import METHODS
from adtr_jax.errors import InputError, one_line
from adtr_jax.files.digest import BLANK
from adtr_jax.version import __version__

FORMAT = 2  # of the header and of the tensors' names; the first one had no digest of the file
KEY = "adtr_jax"  # of the header among a file's metadata


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a model file says about itself.

    Attributes:
        format: of the file; a newer one cannot be read.
        version: of adtr_jax, that wrote it.
        settings: method, and how the model was trained and scores.
        backbone_sha256: of the weights of the backbone that the settings name.
        licence: of these weights, SPDX; "" where it is not known.
        complete: whether the file holds the backbone's weights, as far as they are needed.
        calibrated: how many normal images it is calibrated on; 0: it is not.
        extra: what is kept beside the detector, as JSON values.
        sha256: of all tensors.
        file_sha256: of the file (`files.digest`), where it has been written; "": it holds none.
    """

    format: int = FORMAT
    version: str = __version__
    settings: Settings
    backbone_sha256: str
    licence: str = ""
    complete: bool = False
    calibrated: int = 0
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    sha256: str = ""
    file_sha256: str = BLANK

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
        if fields["format"] == 1:
            fields.setdefault("file_sha256", "")
        method, name = fields.pop("method"), fields["settings"]["backbone"]
        if method not in METHODS:
            raise InputError(
                f"was trained with the method {method}, which no installed package adds: install "
                "the one that does"
            )
        if not backbones.is_known(name):
            raise InputError(
                f"was trained on the backbone {name}, which no installed package adds: install the "
                "one that does"
            )
        fields |= {"settings": _of_json(METHODS[method].settings, fields["settings"])}
        return _checked(cls, fields)


def header_in(metadata: Mapping[str, str], path: Path, remedy: str) -> Header:
    """Reads the header in a file's metadata.

    Args:
        metadata: all of it.
        path: the file, for the messages.
        remedy: what to do about a bad file; ends the messages.

    Raises:
        InputError: there is no header, it is damaged, or that of a newer version.
    """
    text = metadata.get(KEY)
    if text is None:
        raise InputError(
            f"{path} does not say what it is: it is no model of adtr_jax, or of a version before "
            f"0.2; {remedy}"
        )
    try:
        return Header.of_json(text)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, TypeCheckError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"{path} has a damaged header ({reason}); {remedy}") from None


def _of_json(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """The settings in a header.

    One that the file's version did not have yet has its default, which changes nothing.
    """
    fields = dataclasses.fields(kind)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return _checked(kind, defaults | values | {"layers": tuple(values["layers"])})  # a JSON list


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass of which every field is there, and of its type.

    Raises:
        ValueError, TypeError, TypeCheckError, InputError: they are not.
    """
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if values.keys() != names:
        raise ValueError(f"fields too many or too few: {sorted(values.keys() ^ names)}")
    for name, value in values.items():
        check_type(value, hints[name])
    return kind(**values)
