"""The log of a training run: a progress bar, a JSONL file and TensorBoard events."""

import json
import os
import time
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter
from tqdm.auto import tqdm

from adtr_jax.devices import hosts
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.run_folder import LOG


class TrainingLog:
    """Logs one line per epoch; a resumed run continues after the epochs it keeps.

    Of several processes, only the first writes.

    Args:
        directory: for `log.jsonl` and the event files in `tensorboard/`.
        epochs: of the whole run.
        done: epochs already trained; later lines, of a run that was killed, are dropped.
        images: per epoch.
        label: of the progress bar.
    """

    def __init__(self, directory: Path, epochs: int, done: int, images: int, label: str):
        path, writes = directory / LOG, hosts.first()
        if writes:
            lines = path.read_text().splitlines() if path.exists() else []
            write_atomically(path, "".join(f"{line}\n" for line in lines[:done]))
        self._file = (path if writes else Path(os.devnull)).open("a")
        self._events = SummaryWriter(
            str(directory / "tensorboard"), purge_step=done + 1, write_to_disk=writes
        )
        self._bar = tqdm(
            total=epochs,
            initial=done,
            desc=label,
            unit="epoch",
            mininterval=0.2,
            disable=None if writes else True,
        )
        self._epochs, self._images = epochs, images
        self._ends = [time.perf_counter()]

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._events.close()
        self._file.close()

    def epoch(
        self, epoch: int, loss: float, learning_rate: float, validation_loss: float | None = None
    ) -> None:
        """Logs the epoch that has just ended (counted from 1), and the loss of held-out images.

        Images per second are those trained on, over the whole time of an epoch.
        """
        self._ends.append(time.perf_counter())
        # Without the first epoch, which includes compilation, as soon as there are others.
        ends = self._ends[1:] if len(self._ends) > 2 else self._ends
        seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
        line = {
            "epoch": epoch,
            "loss": loss,
            "learning_rate": float(f"{learning_rate:.6g}"),
            "images_per_second": round(self._images / seconds, 3),
            "seconds_left": round(seconds * (self._epochs - epoch), 1),
        }
        if validation_loss is not None:
            line["validation_loss"] = validation_loss
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name in [name for name in line if name not in ("epoch", "seconds_left")]:
            self._events.add_scalar(name, line[name], epoch)
        self._bar.set_postfix(
            loss=f"{loss:.4g}",
            lr=f"{learning_rate:.1e}",
            images_s=f"{line['images_per_second']:.0f}",
            refresh=False,
        )
        self._bar.update()
