"""Reads what the report shows from a folder of predictions, an evaluation, or a run."""

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from adtr_jax.calibration.regions import Region
from adtr_jax.data.samples import GOOD
from adtr_jax.errors import InputError, one_line
from adtr_jax.evaluation.preview import layers
from adtr_jax.evaluation.report import ScoreRow
from adtr_jax.evaluation.results import picture_name, read_records
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.results_folder import JSONL, OVERLAYS, PREVIEWS
from adtr_jax.files.run_folder import read_timings
from adtr_jax.html_report.card import ModelCard

SCORES = "scores.csv"
IMAGES = "images.jsonl"
PICTURES = "pictures"
METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class Item:
    """What is known of one image.

    Attributes:
        path: as it was named.
        score: the one that the card names.
        defect: its kind, `good` of a good image; None: it is not known whether it is good.
        size: width and height in pixels; None: not known.
        regions: each with `box` (left, top, right, bottom in pixels), `area` and `peak`.
        picture: the file of its picture; None: there is none.
        colours: the file of the score map's colours; None: the picture holds them already.
        product: which one it shows, of several; "": of one.
    """

    path: str
    score: float
    defect: str | None
    size: Sequence[int] | None
    regions: Sequence[dict[str, Any]]
    picture: Path | None
    colours: Path | None
    product: str = ""

    @property
    def label(self) -> int | None:
        """0 for a good image, 1 for a defective one, None where it is not known."""
        return None if self.defect is None else int(self.defect != GOOD)


@dataclass(frozen=True)
class FolderResults:
    """All that a folder of results holds.

    Attributes:
        title: the folder's name.
        card: what is known of the model.
        items: the images, in the order of the files.
        errors: path and reason of those that could not be read.
        metrics: by name, in [0, 1].
        times: what took how long, or when it was, in words.
    """

    title: str
    card: ModelCard
    items: Sequence[Item]
    errors: Sequence[tuple[str, str]] = ()
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    times: dict[str, str] = dataclasses.field(default_factory=dict)


def read(folder: Path) -> FolderResults:
    """Reads a folder that predict, evaluate or an experiment wrote.

    Raises:
        InputError: it is none of these, is damaged, or holds no scores.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: give the folder of predictions, or of a run")
    if (folder / JSONL).exists():
        found = _predictions(folder)
    elif (folder / SCORES).exists():
        found = _evaluation(folder)
    elif (folder / "predictions" / JSONL).exists():  # a run without anything to measure
        found = _predictions(folder / "predictions")
    else:
        raise InputError(
            f"{folder} holds neither {JSONL} nor {SCORES}: give the folder that adtr-jax predict, "
            "adtr-jax evaluate or an experiment has written"
        )
    if not found.items:
        raise InputError(f"{folder} holds no scores: there is nothing to report")
    return dataclasses.replace(found, title=folder.resolve().name)


def write_images(
    directory: Path,
    rows: Sequence[ScoreRow],
    sizes: Mapping[int, tuple[int, int]],
    regions: Mapping[int, Sequence[Region]],
    names: Sequence[str],
) -> None:
    """Writes what `scores.csv` does not say of the same rows: path, size, regions, picture.

    Args:
        sizes, regions: of the rows' images, as far as they are known, by the rows' places.
        names: of the pictures, without endings.
    """
    records = (
        {
            "path": row.path,
            "size": sizes.get(i),
            "regions": [dataclasses.asdict(region) for region in regions.get(i, ())],
            "picture": names[i],
        }
        for i, row in enumerate(rows)
    )
    lines = (json.dumps(record) + "\n" for record in records)
    write_atomically(directory / IMAGES, "".join(lines))


def _predictions(folder: Path) -> FolderResults:
    items, errors = [], []
    card = ModelCard.read(folder)
    shown = "score" if card.score == "score" else "raw_score"
    for record in read_records(folder):
        if record["error"] is not None:
            errors.append((record["path"], record["error"]))
            continue
        name = picture_name(record["path"])
        pictures = _pictures(folder, name, OVERLAYS)
        size, regions = record["size"], record["regions"]
        score, product = record[shown], record["product"] or ""
        items.append(Item(record["path"], score, None, size, regions, *pictures, product))
    ended = datetime.fromtimestamp((folder / JSONL).stat().st_mtime).astimezone()
    times = {"last image scored": ended.isoformat(timespec="seconds")}
    return FolderResults(folder.name, card, items, errors, times=times)


def _evaluation(folder: Path) -> FolderResults:
    try:
        with (folder / SCORES).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        more = list(_more(folder, rows))
        items = [
            Item(
                extra["path"],
                float(row["score"]),
                row["defect"].removeprefix("'"),
                extra["size"],
                extra["regions"],
                *_pictures(folder, extra["picture"], PICTURES),
            )
            for row, extra in zip(rows, more, strict=True)
        ]
        metrics = json.loads((folder / METRICS).read_text())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = one_line(error)
        raise InputError(f"{folder} holds damaged results ({reason}): evaluate again") from None
    times = {stage: f"{value:.1f} s" for stage, value in read_timings(folder).items()}
    card = ModelCard.read(folder)
    return FolderResults(folder.name, card, items, (), metrics, times)


def _more(folder: Path, rows: Sequence[dict[str, str]]) -> Iterator[dict[str, Any]]:
    text = _text(folder / IMAGES)
    if text is not None:
        return (json.loads(line) for line in text.splitlines())
    from adtr_jax.evaluation.figures import picture_names  # takes half a second

    scores = [ScoreRow(row["path"], row["defect"], int(row["label"]), 0.0) for row in rows]
    names = [Path(name).stem for name in picture_names(scores)]
    nothing: dict[str, Any] = {"size": None, "regions": []}
    return (
        {**nothing, "path": row["path"], "picture": name}
        for row, name in zip(rows, names, strict=True)
    )


def _text(file: Path) -> str | None:
    return file.read_text("utf-8") if file.exists() else None


def _pictures(folder: Path, name: str, whole: str) -> tuple[Path | None, Path | None]:
    """The picture and its colours; or the picture that has both, of a folder without previews."""
    image, colours = layers(folder / PREVIEWS / name)
    if image.exists() and colours.exists():
        return image, colours
    file = folder / whole / f"{name}.png"
    return (file if name and file.exists() else None), None
