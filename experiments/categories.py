"""The loop of the experiments: one model per category, or one for all, and one table."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from adtr_jax.backbones import PIXELS
from adtr_jax.config import Plus, Settings, at_most
from adtr_jax.detectors.methods import METHODS
from adtr_jax.errors import InputError, one_line, unknown
from experiments import good_only, unified
from experiments.options import Options

if TYPE_CHECKING:  # JAX is imported only after the command line is validated
    from adtr_jax.data.anomalies import Choice
    from adtr_jax.data.samples import Category
    from adtr_jax.detectors.adtr import AdtrDetector
    from adtr_jax.detectors.gtrans import GtransDetector
    from adtr_jax.evaluation.report import Groups, PaperRow
    from adtr_jax.run import Differences, Result, Task

ReadAnomalies = Callable[[str, "Category", Settings, Plus], "Choice"]
Results = dict[str, Mapping[str, float] | str]


class _Kept(NamedTuple):
    """What is kept of all categories: ADTR's metrics, the last model's, and Fig. 5's vectors."""

    before: Results
    results: Results
    differences: "list[Differences]"


def chosen(word: str, known: Sequence[str]) -> Sequence[str]:
    """Returns the categories that a word names: one, several with commas between, or `all`.

    Raises:
        InputError: there is no such category.
    """
    if word == "all":
        return known
    names = word.split(",")
    for name in names:
        if name not in known:
            raise unknown("no category", name, [*known, "all"])
    return list(dict.fromkeys(names))


def run_categories(
    names: Sequence[str],
    read: Callable[[str], "Category"],
    options: Options,
    paper: "Mapping[str, Sequence[PaperRow]] | None" = None,
    read_anomalies: ReadAnomalies | None = None,
    *,
    groups: "Groups | None" = None,
) -> bool:
    """Trains and evaluates one model per category, or one for all, then prints the table of all.

    With `--anomalies` ADTR+ follows, and ADTR's results on the same test images are a separate
    table.

    Args:
        read: returns a category, given its name.
        paper: the papers' rows, by method; of one model per category.
        read_anomalies: resolves `--anomalies`; `anomalies.read` by default.
        groups: of the data set's categories, as for `report.table`.

    Returns:
        Whether all succeeded.
    """
    from adtr_jax.evaluation import report

    before, results, reports = measure(names, read, options, read_anomalies)
    if not results:  # nothing to measure
        return True
    rows = {} if options.unified else paper or {}
    if before:
        table = report.table(before, *rows.get("ADTR", ()), groups=groups)
        print(f"\nADTR, on the same test images\n{table}\n")
    method = "ADTR+" if before else METHODS[options.method].title
    print(f"{method}\n{report.table(results, *rows.get(method, ()), groups=groups)}")
    for path in reports:
        print(path)
    return not any(isinstance(result, str) for result in results.values())


def measure(
    names: Sequence[str],
    read: Callable[[str], "Category"],
    options: Options,
    read_anomalies: ReadAnomalies | None = None,
    *,
    trained: Path | None = None,
) -> tuple[Results, Results, list[Path]]:
    """Trains and evaluates one model per category or one for all, as `run_categories` does.

    A category that fails is reported as its result and does not stop the others, unless it is the
    only one.

    Args:
        trained: where the models lie, if not with the results: commands whose settings differ in
            the evaluation alone share them.

    Returns:
        ADTR's metrics by category, if ADTR+ is requested; and the metrics of the last model, or why
        there is none. Categories where there is nothing to measure are in neither. And the reports
        that were written.

    Raises:
        InputError: incompatible options, unavailable weights, or what the only category or the one
            model for all raises.
    """
    from adtr_jax.devices import hosts
    from adtr_jax.devices.sharding import device_mesh
    from adtr_jax.html_report import page

    before: Results = {}
    results: Results = {}
    reports: list[Path] = []
    kept = _Kept(before, results, differences=[])
    directory: Path | None
    _check(options)
    hosts.agree("what they are to do", (names, _together(options)))
    device_mesh(options.devices)  # raises before anything is downloaded, read or trained
    with hosts.together():
        ensure_weights(options.settings.backbone, options.weights)
    one_for_all = (
        unified.trained(names, read, options, trained) if options.unified else nullcontext()
    )
    with one_for_all as one:
        for name in names:
            try:
                if one is not None:
                    directory = _noted(*one.evaluate(name, options), options, kept)
                else:
                    category, chosen = _read(name, read, options, read_anomalies)
                    directory = _run_one(category, chosen, options, kept, trained)
                if directory is not None and options.report and hosts.first():
                    reports.append(page.write(directory))
            except Exception as error:  # of any type: the other categories still run
                if hosts.lost(error):
                    raise
                if name in results:  # what is measured is measured, whatever became of a picture
                    print(f"warning: {name}: {failure(error)}", file=sys.stderr)
                    continue
                if len(names) == 1:
                    raise
                results[name] = failure(error)
                print(f"{name}: {results[name]}", file=sys.stderr)
    if len(kept.differences) > 1:
        from adtr_jax import run

        file = options.out / ("tsne_plus.png" if options.anomalies else "tsne.png")
        run.save_tsne_of_all(kept.differences, options.settings.seed, file)
        print(f"feature differences of {len(kept.differences)} categories: {file}\n")
    return before, results, reports


