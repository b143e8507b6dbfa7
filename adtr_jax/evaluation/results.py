"""The rows of predictions, on disc as soon as they are known.

    DIR/predictions.jsonl   one JSON object an image, with size and regions: what has been done
    DIR/predictions.csv     the same for spreadsheets, with the number of regions
    DIR/overlays/*.png      one picture an image
    DIR/previews/*          the same, small and in two layers (`preview`), for the report
    DIR/settings.json       whose folder this is

A row is handed to the operating system before `Results.add` returns, so that it survives the death
of the process, by SIGKILL too. It does not survive a power cut at once: waiting for the disc would
cost more than predicting most images, and a lost row is only predicted again. When the folder is
opened, whatever is no complete row is dropped, and the CSV file is made anew from the JSON lines.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, BinaryIO, Protocol, runtime_checkable

from PIL import Image

from adtr_jax.evaluation.preview import Preview
from adtr_jax.files import results_folder
from adtr_jax.files.atomic import remove_parts, write_unsynced
from adtr_jax.files.plain_name import plain_name
from adtr_jax.files.results_folder import CSV, JSONL, OVERLAYS, PREVIEWS
from adtr_jax.files.spreadsheet import csv_line, path_cell, text_cell

_NUMBERS = ("score", "p_value", "raw_score", "threshold")
COLUMNS = ("path", "anomalous", *_NUMBERS, "regions", "error", "product")
RECORD = (*COLUMNS, "size")  # of predictions.jsonl
_HEADER = ",".join(COLUMNS).encode() + b"\n"


@runtime_checkable
class RegionLike(Protocol):
    """An anomalous region of an image."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels of the original image; the last two excluded."""
        ...

    @property
    def area(self) -> int:
        """Pixels of the original image."""
        ...

    @property
    def peak(self) -> float:
        """The highest score in it."""
        ...


@dataclass(frozen=True)
class PredictionRow:
    """What was found about one image; all but path and error is None or empty if there is an error.

    Attributes:
        path: The file, as it was named.
        anomalous: The verdict.
        score: 0 to 1; the threshold is at 0.5.
        p_value: The share of normal images that score as high, in (0, 1].
        raw_score: What the detector gives; higher is more anomalous.
        threshold: The raw score from which on an image is anomalous.
        regions: The anomalous regions; none is a valid answer.
        error: Why the image cannot be read.
        size: The image's width and height in pixels, which the regions' boxes refer to.
        product: Which one the image shows, of several that the model knows; "" of one.
    """

    path: str
    anomalous: bool | None
    score: float | None
    p_value: float | None
    raw_score: float | None
    threshold: float | None
    regions: Sequence[RegionLike]
    error: str | None
    size: tuple[int, int] | None = None
    product: str = ""


