"""What the experiments share: presets, one-line errors, and the loop over categories."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import tyro

from adtr_jax.backbones import PIXELS
from adtr_jax.command_line import guarded, parse
from adtr_jax.config import PLUS, Method, Plus, Preset, Presets, Settings
from adtr_jax.errors import InputError, unknown
from conversion import WEIGHTS

if TYPE_CHECKING:  # JAX is imported only once the command line is known to be right
    from adtr_jax.data.anomalies import Choice
    from adtr_jax.data.samples import Category
    from adtr_jax.detectors.adtr import Adtr
    from experiments.papers.adtr import PaperRow

ReadAnomalies = Callable[[str, "Category", Settings, Plus], "Choice"]
Results = dict[str, Mapping[str, float] | str]
TITLES: dict[Method, str] = {"adtr": "ADTR", "gtrans": "GTrans"}


@dataclass(frozen=True, kw_only=True)
class Command:
    """The options that every experiment has."""

    settings: tyro.conf.OmitArgPrefixes[Settings]
    method: Method = "adtr"
    """adtr: the features are reconstructed (You et al.). gtrans: a second network imitates the
    frozen one (Yan et al.). Each has settings of its own."""
    preset: Preset = "paper"
    """Where the settings below start from: `paper`, or `fast`, the best found per minute of
    training. Single settings override it."""
    out: Path
    """Results go to OUT/CATEGORY/. A method that is not the default has an OUT of its own."""
    weights: Path = WEIGHTS
    """The folder of converted backbone weights; missing ones are converted into it."""
    devices: int | None = None
    """How many of each machine's devices to train on. Default: all of them; one, of a CPU's."""
    hosts: Annotated[str | None, tyro.conf.arg(metavar="auto|ADDRESS:PORT,INDEX/COUNT")] = None
    """Several machines: start the same command on all of them. auto on TPU VMs and under SLURM;
    else the first one's address, and which this one is: 10.0.0.1:1234,0/2."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="GB")] = None
    """What cached features may take, of the main memory as of each device: two fifths of what is
    free, if it is not given. Larger ones go to files in OUT/.features."""
    retrain: bool = False
    """Train again, even if the folder holds a finished run or part of one."""
    anomalies: str | None = None
    """ADTR+: go on from the normal-only model with anomalies; results go to OUT/CATEGORY+NAME.
    confetti, cutpaste or perlin make them; a folder holds your own, with or without masks."""
    tsne: bool = False
    """Draw the feature differences as in the paper's Fig. 5 (tsne.png); needs masks."""
    plus: Plus = field(default_factory=Plus)
    """How ADTR+ goes on."""


C = TypeVar("C", bound=Command)


