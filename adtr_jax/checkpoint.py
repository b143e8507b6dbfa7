"""Training checkpoints: the only file that knows Orbax."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from adtr_jax.errors import InputError

KEEP = 3  # the last few, in case the newest is damaged


class Checkpoints:
    """The numbered checkpoints of one run, each written to a temporary folder and then renamed."""

    def __init__(self, directory: Path):
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every file it touches
        self.directory = directory.resolve()
        # Synchronous: the training step donates its buffers, and a save takes half a second.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, enable_async_checkpointing=False, create=True
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def epochs(self) -> list[int]:
        """The epochs after which a checkpoint was saved, the last one first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, epoch: int, state: Any) -> None:
        """Saves a pytree of arrays as the checkpoint of `epoch`."""
        if epoch not in self._manager.all_steps():
            self._manager.save(epoch, args=ocp.args.StandardSave(state))

    def restore(self, epoch: int, like: Any) -> Any:
        """The checkpoint of `epoch`, with the structure, shapes and devices of `like`.

        Raises:
            InputError: the checkpoint is damaged or of another model; names its folder.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(epoch, args=ocp.args.StandardRestore(target))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise InputError(
                f"{self.directory / str(epoch)}: the checkpoint cannot be read "
                f"({' '.join(str(error).split())[:200]}); delete this folder, and the run goes on "
                "from the one before"
            ) from error

    def close(self) -> None:
        """Ends Orbax's threads."""
        self._manager.close()
