"""Several processes, one per host, that train and evaluate one model together.

All run the same program on their own devices; the first one writes the results. With one process,
the usual case, nothing here communicates.
"""

import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, Shaped, UInt8

from adtr_jax.devices import jax_abort
from adtr_jax.errors import InputError, Stopped, one_line

T = TypeVar("T")

# Seconds within which all processes have to be started.
START = 120
# Seconds until a process that no longer responds is given up, and all others end.
TIMEOUT = 50
AUTO = "auto"
_MESSAGE_BYTES = 4096
_LOST = "gloo|nccl|heartbeat|coordination|distributed"  # in JAX's errors then


class AgreedError(InputError):
    """An InputError that all processes raise at the same point."""


def join(where: str) -> None:
    """Connects this process with the others; must be called before JAX is used.

    Args:
        where: `auto` on TPU VMs, SLURM and Open MPI, which provide the addresses; otherwise
            `ADDRESS:PORT,INDEX/COUNT` with the first process's address.

    Raises:
        InputError: `where` is neither, or there is no connection.
    """
    found = re.fullmatch(r"([^,]+):(\d+),(\d+)/(\d+)", where)
    if found is None and where != AUTO:
        raise InputError(
            f"--hosts={where} is neither {AUTO} nor ADDRESS:PORT,INDEX/COUNT, "
            "such as 10.0.0.1:1234,0/2"
        )
    place: dict[str, Any] = {}
    if found:
        address, (port, index, count) = found[1], map(int, found.groups()[1:])
        if not 0 < port < 2**16:
            raise InputError(f"--hosts={where}: there is no port {port}: take one below 65536")
        if not index < count:
            raise InputError(
                f"--hosts={where}: the processes count from 0, so {index}/{count} is none"
            )
        if index:
            _wait_for(address, port, where)
        place = {
            "coordinator_address": f"{address}:{port}",
            "cluster_detection_method": "deactivate",
        }
        place |= {"num_processes": count, "process_id": index}
    met = threading.Event()
    jax_abort.intercept(lambda reason: _give_up(reason, "" if met.is_set() else where))
    # It would intercept SIGTERM before the training, which itself saves and stops.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **place,
            initialization_timeout=START,
            heartbeat_timeout_seconds=TIMEOUT,
            shutdown_timeout_seconds=TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--hosts={where}: the processes did not find each other ({one_line(error)[:200]}); "
            "say where they are with --hosts=ADDRESS:PORT,INDEX/COUNT"
        ) from error
    met.set()
    if not found and _alone_on_its_machine():
        # Under SLURM and Open MPI JAX takes one GPU per process, as if each had its own process.
        for kind in ("cuda", "rocm"):
            jax.config.update(f"jax_{kind}_visible_devices", "all")
    try:
        index = jax.process_index()  # starts the backends, which tell each other of their devices
    except RuntimeError as error:
        if re.search(_LOST, str(error), re.IGNORECASE):
            os._exit(_say(error))
        raise
    if index:
        _fall_silent()


def _wait_for(address: str, port: int, where: str) -> None:
    """Waits until the first process answers; JAX's own wait would end with a crash."""
    end = time.monotonic() + START
    while True:
        try:
            socket.create_connection((address, port), timeout=TIMEOUT).close()
        except OSError as error:
            if time.monotonic() > end:
                raise InputError(
                    f"--hosts={where}: the first process does not answer ({error}); start all of "
                    f"them within {START} seconds of each other, with the first one's address"
                ) from error
            time.sleep(0.1)
        else:
            return


def _give_up(reason: str, where: str) -> NoReturn:
    """Ends this process, for JAX's client is about to; `where`, if they have never met."""
    error: Exception = RuntimeError(f"coordination service: {reason}")
    if where:
        error = InputError(
            f"--hosts={where}: the other processes did not come ({one_line(reason)[:200]}); start "
            f"all of them within {START} seconds of each other"
        )
    os._exit(_say(error))