def peek(words: Sequence[str], flag: str, default: str) -> str:
    """The value of `--flag` among the words of a command line that has not been parsed yet."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{flag}", nargs="?", default=default, const=default)
    return str(getattr(parser.parse_known_args(words)[0], flag))


def main(
    run: Callable[[C], bool],
    defaults: Callable[[Settings], C],
    presets: Presets,
    *,
    method: Method = "adtr",
    preset: Preset,
    prog: str,
) -> int:
    """Parses the command line and runs an experiment.

    Args:
        run: the experiment; returns whether all of it succeeded.
        defaults: the command's defaults, given the preset's settings.
        presets: the settings that each preset stands for, of each method that is to be had.
        method, preset: those in force where the command line names none.
        prog: the command as the user types it.

    Returns:
        The exit status: 0; 1 if a category failed; 2 for bad input, with one line on stderr;
        130 if it was stopped by Ctrl-C.
    """
    words = sys.argv[1:]

    def action() -> int:
        word = peek(words, "method", method)
        if word not in presets:
            raise unknown(f"no method of {prog}", word, list(presets))
        chosen = cast(Method, word)
        known = presets[chosen]
        named = cast(Preset, peek(words, "preset", preset))
        settings = known.get(named, known[preset])  # the full parser will say what is wrong with it
        default = defaults(settings)
        default = dataclasses.replace(
            default,
            method=chosen,
            preset=named,
            plus=PLUS.get(named, PLUS[preset]),
            out=default.out if chosen == method else Path(f"{default.out}_{chosen}"),
        )
        command = parse(type(default), words, prog=prog, default=default)
        if command.hosts is not None:
            from adtr_jax.devices import hosts

            hosts.join(command.hosts)
            return 0 if hosts.until_one_fails(lambda: run(command)) else 1
        from adtr_jax.devices.sharding import one_device_a_core

        one_device_a_core()
        return 0 if run(command) else 1

    return guarded(action, "interrupted; the same command, without --retrain, goes on")


def run_categories(
    names: Sequence[str],
    read: Callable[[str], "Category"],
    command: Command,
    paper: "Mapping[str, Sequence[PaperRow]] | None" = None,
    read_anomalies: ReadAnomalies | None = None,
) -> bool:
    """Trains and evaluates one model a category, then prints the table of all.

    With `--anomalies` ADTR+ follows, and ADTR's results on the same test images are a table of
    their own.

    Args:
        names: the categories.
        read: a name -> its images.
        command: the command line.
        paper: the papers' rows, by method.
        read_anomalies: what `--anomalies` means here; `anomalies.read` by default.

    Returns:
        Whether all succeeded.
    """
    from adtr_jax.evaluation import report

    before, results = measure(names, read, command, read_anomalies)
    rows = paper or {}
    if before:
        print(f"\nADTR, on the same test images\n{report.table(before, *rows.get('ADTR', ()))}\n")
    method = "ADTR+" if before else TITLES[command.method]
    print(f"{method}\n{report.table(results, *rows.get(method, ()))}")
    return not any(isinstance(result, str) for result in results.values())


def measure(
    names: Sequence[str],
    read: Callable[[str], "Category"],
    command: Command,
    read_anomalies: ReadAnomalies | None = None,
) -> tuple[Results, Results]:
    """Trains and evaluates one model a category, as `run_categories` does.

    A category that fails is reported as its result and does not keep the others from running,
    unless it is the only one.

    Returns:
        ADTR's metrics where ADTR+ is asked for, by category; and the metrics of the last model, or
        why there is none.

    Raises:
        InputError: options that do not go together, weights that cannot be had, or what the only
            category raises.
    """
    from adtr_jax.devices import hosts
    from adtr_jax.devices.sharding import device_mesh

    before: Results = {}
    results: Results = {}
    if command.method != "adtr" and (command.anomalies or command.tsne):
        flag = "anomalies" if command.anomalies else "tsne"
        raise InputError(f"--{flag} is of ADTR: leave it out, or --method={command.method}")
    if command.memory is not None and not 0 <= command.memory < math.inf:
        raise InputError(f"--memory={command.memory} must be at least 0")
    hosts.agree("what they are to do", (names, _together(command)))
    device_mesh(command.devices)  # raises before anything is downloaded, read or trained
    with hosts.together():
        ensure_weights(command.settings.backbone, command.weights)
    for name in names:
        try:
            with hosts.together():
                category, chosen = _read(name, read, command, read_anomalies)
            hosts.agree("their images' names", [s.name for s in category.train + category.test])
            _run_one(category, chosen, command, before, results)
        except Exception as error:  # whatever it is, the other categories are not to blame
            if len(names) == 1 or hosts.lost(error):
                raise
            results[name] = failure(error)
            print(f"{name}: {results[name]}", file=sys.stderr)
    return before, results


def _together(command: Command) -> tuple[object, ...]:
    """What several machines must agree on; folders may differ."""
    evaluated = (command.devices, command.retrain, command.tsne, command.anomalies is None)
    return command.settings, command.plus, evaluated


def ensure_weights(backbone: str, folder: Path) -> None:
    """Converts the backbone's weights into the folder where they are missing.

    Raises:
        InputError: they cannot be had.
    """
    from conversion import ensure

    if backbone != PIXELS:
        ensure(backbone, folder)


def failure(error: Exception) -> str:
    """Why something failed, in one line."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def _read(
    name: str,
    read: Callable[[str], "Category"],
    command: Command,
    read_anomalies: ReadAnomalies | None,
) -> "tuple[Category, Choice | None]":
    """The category, and the anomalies that are asked for."""
    from adtr_jax.data import anomalies

    category = read(name)
    if command.anomalies is None:
        return category, None
    choose = read_anomalies or anomalies.read
    chosen = choose(command.anomalies, category, command.settings, command.plus)
    return chosen.category, chosen


def _run_one(
    category: "Category",
    chosen: "Choice | None",
    command: Command,
    before: Results,
    results: Results,
) -> None:
    """Runs one category and notes its metrics."""
    from adtr_jax import experiment

    task = experiment.Task.read(category, command.settings, command.devices)
    if command.tsne:
        _ = task.required_masks  # before anything is trained
    directory = command.out / category.name
    memory = None if command.memory is None else int(1e9 * command.memory)
    if chosen is None:
        result = experiment.run(
            task, command.weights, directory, retrain=command.retrain, memory=memory
        )
    else:
        start = (task, directory)
        directory = command.out / f"{category.name}+{chosen.name}"
        normal_only, result = experiment.run_plus(
            start,
            chosen.anomalies,
            command.plus,
            command.weights,
            directory,
            retrain=command.retrain,
            memory=memory,
        )
        before[category.name] = normal_only.metrics
    if command.tsne:
        experiment.save_tsne(cast("Adtr", result.detector), task, directory / "tsne.png")
    results[category.name] = result.metrics
    spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.timings.items())
    print(f"{directory.name}: {spent}; pictures in {directory / 'pictures'}\n")
