"""The page: all tables, the paper's numbers beside ours, and all figures, in Markdown."""

import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from adtr_jax.data import cifar
from adtr_jax.data.mvtec_ad_archive import CATEGORIES, GROUPS
from adtr_jax.evaluation import report
from adtr_jax.evaluation.report import PaperRow, Results
from adtr_jax.files.atomic import write_atomically
from adtr_jax.version import __version__
from experiments import identical_mapping
from experiments.papers import adtr as adtr_paper
from experiments.papers import gtrans as gtrans_paper
from experiments.reproduction.plan import ANOMALIES, Paper, Part
from experiments.reproduction.runner import log_of, seconds_of

NAME = "README.md"
_TITLES: Mapping[Paper, str] = {
    "adtr": "ADTR: Anomaly Detection Transformer with Feature Reconstruction",
    "gtrans": "Multiresolution Feature Guidance Based Transformer for Anomaly Detection",
}
_GTRANS = {"resnet-34": "GTrans-R34", "wide-resnet-50-2": "GTrans-WR50"}


@dataclass(frozen=True)
class Shown:
    """What a page is of.

    Attributes:
        handed_on: the options that every experiment was handed.
        devices: what it ran on, in words.
        out: the folder of the results; the page is in it, and its links start there.
    """

    paper: Paper
    seeds: int
    handed_on: Sequence[str]
    devices: str
    out: Path


class Column(NamedTuple):
    """A column of ours and, before it, the paper's.

    Attributes:
        method: as the paper names it.
        metric: one of `METRICS`.
        ours: of every seed the rows that are there.
        paper: the paper's rows of all metrics.
    """

    method: str
    metric: str
    ours: Sequence[Results]
    paper: Sequence[PaperRow]

    @property
    def printed(self) -> PaperRow | None:
        return next((row for row in self.paper if row.metric == self.metric), None)


def write(shown: Shown, parts: Sequence[Part]) -> None:
    """Writes the page, of what there is so far."""
    write_atomically(shown.out / NAME, "\n\n".join(_sections(shown, parts)) + "\n")


