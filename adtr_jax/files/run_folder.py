"""The folder of one run: which run owns it, and what in it may be deleted."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adtr_jax.errors import InputError
from adtr_jax.files.atomic import write_atomically

MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
CLAIM = "settings.json"
LOG = "log.jsonl"
TIMINGS = "timings.json"
CURVES = "curves.png"
# All that a run writes, in the order of deletion: what a later run could mistake for its own first,
# the claim last. Nothing else in the folder is touched.
PARTS = (
    *(MODEL, CHECKPOINTS, LOG, CURVES, "tensorboard", "metrics.json", "scores.csv"),
    *(TIMINGS, "overview.png", "sheet.png", "histogram.png", "tsne.png", "layers.png", "pictures"),
    *("report.html", "model_card.json", "images.jsonl", "previews", "predictions", CLAIM),
)


def claim(directory: Path, run: Mapping[str, Any], *, retrain: bool) -> None:
    """Claims the directory for this run, or checks that it already belongs to it.

    Args:
        run: what a resumed run must agree on, as JSON values.
        retrain: first delete what an earlier run left there.

    Raises:
        InputError: the directory holds a different run, or parts of an unknown one.
    """
    if retrain:
        for part in PARTS:
            _delete(directory / part)
    file = directory / CLAIM
    remedy = "choose another folder with --out=DIR, or replace it with --retrain"
    if file.exists():
        held = _read(file)
        changed = sorted(key for key in run if held.get(key) != run[key])
        if changed:
            what = ", ".join(_difference(key, held.get(key), run[key]) for key in changed)
            raise InputError(
                f"{directory}: holds a run of other settings or images ({what}); {remedy}"
            )
    elif any((directory / part).exists() for part in PARTS):
        raise InputError(f"{directory}: holds parts of a run without its {CLAIM}; {remedy}")
    content = json.dumps(run, indent=2) + "\n"
    # A file that changes says that a new run has begun.
    if not file.exists() or file.read_text("utf-8", errors="replace") != content:
        write_atomically(file, content)


def read_timings(directory: Path) -> dict[str, float]:
    """Reads the seconds of each stage of a run, as far as they are sound; nobody needs them."""
    try:
        values = json.loads((directory / TIMINGS).read_bytes())
        return {stage: float(seconds) for stage, seconds in values.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def write_timings(directory: Path, seconds: Mapping[str, float]) -> None:
    """Writes them, if it can."""
    with contextlib.suppress(OSError):
        write_atomically(directory / TIMINGS, json.dumps(dict(seconds), indent=2) + "\n")


def timings_line(seconds: Mapping[str, float]) -> str:
    """Says them: `training 12 s, scoring 3 s`."""
    return ", ".join(f"{stage} {spent:.0f} s" for stage, spent in seconds.items())


def _difference(key: str, was: Any, now: Any) -> str:
    """In words, for a value or for a mapping of files to digests."""
    if not (isinstance(was, Mapping) and isinstance(now, Mapping)):
        was, now = ("another form" if isinstance(x, Mapping) else x for x in (was, now))
        return f"{key} was {was}, is now {now}"
    changes = {
        "added": sorted(now.keys() - was.keys()),
        "removed": sorted(was.keys() - now.keys()),
        "altered": sorted(name for name in was.keys() & now.keys() if was[name] != now[name]),
    }
    said = "; ".join(
        f"{names[0]} {change}" + (f" and {len(names) - 1} more" if names[1:] else "")
        for change, names in changes.items()
        if names
    )
    return f"{key} changed ({len(was)} -> {len(now)}: {said})"


def _read(file: Path) -> Mapping[str, Any]:
    try:
        held = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
