"""The log of a training run: a progress bar, a JSONL file and TensorBoard events."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import event_file_writer, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm.auto import tqdm

from adtr_jax.devices import hosts
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.run_folder import LOG

_ALWAYS = ("epoch", "loss", "learning_rate", "images_per_second")


def read(directory: Path) -> list[dict[str, Any]]:
    """Reads the log of a training: a line an epoch, in their order, as far as they are sound."""
    lines: dict[int, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for line in (directory / LOG).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                values = json.loads(line)
                if isinstance(values, dict) and all(_is_number(values.get(k)) for k in _ALWAYS):
                    lines[values["epoch"]] = values
    return [lines[epoch] for epoch in sorted(lines)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class TrainingLog:
    """Logs one line per epoch; a resumed run continues after the epochs it keeps.

    Of several processes, only the first writes. Nobody needs the log: what cannot be written is
    said once, and the training goes on.

    Args:
        directory: for `log.jsonl` and the event files in `tensorboard/`.
        epochs: of the whole run.
        done: epochs already trained; later lines, of a run that was killed, are dropped.
        images: per epoch.
        label: of the progress bar.
    """

    def __init__(self, directory: Path, epochs: int, done: int, images: int, label: str):
        self._complained = False
        self._lines: Any = None
        self._events: Any = None
        writes = hosts.first()
        if writes:
            with self._unneeded():
                kept = [json.dumps(line) for line in read(directory) if line["epoch"] <= done]
                write_atomically(directory / LOG, "".join(f"{line}\n" for line in kept))
                self._lines = (directory / LOG).open("a")
            with self._unneeded():
                self._events = _events(directory / "tensorboard", done + 1)
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
        with self._unneeded(), ExitStack() as opened:
            for file in (self._lines, self._events):
                if file is not None:
                    opened.callback(file.close)

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
        if self._lines is not None:
            with self._unneeded():
                self._lines.write(json.dumps(line) + "\n")
                self._lines.flush()
        if self._events is not None:
            with self._unneeded():
                for name in [name for name in line if name not in ("epoch", "seconds_left")]:
                    value = summary.scalar(name, line[name])
                    self._events.write_event(
                        Event(wall_time=time.time(), step=epoch, summary=value)
                    )
                self._events.flush()
        self._bar.set_postfix(
            loss=f"{loss:.4g}",
            lr=f"{learning_rate:.1e}",
            images_s=f"{line['images_per_second']:.0f}",
            refresh=False,
        )
        self._bar.update()

    @contextmanager
    def _unneeded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._complained:
                print(f"warning: the log is not written: {error}", file=sys.stderr)
            self._complained = True


def _events(directory: Path, first: int) -> Any:
    """A file of TensorBoard's, which hides what earlier ones say of the epochs from `first` on.

    Without `SummaryWriter`, whose thread ends at a full disc, after which the next event waits for
    ever.
    """
    directory.mkdir(parents=True, exist_ok=True)
    writer = event_file_writer.EventsWriter(str(directory / "events"))
    writer.write_event(Event(step=first, file_version="brain.Event:2"))
    writer.write_event(Event(step=first, session_log=SessionLog(status=SessionLog.START)))
    return writer