def _check(options: Options) -> None:
    """Raises InputError if options make no sense, or not together."""
    if options.method != "adtr" and (options.anomalies or options.tsne):
        flag = "anomalies" if options.anomalies else "tsne"
        raise InputError(f"--{flag} is of ADTR: leave it out, or --method={options.method}")
    if options.method != "gtrans" and options.layer_maps:
        raise InputError("--layer_maps is of GTrans: leave it out, or choose --method=gtrans")
    if options.memory is not None and not 0 <= options.memory < math.inf:
        raise InputError(f"--memory={options.memory} must be at least 0")
    at_most(options.pictures)
    if options.unified and options.anomalies is not None:
        raise InputError("--anomalies is of one model a category: leave it out, or --unified")


def _together(options: Options) -> tuple[object, ...]:
    """Returns what all processes must agree on; folders may differ."""
    trained = options.devices, options.retrain, options.unified, options.anomalies is None
    drawn = options.tsne, options.layer_maps, options.pictures
    return options.settings, options.plus, trained, drawn


def ensure_weights(backbone: str, folder: Path) -> None:
    """Converts missing weights into the folder; raises InputError if they are unavailable."""
    from conversion import ensure

    if backbone != PIXELS:
        ensure(backbone, folder)


def failure(error: Exception) -> str:
    """Returns the reason of a failure in one line."""
    said = one_line(error)
    kind = type(error).__name__
    return said if isinstance(error, InputError) or said == kind else f"{kind}: {said}"


def _read(
    name: str,
    read: Callable[[str], "Category"],
    options: Options,
    read_anomalies: ReadAnomalies | None,
) -> "tuple[Category, Choice | None]":
    """Reads the category, and the anomalies if requested."""
    from adtr_jax.data import anomalies
    from adtr_jax.devices import hosts

    with hosts.together():
        category, chosen = read(name), None
        if options.anomalies is not None and not category.unmeasurable:
            choose = read_anomalies or anomalies.read
            chosen = choose(options.anomalies, category, options.settings, options.plus)
            category = chosen.category
    hosts.agree("their images' names", [s.name for s in category.train + category.test])
    return category, chosen


def _run_one(
    category: "Category",
    chosen: "Choice | None",
    options: Options,
    kept: _Kept,
    trained: Path | None,
) -> Path | None:
    """Returns the folder of the results; None where there is nothing to measure."""
    from adtr_jax.devices import hosts
    from adtr_jax.files.lock import locked

    folders = [(trained or options.out) / category.name, options.out / category.name]
    if chosen is not None:
        folders.append(options.out / f"{category.name}+{chosen.name}")
    with ExitStack() as stack:
        with hosts.together():
            for folder in dict.fromkeys(folders) if hosts.first() else ():
                stack.enter_context(locked(folder))
        if category.unmeasurable:
            good_only.run(category, options)
            return None
        return _measured(category, chosen, options, folders, kept)


def _measured(
    category: "Category",
    chosen: "Choice | None",
    options: Options,
    folders: Sequence[Path],
    kept: _Kept,
) -> Path:
    """Returns the folder of the results: the last one. In the first ADTR or GTrans is trained."""
    from adtr_jax import run
    from adtr_jax.data import bit_depth

    first, directory = folders[0], folders[-1]
    task = run.Task.read(category, options.settings, options.devices)
    if task.settings.bits is not None:
        print(f"{category.name}: {bit_depth.describe(task.settings.bits)}")
    if options.tsne:
        _ = task.required_masks  # before anything is trained
    pictures = at_most(options.pictures)
    if chosen is None:
        model = run.train(
            task,
            options.weights,
            first,
            retrain=options.retrain,
            memory_limit=options.memory_limit,
            keep_checkpoints=options.keep_checkpoints,
        )
        evaluated = run.evaluate(model, task, directory, retrain=options.retrain, pictures=pictures)
        result = evaluated._replace(timings=model.timings | evaluated.timings)
    else:
        start = (task, first)
        normal_only, result = run.train_and_evaluate_plus(
            start,
            chosen.anomalies,
            options.plus,
            options.weights,
            directory,
            retrain=options.retrain,
            memory_limit=options.memory_limit,
            keep_checkpoints=options.keep_checkpoints,
            pictures=pictures,
        )
        kept.before[category.name] = normal_only.metrics
    return _noted(task, result, directory, options, kept)


def _noted(task: "Task", result: "Result", directory: Path, options: Options, kept: _Kept) -> Path:
    """Returns the folder, after noting the metrics, drawing what is left to draw, and a line."""
    from adtr_jax import run
    from adtr_jax.files import run_folder

    kept.results[task.category.name] = result.metrics
    if options.tsne:
        detector = cast("AdtrDetector", result.detector)
        kept.differences.append(run.save_tsne(detector, task, directory / "tsne.png"))
    if options.layer_maps:
        layered = cast("GtransDetector", result.detector)
        run.save_layer_maps(layered, task, result.scores, directory / "layers.png")
    spent = run_folder.timings_line(result.timings)
    print(f"{directory.name}: {spent}; pictures in {directory / 'pictures'}\n")
    return directory
