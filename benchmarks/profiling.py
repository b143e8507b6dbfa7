"""The operations of a profile by the time they took on the device."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
from jax.profiler import ProfileData

# They contain other operations, which are counted themselves.
_CONTAINERS = ("while", "call", "conditional")


def record(way: Callable[[], object], folder: Path) -> Path:
    """Profiles one call, for TensorBoard or xprof; returns the newest file."""
    with jax.profiler.trace(str(folder)):
        jax.block_until_ready(way())
    return max(folder.glob("**/*.xplane.pb"), key=lambda file: file.stat().st_mtime)


def longest(profile: Path, count: int) -> list[tuple[str, float]]:
    """Returns the operations that took longest, and their fractions of the total time.

    Operations of one name are summed, whatever number follows it.
    """
    seconds: Counter[str] = Counter()
    planes = list(ProfileData.from_file(str(profile)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not line.name.startswith(("Stream", "XLA Ops")):
                continue
            for event in line.events:
                name = event.name.rstrip("0123456789").rstrip(".")
                # On the host, only operations of compiled programs have this statistic.
                own = bool(devices) or "hlo_op" in dict(event.stats)
                if own and not name.startswith((*_CONTAINERS, "end: ")):
                    seconds[name] += event.duration_ns
    total = sum(seconds.values()) or 1.0
    return [(name, value / total) for name, value in seconds.most_common(count)]
