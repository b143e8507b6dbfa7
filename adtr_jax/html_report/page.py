"""Writes the report: one HTML file with all that it needs in it."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from adtr_jax.errors import InputError
from adtr_jax.evaluation.preview import QUALITY, SIDE, encode
from adtr_jax.files.atomic import write_atomically
from adtr_jax.html_report.results import FolderResults, Item, read
from adtr_jax.html_report.selection import LIMIT, choose, starting_threshold

NAME = "report.html"
SIZE = 60_000_000  # bytes of the file, at most
SCRIPTS = ("dom", "state", "charts", "pictures", "cards", "dialog", "main")
# What a picture is scaled down to until it fits its share of the size, side and quality.
_STEPS = ((SIDE, QUALITY), (512, 80), (400, 78), (320, 75), (320, 60), (256, 55), (192, 45))


def write(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of a folder of results, atomically.

    Args:
        folder: what predict, evaluate or an experiment wrote.
        out: the file; None: `report.html` in the folder.

    Returns:
        The file.

    Raises:
        InputError: the folder holds no results, or damaged ones.
        OSError: the file cannot be written.
    """
    results = read(folder)
    scores = np.array([item.score for item in results.items], np.float64)
    labels = [item.label for item in results.items]
    start, origin = starting_threshold(scores, labels, results.card.threshold)
    shown = choose(scores, start)
    items = [results.items[i] for i in shown]
    others = np.setdiff1d(np.arange(len(scores)), shown)
    data = _json(
        {
            **_described(results),
            "start": start,
            "origin": origin,
            "images": [_image(item) for item in items],
            "others": [[float(scores[i]), labels[i]] for i in others],
            "limit": LIMIT,
        }
    )
    part = files(__package__).joinpath
    text = {
        "style": part("style.css").read_text("utf-8"),
        "script": "\n".join(part(f"{name}.js").read_text("utf-8") for name in SCRIPTS),
        "data": data,
    }
    template = part("page.html").read_text("utf-8")
    left = SIZE - len(template.encode()) - sum(len(each.encode()) for each in text.values())
    text["pictures"] = "\n".join(_pictures(items, left // len(items)))
    out = folder / NAME if out is None else out
    write_atomically(out, Template(template).substitute(text))
    return out


def _described(results: FolderResults) -> dict[str, Any]:
    card = results.card
    facts = {
        "Model": {
            "name": card.model,
            "SHA-256": card.sha256,
            "adtr_jax": card.version,
            "licence of the backbone's weights": card.licence,
            "threshold": card.promise,
        },
        "Times": {"begun": card.written, **results.times},
        "Metrics": {name: f"{100 * value:.1f} %" for name, value in results.metrics.items()},
        "Settings": {name: _words(value) for name, value in card.settings.items()},
    }
    return {
        "title": results.title,
        "model": card.model,
        "calibration": card.calibration,
        "threshold": card.threshold,
        "score": card.score,
        "errors": results.errors,
        "facts": [
            [heading, [pair for pair in pairs.items() if pair[1] not in ("", None)]]
            for heading, pairs in facts.items()
        ],
    }


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _image(item: Item) -> dict[str, Any]:
    return {
        "path": item.path,
        "score": item.score,
        "defect": item.defect,
        "product": item.product,
        "label": item.label,
        "size": item.size,
        "boxes": [region["box"] for region in item.regions] if item.size else [],
        "picture": item.picture is not None,
        "layered": item.colours is not None,
    }


def _json(value: object) -> str:
    """JSON that no browser takes for the end of a script, whatever is in it; ASCII alone."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _pictures(items: Sequence[Item], share: int) -> Iterator[str]:
    """Each image's layers in Base64, as elements that the browser neither shows nor runs.

    Args:
        share: bytes of the page for each image, at most.
    """

    def element(job: tuple[int, Item]) -> str:
        i, item = job
        head, tail = f'<script type="text/plain" id="picture{i}">', "</script>"
        room = (share - len(head) - len(tail) - 2) // 4 * 3 - 6
        layers = [base64.b64encode(layer).decode() for layer in _layers(item, room)]
        return f"{head}{' '.join(layers)}{tail}"

    with ThreadPoolExecutor() as pool:
        yield from pool.map(element, enumerate(items))


def _layers(item: Item, room: int) -> Iterator[bytes]:
    """The picture, and the colours if they are a layer of their own, in so many bytes."""
    if item.picture is None:
        return
    colours = b"" if item.colours is None else item.colours.read_bytes()
    try:
        yield _fitted(item.picture, room - len(colours))
    except OSError:
        raise InputError(f"{item.picture} is damaged: make the results again") from None
    if colours:
        yield colours


def _fitted(file: Path, room: int) -> bytes:
    """The picture as a JPEG of at most so many bytes, scaled down where need be."""
    data = file.read_bytes()
    if file.suffix == ".jpg" and len(data) <= room:
        return data
    with Image.open(io.BytesIO(data)) as image:
        # A first guess at what fits, for decoding and encoding is what a report waits for.
        longest = SIDE * min((max(room, 1) / len(data)) ** 0.5 * 1.2, 1)
        steps = [step for step in _STEPS if step[0] <= longest] or _STEPS[-1:]
        image.draft(None, (steps[0][0],) * 2)  # decodes a large JPEG at a half or a quarter
        whole = image.convert("L" if image.mode == "L" else "RGB")
    for side, quality in steps:
        data = encode(whole, side, quality)
        if len(data) <= room:
            break
    return data
