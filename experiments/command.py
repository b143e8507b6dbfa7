"""What the experiments share: presets, one-line errors, and the loop over categories."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro

from adtr_jax.command_line import guarded, parse
from adtr_jax.config import Preset, Settings
from adtr_jax.errors import InputError
from conversion import WEIGHTS

if TYPE_CHECKING:  # JAX is imported only once the command line is known to be right
    from adtr_jax.data.samples import Category
    from adtr_jax.paper import PaperRow


@dataclass(frozen=True, kw_only=True)
class Command:
    """The options that every experiment has."""

    settings: tyro.conf.OmitArgPrefixes[Settings]
    preset: Preset
    """Where the settings below start from: `paper`, or `fast`, the best found per minute of
    training. Single settings override it."""
    out: Path
    """Results go to OUT/CATEGORY/."""
    weights: Path = WEIGHTS
    """The folder of converted backbone weights; missing ones are converted into it."""
    retrain: bool = False
    """Train again, even if OUT/CATEGORY holds a finished run or part of one."""


C = TypeVar("C", bound=Command)


def main(
    run: Callable[[C], bool],
    defaults: Callable[[Settings], C],
    presets: Mapping[Preset, Settings],
    *,
    preset: Preset,
    prog: str,
) -> int:
    """Parses the command line and runs an experiment.

    Args:
        run: the experiment; returns whether all of it succeeded.
        defaults: the command's defaults, given the preset's settings.
        presets: the settings that each preset stands for.
        preset: the one in force where the command line names none.
        prog: the command as the user types it.

    Returns:
        The exit status: 0; 1 if a category failed; 2 for bad input, with one line on stderr;
        130 if it was stopped by Ctrl-C.
    """
    words = sys.argv[1:]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=preset)
    chosen = first.parse_known_args(words)[0].preset
    if chosen not in presets:
        chosen = preset  # and let the full parser say what is wrong with it
    default = dataclasses.replace(defaults(presets[chosen]), preset=chosen)

    def action() -> int:
        return 0 if run(parse(type(default), words, prog=prog, default=default)) else 1

    return guarded(action, "interrupted; the same command, without --retrain, goes on")


def run_categories(
    names: Sequence[str],
    read: Callable[[str], "Category"],
    command: Command,
    paper: "PaperRow | None" = None,
) -> bool:
    """Trains and evaluates one model a category, then prints the table of all.

    A category that fails is reported in the table and does not keep the others from running.

    Returns:
        Whether all succeeded.
    """
    from adtr_jax import experiment, report
    from conversion import ensure

    results: dict[str, Mapping[str, float] | str] = {}
    ensure(command.settings.backbone, command.weights)
    for name in names:
        directory = command.out / name
        try:
            results[name], timings = experiment.run(
                read(name), command.settings, command.weights, directory, retrain=command.retrain
            )
        except Exception as error:  # whatever it is, the other categories are not to blame
            if len(names) == 1:
                raise
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            results[name] = kind + " ".join(str(error).split())
            print(f"{name}: {results[name]}", file=sys.stderr)
        else:
            spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in timings.items())
            print(f"{name}: {spent}; pictures in {directory / 'pictures'}")
    print(f"\n{report.table(results, paper)}")
    return not any(isinstance(result, str) for result in results.values())
