"""The methods by name: their settings, presets and detectors.

Other packages add methods by entry points of the group `adtr_jax.methods`: a name, and a `Method`.
Importing this module imports no JAX, so that a command line can name them all at once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adtr_jax.config import (
    ADTR_PRESETS,
    GTRANS_PRESETS,
    AdtrSettings,
    GtransSettings,
    Preset,
    Settings,
)
from adtr_jax.errors import InputError, one_line, unknown

if TYPE_CHECKING:
    import importlib.metadata

    from adtr_jax.detectors.detector import Detector

GROUP = "adtr_jax.methods"  # of other packages' entry points


@dataclass(frozen=True)
class Method:
    """What a command needs to know of a method.

    Attributes:
        title: heads its tables.
        settings: its dataclass, whose `method` is the name.
        presets: its settings by preset, all of them.
        detector: imports the class of its detectors.
    """

    title: str
    settings: type[Settings]
    presets: Mapping[Preset, Settings]
    detector: Callable[[], "type[Detector]"]


def _adtr() -> "type[Detector]":
    from adtr_jax.detectors.adtr import AdtrDetector

    return AdtrDetector


def _gtrans() -> "type[Detector]":
    from adtr_jax.detectors.gtrans import GtransDetector

    return GtransDetector


_OURS = {
    "adtr": Method("ADTR", AdtrSettings, ADTR_PRESETS, _adtr),
    "gtrans": Method("GTrans", GtransSettings, GTRANS_PRESETS, _gtrans),
}


class _Methods(Mapping[str, Method]):
    """This package's methods, and those of others, which are imported when they are asked for."""

    def __getitem__(self, name: str) -> Method:
        """Returns a method; raises InputError if there is none of that name, or it is broken."""
        if name in _OURS:
            return _OURS[name]
        if name not in _added().names:
            raise unknown("no method", name, self)
        entry = _added()[name]
        try:
            method = entry.load()
        except Exception as error:  # another package's code
            raise InputError(
                f"the method {name} cannot be had from {entry.value} ({one_line(error)}): ask the "
                "package that adds it"
            ) from error
        if not isinstance(method, Method) or getattr(method.settings, "method", None) != name:
            raise InputError(
                f"the method {name}: {entry.value} is no adtr_jax.detectors.methods.Method of that "
                "name: ask the package that adds it"
            )
        return method

    def __contains__(self, name: object) -> bool:
        return name in _OURS or name in _added().names

    def __iter__(self) -> Iterator[str]:
        yield from _OURS
        yield from sorted(_added().names)

    def __len__(self) -> int:
        return len(_OURS) + len(_added().names)


METHODS: Mapping[str, Method] = _Methods()


class _Presets(Mapping[str, Mapping[Preset, Settings]]):
    """The settings of all methods by name and preset."""

    def __getitem__(self, name: str) -> Mapping[Preset, Settings]:
        return METHODS[name].presets

    def __iter__(self) -> Iterator[str]:
        return iter(METHODS)

    def __len__(self) -> int:
        return len(METHODS)


Presets = Mapping[str, Mapping[Preset, Settings]]
PRESETS: Presets = _Presets()


def _added() -> "importlib.metadata.EntryPoints":
    from importlib import metadata  # takes 30 ms, and ours are known without it

    return metadata.entry_points(group=GROUP)
