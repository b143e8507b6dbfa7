"""Training checkpoints; the only module that uses Orbax."""

import errno
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from adtr_jax.devices import hosts
from adtr_jax.errors import InputError, one_line
from adtr_jax.files import digest, temporary

KEEP = 3  # the last few, in case the newest is damaged


class Checkpoints:
    """The numbered checkpoints of one run, each written to a temporary folder and then renamed.

    Each holds the digests of its files. Of several processes, only the first reads and writes them,
    so that no folder needs to be shared.
    """

    def __init__(self, directory: Path):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every file it touches
        self.directory = directory.resolve()
        self._orbax: ocp.Checkpointer | None = None
        if hosts.first():
            alone = _alone()
            # Synchronous: the training step donates its buffers, and a save takes half a second.
            self._orbax = ocp.Checkpointer(
                ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                multiprocessing_options=alone,
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends Orbax's threads, unless another process has died, for which they would wait."""
        if self._orbax and not (error and hosts.several()):
            self._orbax.close()

    def last(self, state: Any) -> tuple[int, Any]:
        """Returns the number of epochs trained and the state after them.

        A damaged checkpoint is passed over, with a line on stderr.

        Args:
            state: of the structure and shapes that were saved; returned, with 0, for a new run.

        Raises:
            InputError: the checkpoint is of another model; names its folder.
        """
        done = 0
        with hosts.together():
            if self._orbax:
                done = self._newest()
                state = self._restored(self._orbax, done, state) if done else state
        done = int(hosts.from_first(np.int32(done)))
        return done, hosts.from_first(state) if done else state

    def save(self, epoch: int, state: Any) -> None:
        """Saves a pytree of arrays as the checkpoint of `epoch`, and removes older ones.

        Raises:
            InputError: it cannot be written, as on a full disc; those before are untouched.
        """
        if not self._orbax:
            return
        try:
            with temporary.folder(self.directory, str(epoch)) as folder:
                part, whole = folder / str(epoch), self.directory / str(epoch)
                with _unicode(folder) as named:
                    args = ocp.args.StandardSave(hosts.local(state))
                    self._orbax.save(named / str(epoch), args=args)
                digest.seal_folder(part)
                if whole.exists():  # a damaged one
                    shutil.rmtree(whole)
                part.replace(whole)
        except Exception as error:  # Orbax and TensorStore raise many types
            raise InputError(
                f"{self.directory / str(epoch)}: the checkpoint cannot be written "
                f"({_reason(error)}); make room, and the same command goes on from the one before"
            ) from error
        earlier = [number for number in self._epochs() if number <= epoch][:KEEP]
        for number in self._epochs():
            if number not in earlier:
                shutil.rmtree(self.directory / str(number), ignore_errors=True)

    def _epochs(self) -> list[int]:
        """The numbers of the checkpoints, the newest first."""
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir()]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _newest(self) -> int:
        """The number of the newest checkpoint that is not damaged; 0: there is none."""
        for epoch in self._epochs():
            folder = self.directory / str(epoch)
            damage = digest.damage_of(folder)
            if damage is None:
                return epoch
            print(
                f"warning: {folder} is damaged ({damage}): the run goes on from the checkpoint "
                "before",
                file=sys.stderr,
            )
        return 0

    def _restored(self, orbax: ocp.Checkpointer, epoch: int, like: Any) -> Any:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, hosts.local(like))
        folder = self.directory / str(epoch)
        try:
            with _unicode(folder) as named:
                return orbax.restore(named, args=ocp.args.StandardRestore(target))
        except Exception as error:  # Orbax and TensorStore raise many types
            raise InputError(
                f"{folder}: the checkpoint cannot be read ({_reason(error)}); delete this folder, "
                "and the run goes on from the one before"
            ) from error


@contextmanager
def _unicode(folder: Path) -> Iterator[Path]:
    """The folder by a name that is Unicode, as TensorStore wants it; Linux allows others."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        opened = os.open(folder, os.O_RDONLY)
        try:
            yield Path(f"/proc/self/fd/{opened}")
        finally:
            os.close(opened)
    else:
        yield folder


def _reason(error: Exception) -> str:
    """One line; TensorStore's own is of the length of a page."""
    text = one_line(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(number) in text:
            return os.strerror(number)
    return text[:200]


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns options that keep Orbax from waiting for the other processes."""
    if not hosts.several():
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
