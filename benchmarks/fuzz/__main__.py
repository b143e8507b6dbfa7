"""Damaged inputs by the thousand, and what each reader makes of them.

python -m benchmarks.fuzz [--reader=NAME] [--count=10000] [--seed=0]
python -m benchmarks.fuzz --reader=NAME --seed=0 --only=INDEX [--save=DIR]

Sound inputs are made, and one file of one is damaged: bits, lengths, pieces; contents whose lengths
and checksums are made right again; instructions of pickles; fields of headers. A case depends on
reader, seed and index alone. It is read in another process, which may die of it. Outcomes:

one line       an InputError, on one line, that names the file
right result   what the sound file gives (of a damaged EXIF block: in any of the eight orientations;
               of training checkpoints: that of an epoch before, if stderr says so)
other result   another one, where the format has nothing to tell it by: an image with other pixels
anything else  any other exception; another result though the format has a digest; more seconds or
               memory than the limits; the death of the process; a file outside of the folder, a
               program or a connection; stderr that does not name the file

The exit status is 1 if there was anything else.
"""

import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.command_line import guarded, parse
from adtr_jax.errors import InputError, unknown
from benchmarks.fuzz.campaign import campaign, damaged
from benchmarks.fuzz.readers import READERS
from benchmarks.fuzz.worker import OUTCOMES, WRONG, Limits, Outcome
from benchmarks.rows import show

PROG = "python -m benchmarks.fuzz"
HEADER = ("reader", "cases", *OUTCOMES, "cases a minute")
_SHOWN = 5  # indices of a kind
_VARIES = r"""b?'[^']*'|b?"[^"]*"|/\S*|\d+"""  # quotations, paths and numbers


@dataclass(frozen=True)
class Fuzz:
    """Damage inputs, and count what the readers make of them."""

    reader: str = "all"
    """image, mask, metadata, checkpoint (PyTorch's), model, training (Orbax's checkpoints), cifar,
    idx, zip (of classes), or all."""
    count: int = 10_000
    """How many cases of each."""
    seed: int = 0
    """Another seed, other cases."""
    only: Annotated[int | None, tyro.conf.arg(metavar="INDEX")] = None
    """One case alone: print what becomes of it."""
    save: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write that case's files into a new folder."""
    processes: int = 2
    """How many read at the same time."""
    seconds: float = Limits.seconds
    """What one case may take."""
    memory: int = Limits.memory
    """What one case may take, in MB."""


def run(options: Fuzz) -> int:
    """Prints the table and what went wrong; returns the exit status."""
    if options.reader not in (*READERS, "all"):
        raise unknown("no reader", options.reader, [*READERS, "all"])
    names = list(READERS) if options.reader == "all" else [options.reader]
    if options.only is not None:
        return _one(options, options.only, names)
    wrong: dict[str, dict[int, Outcome]] = {}
    table = show(HEADER, (_row(name, options, wrong) for name in names))
    print(f"\n{table}")
    for name, cases in wrong.items():
        print(_kinds(name, cases))
    return int(any(wrong.values()))


def _row(name: str, options: Fuzz, wrong: dict[str, dict[int, Outcome]]) -> tuple[str, ...]:
    begin = time.monotonic()
    limits = Limits(options.seconds, options.memory)
    found = campaign(READERS[name], range(options.count), options.seed, limits, options.processes)
    cases = dict(found)
    minutes = (time.monotonic() - begin) / 60
    counts = Counter(outcome.kind for outcome in cases.values())
    wrong[name] = {i: each for i, each in sorted(cases.items()) if each.kind == WRONG}
    numbers = [f"{counts[kind]:,}" for kind in OUTCOMES]
    return name, f"{len(cases):,}", *numbers, f"{len(cases) / minutes:,.0f}"


def _one(options: Fuzz, index: int, names: Sequence[str]) -> int:
    if len(names) > 1:
        raise InputError(f"--only={index} of which reader? Add --reader=NAME")
    (name,) = names
    limits = Limits(options.seconds, options.memory)
    ((_, outcome),) = campaign(
        READERS[name], [index], seed=options.seed, processes=1, limits=limits
    )
    print(f"{outcome.kind}: {outcome.detail} ({outcome.source})")
    if options.save is not None:
        reader = READERS[name]
        _, files, _ = damaged(reader, reader.sound(), options.seed, index)
        for file, content in files.items():
            path = options.save / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return int(outcome.kind == WRONG)


def _kinds(name: str, cases: dict[int, Outcome]) -> str:
    """What went wrong, the cases of a kind together."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for index, outcome in cases.items():
        kinds[re.sub(_VARIES, "#", outcome.detail)[:60]].append(index)
    lines = []
    for indices in sorted(kinds.values(), key=len, reverse=True):
        first = cases[indices[0]]
        which = ", ".join(map(str, indices[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")
        lines.append(
            f"{name}: {len(indices)} x {first.detail:.300} ({first.source}; --only={which})"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: run(parse(Fuzz, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
