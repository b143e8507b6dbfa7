"""Many cases of one reader."""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.fuzz.reader import Files, Reader
from benchmarks.fuzz.worker import Limits, Outcome, Worker


def campaign(
    reader: Reader, indices: Sequence[int], seed: int, limits: Limits, processes: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Reads the cases of these indices in so many processes; yields the outcomes in no order."""
    inputs = reader.sound()
    left, lock = iter(indices), threading.Lock()

    def work() -> list[tuple[int, Outcome]]:
        done: list[tuple[int, Outcome]] = []
        with Worker(reader, inputs, limits) as worker:
            while True:
                with lock:
                    index = next(left, None)
                if index is None:
                    return done
                done.append((index, worker.outcome(*damaged(reader, inputs, seed, index))))

    with ThreadPoolExecutor(processes) as pool:
        for part in [pool.submit(work) for _ in range(processes)]:
            yield from part.result()


def damaged(
    reader: Reader, inputs: Mapping[str, Files], seed: int, index: int
) -> tuple[str, Files, str]:
    """Returns case `index`, which depends on nothing else than the arguments."""
    return reader.damaged(inputs, random.Random(f"{seed} {index}"))
