"""Fair timing of several ways to do one thing: in turn, in one run, the median of each."""

import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks.rows import Row

Way = Callable[[], object]


def interleaved(
    ways: Mapping[str, Way], repeats: int, *, warm_up: bool = True, pause: float = 0.0
) -> dict[str, float]:
    """Returns the median seconds of every way.

    Args:
        ways: calls, each of which returns once its work is done.
        repeats: number of timings of each, in turn.
        warm_up: whether each is called once beforehand, untimed.
        pause: seconds before each timing, in which the threads of another way's process, which
            wait for work in a loop at first, come to rest.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    if warm_up:
        for way in ways.values():
            way()
    for _ in range(repeats):
        for name, way in ways.items():
            time.sleep(pause)
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(
    what: str, ways: Mapping[str, Way | str], repeats: int, target: float | None = None
) -> Row:
    """Times `jax` against the other ways.

    Args:
        ways: `jax`, and PyTorch's; a text says why one is not available.
        repeats: as in `interleaved`.
        target: the target ratio.
    """
    seconds = interleaved({name: way for name, way in ways.items() if callable(way)}, repeats)
    absent = {name: way for name, way in ways.items() if isinstance(way, str)}
    return Row(what, seconds.pop("jax"), {**seconds, **absent}, target)