def table(
    first: str, names: Sequence[str], columns: Sequence[Column], means: Mapping[str, Sequence[str]]
) -> str:
    """Returns a table in per cent, over several seeds the mean and the standard deviation.

    Args:
        first: what the names are.
        names: of the rows.
        means: the last rows, and which names each is over; there is none where one of those is
            missing, nor the paper's where its own is over others.
    """
    heads = [first]
    for column in columns:
        what = " ".join(report.HEADINGS[column.metric])
        heads += [f"{what}, {column.method}, paper", f"{what}, {column.method}, ours"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in (*names, *means):
        cells = [name.replace("|", r"\|")]
        for column in columns:
            cells += [_printed(column.printed, name, means), _measured(column, name, means)]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _printed(paper: PaperRow | None, name: str, means: Mapping[str, Sequence[str]]) -> str:
    if paper is None:
        return "-"
    if name not in means:
        value = paper.values.get(name)
    elif set(means[name]) == set(paper.categories):
        value = paper.mean
    else:
        groups = [group for group, own in GROUPS.items() if set(own) == set(means[name])]
        value = paper.group_means.get(groups[0]) if groups else None
    return "-" if value is None else f"{100 * value:.1f}"


def _measured(column: Column, name: str, means: Mapping[str, Sequence[str]]) -> str:
    over = means.get(name, (name,))
    complete = [{n: seed[n] for n in over} for seed in column.ours if all(n in seed for n in over)]
    of_seeds = [report.mean(results).get(column.metric) for results in complete]
    values = [100 * value for value in of_seeds if value is not None]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _sections(shown: Shown, parts: Sequence[Part]) -> Iterator[str]:
    seeds = "seed 0" if shown.seeds == 1 else f"seeds 0 to {shown.seeds - 1}"
    options = " ".join(shown.handed_on)
    settings = f"with `{options}`" if options else "with the paper's settings"
    yield f"# {_TITLES[shown.paper]}"
    yield (
        f"Trained and measured by adtr_jax {__version__} on {shown.devices}, {seeds}, {settings}. "
        "In per cent; ± is the standard deviation over the seeds. A dash: missing here, or not "
        "printed or not legible in the paper. Figures are of seed 0."
    )
    missing = list(_missing(shown, parts))
    if missing:
        yield "## Missing"
        yield "\n".join(missing)
    for shows, group in itertools.groupby(parts, key=lambda part: part.shows):
        together = list(group)
        yield f"## {shows}: {', '.join(part.name for part in together)}"
        yield from _sections_of(shown, together)


def _missing(shown: Shown, parts: Sequence[Part]) -> Iterator[str]:
    """Yields how many jobs each part lacks, and the output of those that failed or run."""
    for part in parts:
        jobs = part.jobs(shown.seeds)
        missing = [job for job in jobs if seconds_of(job, shown.out) is None]
        if missing:
            yield f"- {part.name}: {len(missing)} of {len(jobs)} jobs"
        logs = {job.key: log_of(job, shown.out) for job in missing}
        for key, log in logs.items():
            if log.exists():
                yield f"  - [{key}]({_link(log, shown.out)})"


def _sections_of(shown: Shown, parts: Sequence[Part]) -> Iterator[str]:
    """Yields the tables and figures of the parts that share them."""
    part = parts[0]
    if part.module == "mvtec":
        yield from _adtr_mvtec(shown, part) if shown.paper == "adtr" else _gtrans(shown, parts)
    elif part.module == "cifar10":
        methods = _adtr_methods(shown, part, adtr_paper.CIFAR10)
        columns = [Column(method, "image_auroc", *rows) for method, rows in methods.items()]
        yield table("class", cifar.CLASSES, columns, {"mean": cifar.CLASSES})
        yield from _figures(shown, part, "sheet.png")
    elif part.module == "ablation":
        yield from _ablation(shown, part)
    else:
        yield from _one_layer(shown, part)


def _adtr_mvtec(shown: Shown, part: Part) -> Iterator[str]:
    methods = _adtr_methods(shown, part, adtr_paper.MVTEC_AD)
    for title, metric in {"Table 1": "pixel_auroc", "Table 2": "image_auroc"}.items():
        yield f"### {title}"
        yield _mvtec_table(part, [Column(name, metric, *rows) for name, rows in methods.items()])
    yield "### Fig. 5"
    of_all = part.folder(shown.out, 0) / "tsne.png"
    yield from _figure(shown, of_all, "all categories")
    yield from _figures(shown, part, "tsne.png")
    yield "### Figs. A1 to A15"
    yield from _figures(shown, part, "sheet.png")


def _gtrans(shown: Shown, parts: Sequence[Part]) -> Iterator[str]:
    methods = {_GTRANS[part.name]: _metrics(shown, part) for part in parts}
    for title, metrics in {
        "Table 1": ("image_auroc",),
        "Table 2": ("pixel_auroc", "aupro"),
    }.items():
        yield f"### {title}"
        columns = [
            Column(name, metric, ours, gtrans_paper.MVTEC_AD[name])
            for name, ours in methods.items()
            for metric in metrics
        ]
        yield _mvtec_table(parts[0], columns)
    for part in parts:
        yield f"### Fig. 4, {part.name}"
        yield from _figures(shown, part, "layers.png")


def _mvtec_table(part: Part, columns: Sequence[Column]) -> str:
    names = _ordered(part.names)
    means = {f"mean of the {group}": own for group, own in _groups(names).items()}
    return table("category", names, columns, means | ({"mean": names} if len(names) > 1 else {}))


def _adtr_methods(
    shown: Shown, part: Part, paper: Mapping[str, Sequence[PaperRow]]
) -> dict[str, tuple[Sequence[Results], Sequence[PaperRow]]]:
    """Returns ADTR's and ADTR+'s results of every seed, and the paper's rows."""
    last = part.runs[-1][-1].partition("=")[2]
    # A file's or folder's name, as `experiments.cifar10` has it.
    known = last if last == ANOMALIES else Path(last).resolve().name.partition(".")[0]
    return {
        method: (_metrics(shown, part, suffix), paper[method])
        for method, suffix in (("ADTR", ""), ("ADTR+", f"+{known}"))
    }


def _metrics(shown: Shown, part: Part, suffix: str = "") -> list[Results]:
    """Returns the metrics of the categories that have some, of every seed."""
    results: list[Results] = []
    for seed in part.seeds(shown.seeds):
        folder = part.folder(shown.out, seed)
        files = {name: folder / f"{name}{suffix}" / "metrics.json" for name in part.names}
        read = {name: _json(file) for name, file in files.items()}
        results.append({name: metrics for name, metrics in read.items() if metrics})
    return results


def _ablation(shown: Shown, part: Part) -> Iterator[str]:
    if shown.paper == "adtr":
        yield _ablation_table(shown, part, part.names, adtr_paper.ABLATIONS[part.name])
        return
    yield _ablation_table(shown, part, part.names, gtrans_paper.ABLATIONS[part.name])
    for group, names in _groups(part.names).items():
        yield f"The {group} alone:"
        of_group = gtrans_paper.GROUP_ABLATIONS[group][part.name]
        yield _ablation_table(shown, part, names, of_group)


def _ablation_table(
    shown: Shown, part: Part, names: Sequence[str], paper: Sequence[PaperRow]
) -> str:
    """Returns a study's table, of the means over some categories.

    The paper's are over all of MVTec-AD's, or all of a group: they stand beside ours if these are.
    """
    variants = paper[0].categories
    ours: list[Results] = []
    for seed in part.seeds(shown.seeds):
        folder = part.folder(shown.out, seed)
        read = {name: _json(folder / name / part.name / "results.json") for name in names}
        of_seed: dict[str, Mapping[str, float] | str] = {}
        for variant in variants:
            measured = {name: read[name].get(variant, {}).get(name) for name in names}
            if all(isinstance(values, Mapping) for values in measured.values()):
                of_seed[variant] = report.mean(measured)
        ours.append(of_seed)
    whole = set(names) in (set(CATEGORIES), *map(set, GROUPS.values()))
    columns = [Column(row.method, row.metric, ours, paper if whole else ()) for row in paper]
    return table(part.name, variants, columns, {})


def _one_layer(shown: Shown, part: Part) -> Iterator[str]:
    (name,) = part.names
    folder = part.folder(shown.out, 0) / name
    values = _json(folder / "identical_mapping.json")
    if values:
        yield f"```\n{identical_mapping.table(values)}\n```"
    yield from _figure(shown, folder / "identical_mapping.png", name)


def _groups(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns which names are of each of MVTec-AD's groups: of both, or there are none."""
    groups = {g: tuple(name for name in own if name in names) for g, own in GROUPS.items()}
    known = set(names) == {name for own in groups.values() for name in own}
    return groups if known and all(groups.values()) else {}


def _ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names in the order of the papers' tables, others last."""
    order = [name for own in GROUPS.values() for name in own if name in names]
    return (*order, *(name for name in names if name not in order))


def _figures(shown: Shown, part: Part, file: str) -> Iterator[str]:
    for name in _ordered(part.names):
        yield from _figure(shown, part.folder(shown.out, 0) / name / file, name)


def _figure(shown: Shown, file: Path, caption: str) -> Iterator[str]:
    if file.exists():
        yield f"{caption}:\n\n![{caption}]({_link(file, shown.out)})"


def _link(file: Path, out: Path) -> str:
    return quote(file.relative_to(out).as_posix())


def _json(file: Path) -> dict:
    """Returns what a file holds; nothing, where it is not there or damaged."""
    try:
        held = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}
