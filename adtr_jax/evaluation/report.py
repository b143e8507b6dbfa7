"""The results of an evaluation, as files and as tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adtr_jax.evaluation.metrics import METRICS
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.plain_name import drawable
from adtr_jax.files.spreadsheet import csv_line, path_cell, text_cell

# The two lines of a metric's heading, in the order of the columns.
HEADINGS = {
    "image_auroc": ("image", "AUROC"),
    "pixel_auroc": ("pixel", "AUROC"),
    "aupro": ("pixel", "AUPRO"),
    "image_ap": ("image", "AP"),
    "pixel_ap": ("pixel", "AP"),
    "image_f1_max": ("image", "F1-max"),
    # The share of the good images that F1-max's threshold rejects.
    "image_f1_max_fpr": ("its", "FPR"),
    "pixel_f1_max": ("pixel", "F1-max"),
}

_Row = tuple[str, Mapping[str, float] | str]
_Column = tuple[tuple[str, str], Sequence[float | None]]


@dataclass(frozen=True)
class ScoreRow:
    """The result of one test image.

    Attributes:
        path: the image's path in the data set or the category, with forward slashes.
        defect: the defect type, which is the name of the image's folder ("good" if there is none).
        label: 0 normal, 1 anomalous.
        score: the image score, higher is more anomalous.
    """

    path: str
    defect: str
    label: int
    score: float


@dataclass(frozen=True)
class PaperRow:
    """One method's row of a table in a paper.

    Attributes:
        metric: one of `METRICS`.
        categories: all categories that `mean` is over.
        values: category -> value in [0, 1], for the categories that are known.
        mean: the mean as printed, in [0, 1]; None for the variants of an ablation, which have none.
        group_means: likewise of each group of the categories that the paper gives one of.
    """

    method: str
    metric: str
    categories: tuple[str, ...]
    values: Mapping[str, float]
    mean: float | None
    group_means: Mapping[str, float] = field(default_factory=dict)


def write(directory: Path, metrics: Mapping[str, float], rows: Sequence[ScoreRow]) -> None:
    """Writes `metrics.json` and `scores.csv` atomically to a directory, created if necessary.

    `metrics.json` holds the metrics in [0, 1] by name, in the order of `METRICS`. `scores.csv` has
    the columns path, defect, label and score in the order of `rows`; a score read back is exactly
    the float that was written.

    Raises:
        ValueError: an unknown metric, or one that is not finite.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"no such metric: {', '.join(unknown)}")
    ordered = {name: metrics[name] for name in METRICS if name in metrics}
    text = json.dumps(ordered, indent=2, allow_nan=False) + "\n"
    write_atomically(directory / "metrics.json", text)
    lines = [csv_line(["path", "defect", "label", "score"])]
    for row in rows:
        path, defect = path_cell(row.path), text_cell(row.defect)
        lines.append(csv_line([path, defect, int(row.label), float(row.score)]))
    write_atomically(directory / "scores.csv", b"".join(lines))


Results = Mapping[str, Mapping[str, float] | str]  # category -> metrics, or why it failed
Groups = Mapping[str, Sequence[str]]  # a group's name -> its categories


def table(
    results: Results, *papers: PaperRow, what: str = "category", groups: Groups | None = None
) -> str:
    """Returns the results as aligned text, in per cent with one decimal as in the papers.

    Args:
        papers: rows of a paper. Their values stand beside those of the same category; a mean stands
            beside a mean over the same categories, else in a line below the table.
        what: what the names are; only several of "category" have a mean.
        groups: those of a data set whose categories have means of their own, as `by_group` says.

    Returns:
        Lines without a newline at the end: two lines of heading, one per category, and if there are
        several the mean of those that did not fail. A metric that a category lacks has no mean.
    """
    done = _done(results)
    parts: dict[str, Results] = {}  # what each mean is over
    if what == "category" and len(results) > 1 and done:
        parts = by_group(results, groups or {}) | {"": results}
    rows: list[_Row] = list(results.items())
    for group, part in parts.items():
        rows.append((f"mean of {len(_done(part))} {group}".rstrip(), mean(part)))
    columns: list[_Column] = []
    for metric, heading in HEADINGS.items():
        values = [None if isinstance(row, str) else row.get(metric) for _, row in rows]
        columns.append((heading, values))
        for paper in papers:
            if paper.metric == metric:
                beside = [paper.values.get(name) for name in results]
                for group, part in parts.items():
                    printed = paper.group_means.get(group) if group else paper.mean
                    whole = (groups or {}).get(group, paper.categories)
                    beside.append(printed if set(_done(part)) == set(whole) else None)
                columns.append((("paper's", paper.method), beside))
    known = [column for column in columns if any(value is not None for value in column[1])]
    return _align(rows, known, what) + "".join(_paper_note(done, paper) for paper in papers)


def by_group(results: Results, groups: Groups) -> dict[str, Results]:
    """Returns the results of each group, where several have some that did not fail.

    There are none where a category is in no group: the data are others. And none where all are in
    one: its mean is the mean of all.
    """
    members = {name for group in groups.values() for name in group}
    parts: dict[str, Results] = {
        group: {name: values for name, values in results.items() if name in own}
        for group, own in groups.items()
    }
    parts = {group: part for group, part in parts.items() if _done(part)}
    return parts if set(results) <= members and len(parts) > 1 else {}


def mean(results: Results) -> dict[str, float]:
    """Returns the mean of each metric that no successful category lacks: others would mislead."""
    done = [values for values in results.values() if not isinstance(values, str)]
    common = [name for name in METRICS if all(name in values for values in done)]
    return {name: sum(values[name] for values in done) / len(done) for name in common if done}


def _done(results: Results) -> list[str]:
    """The categories that did not fail."""
    return [name for name, values in results.items() if not isinstance(values, str)]


def _paper_note(done: Sequence[str], paper: PaperRow) -> str:
    """Returns the paper's mean as a line, if its categories overlap with ours but differ."""
    if paper.mean is None or set(done) == set(paper.categories):
        return ""
    if not set(done) & set(paper.categories):
        return ""
    return (
        f"\n{paper.method} in the paper: {' '.join(HEADINGS[paper.metric])} "
        f"{_per_cent(paper.mean)}, the mean of {len(paper.categories)} categories"
    )


def _align(rows: Sequence[_Row], columns: Sequence[_Column], what: str) -> str:
    """Aligns names left and numbers right; the reason of a failure replaces its numbers."""
    names = ["", what, *(_one_line(name) for name, _ in rows)]
    width = max(len(name) for name in names)
    lines = [name.ljust(width) for name in names]
    for heading, figures in columns:
        cells = [*heading, *(_per_cent(figure) for figure in figures)]
        wide = max(len(cell) for cell in cells)
        lines = [f"{line}  {cell:>{wide}}" for line, cell in zip(lines, cells, strict=True)]
    for i, (_, values) in enumerate(rows, start=2):
        if isinstance(values, str):
            lines[i] = f"{names[i]:<{width}}  failed: {_one_line(values)}"
    return "\n".join(line.rstrip() for line in lines)


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _one_line(text: str) -> str:
    return drawable(" ".join(text.split()))