def _alone_on_its_machine() -> bool:
    """Returns whether the launcher has started no other process on this machine."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0]
    return "1" in (tasks, os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"))


def _fall_silent() -> None:
    """Discards stdout, because the first process's suffices; stderr stays on all."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def until_one_fails(action: Callable[[], T]) -> T:
    """Runs an action of all processes; a process in which it fails ends at once.

    The others then lose the connection to it and end too, instead of waiting for it. `AgreedError`
    and `Stopped`, which all processes raise or none, are passed on.
    """
    try:
        try:
            return action()
        finally:
            # No process leaves before the first one has written everything: JAX crashes all if one
            # ends `TIMEOUT` later than another.
            if not _alone(sys.exception()):
                smallest(0)
    except (AgreedError, Stopped):
        raise
    except BaseException as error:
        status = _say(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # a regular exit would wait for the others


def _alone(error: BaseException | None) -> bool:
    """Returns whether only this process has failed."""
    return error is not None and not isinstance(error, AgreedError | Stopped)


def _say(error: BaseException) -> int:
    """Prints why this process ends alone; returns its exit status."""
    text = one_line(error)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    if isinstance(error, InputError | OSError | MemoryError):
        print(f"error: {text}", file=sys.stderr)
        return 2
    if isinstance(error, RuntimeError | ValueError) and re.search(_LOST, text, re.IGNORECASE):
        print(
            f"error: another process has ended, or the network to it is gone ({text[:200]}); "
            "start the same command on all machines again, and the run goes on",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    return 1


def lost(error: Exception) -> bool:
    """Returns whether an error may mean that the processes are no longer at the same point."""
    return several() and not isinstance(error, AgreedError)


def agree(what: str, value: object) -> None:
    """Raises AgreedError unless all processes have the same value, compared by its `repr`."""
    if several():
        digest = np.frombuffer(sha256(repr(value).encode()).digest(), np.uint8)
        if len(np.unique(gather(digest[None], jax.process_count()), axis=0)) > 1:
            raise AgreedError(
                f"the machines differ in {what}: give all of them the same command, images and "
                "weights"
            )


def several() -> bool:
    return jax.process_count() > 1


def first() -> bool:
    """Returns whether this process is the first, which writes the results."""
    return jax.process_index() == 0


def share(total: int) -> slice:
    """Returns this process's slice of `total` rows; slices are in the order of the processes.

    They have equal lengths, except at the end.
    """
    process, size = jax.process_index(), -(-total // jax.process_count())
    return slice(min(process * size, total), min((process + 1) * size, total))


def gather(part: Shaped[np.ndarray, "_ ..."], total: int) -> Shaped[np.ndarray, "n ..."]:
    """Returns the rows of all processes, each of which has its `share` of them."""
    if not several() or not total:
        return part
    size = -(-total // jax.process_count())
    padded = np.zeros((size, *part.shape[1:]), part.dtype)
    padded[: len(part)] = part
    whole = multihost_utils.process_allgather(_bytes(padded), tiled=True)
    return np.asarray(whole).view(part.dtype).reshape(-1, *part.shape[1:])[:total]


def _bytes(rows: Shaped[np.ndarray, "n ..."]) -> UInt8[np.ndarray, "n _"]:
    """Returns the rows as bytes: as numbers, JAX would convert float64 to float32."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)


def concatenate(part: Shaped[np.ndarray, "_ ..."]) -> Shaped[np.ndarray, "n ..."]:
    """Returns the rows of all processes, of which each may have any number."""
    if not several():
        return part
    counts = of_each(len(part))
    padded = np.zeros((counts.max(), *part.shape[1:]), part.dtype)
    padded[: len(part)] = part
    whole = gather(padded, len(padded) * len(counts))
    blocks = whole.reshape(len(counts), len(padded), *part.shape[1:])
    return np.concatenate([rows[:count] for rows, count in zip(blocks, counts, strict=True)])


def total(values: Any) -> Any:
    """Returns the sum of the processes' integers, or of their arrays of integers."""
    return values if not several() else of_each(values).sum(axis=0)


def of_each(value: Any) -> Int[np.ndarray, "processes ..."]:
    """Returns every process's integer, or array of integers of one shape."""
    return gather(np.asarray(value)[None], jax.process_count())


def smallest(value: int) -> int:
    """Returns the minimum of the processes' values."""
    return int(of_each(value).min())


def largest(value: int) -> int:
    """Returns the maximum of the processes' values."""
    return -smallest(-value)


def from_first(tree: Any) -> Any:
    """Broadcasts the first process's pytree of arrays; the others need only have their shapes."""
    if not several():
        return tree

    def broadcast(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf) if first() else np.empty(leaf.shape, leaf.dtype)
        received = multihost_utils.broadcast_one_to_all(_bytes(array[None]))
        return np.asarray(received).view(array.dtype).reshape(array.shape)

    return jax.tree.map(broadcast, tree)


def local(tree: Any) -> Any:
    """Returns a pytree that is replicated on all devices as this process's own arrays."""
    if not several():
        return tree
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


@contextmanager
def together() -> Iterator[None]:
    """Raises the InputError of one process in all of them, at the end of the block."""
    if not several():
        yield
        return
    text = ""
    try:
        yield
    except InputError as error:
        text = str(error)
    own = np.frombuffer(text.encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    for row in gather(own[None], jax.process_count()):
        if message := row.tobytes().rstrip(b"\0").decode(errors="replace"):
            raise AgreedError(message)