class Results:
    """The folder that predictions are written to; to be used with `with`.

    The same run goes on where it was: rows that are complete stay, those with an error are dropped,
    for these images are tried again.

    Attributes:
        done: The paths of all rows without an error: these need not be predicted again.
        anomalous: How many of these rows are anomalous, earlier ones included.
    """

    def __init__(self, directory: Path, run: Mapping[str, Any]):
        """Name the folder; entering the context opens it.

        Args:
            directory: The folder; it is made if need be.
            run: What the rows depend on, as JSON values: the model's digest, the threshold, and
                so on. Kept in `settings.json`.
        """
        self._directory, self._run = directory, run
        self.done: set[str] = set()
        self.anomalous = 0

    def __enter__(self) -> "Results":
        """Open the folder, and put its files in order.

        Raises:
            InputError: if the folder holds anything but predictions of the same run, or another
                process writes to it.
        """
        with ExitStack() as opened:
            opened.enter_context(results_folder.claimed(self._directory, self._run))
            for folder in (OVERLAYS, PREVIEWS):
                (self._directory / folder).mkdir(exist_ok=True)
                remove_parts(self._directory / folder)
            self._put_in_order()
            # Room for a row in one piece, flushed row by row.
            self._jsonl, self._csv = (
                opened.enter_context((self._directory / name).open("ab", buffering=1 << 20))
                for name in (JSONL, CSV)
            )
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._opened:
            for file in (self._jsonl, self._csv):
                _sync(file)

    def add(
        self,
        row: PredictionRow,
        overlay: Image.Image | None = None,
        preview: Preview | None = None,
    ) -> None:
        """Append a row to both files; when this returns, it survives the death of the process.

        Args:
            row: What was found about one image.
            overlay: Its picture, which is written before the row by `save_overlay`; None if there
                is none, or it is there already.
            preview: The same, small and in layers, which is written before the row, too.

        Raises:
            ValueError: if a number is not finite.
        """
        record = _record(row)
        line, cells = _json_line(record), _csv_line(record)
        if overlay is not None:
            self.save_overlay(row.path, overlay)
        if preview is not None:
            preview.save(self._directory / PREVIEWS / picture_name(row.path))
        # Ctrl-C while a file is flushed leaves the rest in its buffer, to be written on closing.
        self._jsonl.write(line)
        self._csv.write(cells)
        self._jsonl.flush()
        self._csv.flush()
        self._count(record)

    def save_overlay(self, path: str, overlay: Image.Image) -> None:
        """Write the picture of an image to `overlay_path`; several threads may do so at once."""
        data = io.BytesIO()
        overlay.save(data, "PNG", compress_level=1)  # encoding takes longest, and 1 is fastest
        write_unsynced(self.overlay_path(path), data.getvalue())

    def overlay_path(self, path: str) -> Path:
        """Where the picture of an image lies."""
        return self._directory / OVERLAYS / f"{picture_name(path)}.png"

    def _put_in_order(self) -> None:
        """Drop what is no complete row and rows with an error, and make both files agree.

        Both are replaced only when they are safe on the disc, for this is all there is.
        """
        parts = [self._directory / f".{name}.part" for name in (JSONL, CSV)]
        with parts[0].open("wb") as jsonl, parts[1].open("wb") as csv:
            csv.write(_HEADER)
            for line, record in _complete(self._directory / JSONL):
                if record["error"] is None and record["path"] not in self.done:
                    jsonl.write(line)
                    csv.write(_csv_line(record))
                    self._count(record)
            for file in (jsonl, csv):
                _sync(file)
        for part, name in zip(parts, (JSONL, CSV), strict=True):
            part.replace(self._directory / name)

    def _count(self, record: Mapping[str, Any]) -> None:
        if record["error"] is None:
            self.done.add(record["path"])
            self.anomalous += bool(record["anomalous"])


def picture_name(path: str) -> str:
    """What the pictures of an image are called, without ending: its name, and a digest of its path.

    So names depend on nothing but the path, and no two pictures are called alike.
    """
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem = plain_name(PurePath(path).stem)[:40]  # with what is added, 183 bytes at most
    return f"{stem}-{digest}"


def read_records(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows of a folder of predictions with all that `RECORD` names, in the order of writing."""
    return (record for _, record in _complete(directory / JSONL))


def _record(row: PredictionRow) -> dict[str, Any]:
    """The row as JSON values in the order of `RECORD`."""
    numbers = {name: getattr(row, name) for name in _NUMBERS}
    return {
        "path": row.path,
        "anomalous": None if row.anomalous is None else bool(row.anomalous),
        **{name: None if value is None else float(value) for name, value in numbers.items()},
        "regions": [
            {"box": [int(side) for side in r.box], "area": int(r.area), "peak": float(r.peak)}
            for r in row.regions
        ],
        "error": None if row.error is None else " ".join(row.error.split()),
        "product": row.product or None,
        "size": None if row.size is None else [int(side) for side in row.size],
    }


def _json_line(record: Mapping[str, Any]) -> bytes:
    # What is not valid Unicode in a file name becomes \udc.., which is JSON's own escape for it.
    text = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", errors="backslashreplace")


def _csv_line(record: Mapping[str, Any]) -> bytes:
    path, error = path_cell(record["path"]), record["error"]
    numbers = [record[name] for name in _NUMBERS]
    if error is not None:
        return csv_line([path, record["anomalous"], *numbers, None, text_cell(error), None])
    product = text_cell(record["product"] or "")
    return csv_line([path, record["anomalous"], *numbers, len(record["regions"]), None, product])


def _complete(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of JSON that are complete rows."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:  # what a power cut leaves of a line
                continue
            if isinstance(record, dict) and tuple(record) == RECORD:
                yield line, record


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
