"""Training checkpoints; the only module that uses Orbax."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from adtr_jax.devices import hosts
from adtr_jax.errors import InputError

KEEP = 3  # the last few, in case the newest is damaged


class _Manager(ocp.CheckpointManager):
    """Does not ask JAX's preemption service, which `hosts` turns off; Orbax 0.11 would fail."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """The numbered checkpoints of one run, each written to a temporary folder and then renamed.

    Of several processes, only the first reads and writes them, so that no folder needs to be
    shared.
    """

    def __init__(self, directory: Path):
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every file it touches
        self.directory = directory.resolve()
        self._manager: ocp.CheckpointManager | None = None
        if hosts.first():
            # Synchronous: the training step donates its buffers, and a save takes half a second.
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEEP,
                enable_async_checkpointing=False,
                create=False,
                multiprocessing_options=_alone(),
            )
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = _Manager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends Orbax's threads, unless another process has died, for which they would wait."""
        if self._manager and not (error and hosts.several()):
            self._manager.close()

    def last(self, state: Any) -> tuple[int, Any]:
        """Returns the number of epochs trained and the state after them.

        Args:
            state: of the structure and shapes that were saved; returned, with 0, for a new run.

        Raises:
            InputError: the checkpoint is damaged or of another model; names its folder.
        """
        done = 0
        with hosts.together():
            if self._manager:
                done = max(self._manager.all_steps(), default=0)
                state = self._restored(self._manager, done, state) if done else state
        done = int(hosts.from_first(np.int32(done)))
        return done, hosts.from_first(state) if done else state

    def save(self, epoch: int, state: Any) -> None:
        """Saves a pytree of arrays as the checkpoint of `epoch`."""
        if self._manager and epoch not in self._manager.all_steps():
            self._manager.save(epoch, args=ocp.args.StandardSave(hosts.local(state)))

    def _restored(self, manager: ocp.CheckpointManager, epoch: int, like: Any) -> Any:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, hosts.local(like))
        try:
            return manager.restore(epoch, args=ocp.args.StandardRestore(target))
        except Exception as error:  # Orbax and TensorStore raise many types
            raise InputError(
                f"{self.directory / str(epoch)}: the checkpoint cannot be read "
                f"({' '.join(str(error).split())[:200]}); delete this folder, and the run goes on "
                "from the one before"
            ) from error


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns options that keep Orbax from waiting for the other processes."""
    if not hosts.several():
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
