"""Fair timing of several ways to do one thing: in turn, in one run, the median of several."""

import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks.rows import Row

Way = Callable[[], object]


def interleaved(ways: Mapping[str, Way], repeats: int, *, warm_up: bool = True) -> dict[str, float]:
    """The median seconds of every way.

    Args:
        ways: what to call; each returns once its work is done.
        repeats: how often each is timed, in turn.
        warm_up: whether each is called once more beforehand, which is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    if warm_up:
        for way in ways.values():
            way()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(
    what: str, ways: Mapping[str, Way | str], repeats: int, target: float | None = None
) -> Row:
    """Times `jax` against the other ways.

    Args:
        what: is timed.
        ways: `jax`, and PyTorch's; a text says why one cannot be had.
        repeats: as for `interleaved`.
        target: the ratio that is aimed at.
    """
    seconds = interleaved({name: way for name, way in ways.items() if callable(way)}, repeats)
    absent = {name: way for name, way in ways.items() if isinstance(way, str)}
    return Row(what, seconds.pop("jax"), {**seconds, **absent}, target)
