"""The folder of predictions: what is in it, and whose it is."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adtr_jax.errors import InputError
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.lock import locked

CSV = "predictions.csv"
JSONL = "predictions.jsonl"
OVERLAYS = "overlays"
PREVIEWS = "previews"
CARD = "model_card.json"
CLAIM = "settings.json"


@contextmanager
def claimed(directory: Path, run: Mapping[str, Any]) -> Iterator[None]:
    """Makes the folder this run's own, or checks that it already is, and keeps others out.

    Other commands cannot use it until the context is left or this process ends (`lock.locked`).

    Args:
        directory: the folder; it is made if need be.
        run: what all rows in the folder depend on, as JSON values: the model's digest, the
            threshold, and so on.

    Raises:
        InputError: the folder is a file, is in use, or holds predictions of a run that differs or
            is unknown; the message names what differs.
    """
    with locked(directory):
        _claim(directory, run)
        yield


def _claim(directory: Path, run: Mapping[str, Any]) -> None:
    remedy = "choose another folder with --out=DIR, or delete this one"
    file = directory / CLAIM
    if file.exists():
        held = _read(file)
        # As they are read back, for a tuple comes back as a list.
        now: dict[str, Any] = json.loads(json.dumps(run))
        differing = sorted(key for key in now if key not in held or held[key] != now[key])
        if differing and not (directory / JSONL).exists():
            raise InputError(
                f"{directory} holds the {CLAIM} of something else than predictions; choose another "
                "folder with --out=DIR"
            )
        if differing:
            was = ", ".join(
                f"{key} was {_shown(held.get(key))}, is now {_shown(now[key])}" for key in differing
            )
            raise InputError(f"{directory} holds predictions of another run ({was}); {remedy}")
        return
    for part in (CSV, JSONL, OVERLAYS, PREVIEWS):
        if (directory / part).exists():
            raise InputError(f"{directory} holds {part} without its {CLAIM}; {remedy}")
    write_atomically(file, json.dumps(run, indent=2) + "\n")


def _shown(value: Any) -> str:
    """The value as JSON; of a digest the beginning tells enough."""
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:16]}…"


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); delete the folder") from error
    if not isinstance(held, dict):
        raise InputError(f"{file} holds no settings; delete the folder, or choose another")
    return held
