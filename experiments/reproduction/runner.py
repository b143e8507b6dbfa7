"""Runs the jobs: one on every device at a time, each as processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adtr_jax.errors import Stopped
from adtr_jax.files.atomic import write_atomically
from adtr_jax.interrupt import Deferral
from experiments.reproduction.devices import Devices
from experiments.reproduction.duration import spoken
from experiments.reproduction.plan import Job

_POLL = 0.2  # seconds
_NOTICE = "stopping when what runs has saved; once more to stop at once"


def seconds_of(job: Job, out: Path) -> float | None:
    """Returns what a finished job has taken; None: it is not finished."""
    try:
        return float(json.loads((out / f"{job.key}.json").read_bytes())["seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def log_of(job: Job, out: Path) -> Path:
    """Returns the file that a job's output goes to."""
    return out / f"{job.key}.log"


class Runner:
    """Runs the jobs that are not finished.

    Args:
        jobs: each with its command lines.
        work: of every job, in any unit: tells the time left.
        out: for the files that note each job's end and output.
        after: called after each job.
    """

    def __init__(
        self,
        jobs: Mapping[Job, Sequence[Sequence[str]]],
        work: Mapping[Job, int],
        out: Path,
        devices: Devices,
        after: Callable[[], None],
    ):
        self._jobs, self._work, self._out, self._devices = jobs, work, out, devices
        self._after = after
        seconds = {job: seconds_of(job, out) for job in jobs}
        self._done = {job: spent for job, spent in seconds.items() if spent is not None}
        self._left = [job for job in jobs if job not in self._done]
        self.failed: list[Job] = []

    def run(self) -> None:
        """Runs them; a job that fails does not stop the others.

        Raises:
            Stopped: on Ctrl-C or SIGTERM, after the experiments have saved.
        """
        free = list(range(self._devices.count))
        running: list[_Running] = []
        with Deferral(_NOTICE) as interrupt:
            try:
                while (running or self._left) and not interrupt.asked:
                    while free and (job := self._next()):
                        device = free.pop(0)
                        environment = self._devices.environment(device)
                        log = log_of(job, self._out)
                        running.append(_Running(job, self._jobs[job], log, environment, device))
                    if not running:  # what is left needs what has failed
                        for job in self._left:
                            self._note_failure(job, "it needs others that failed")
                        self._left.clear()
                    time.sleep(_POLL if running else 0)
                    for each in [each for each in running if each.ended()]:
                        running.remove(each)
                        free.append(each.device)
                        self._note(each)
            finally:
                for each in running:
                    each.stop()
                for each in running:
                    each.wait()
            if interrupt.asked:
                raise Stopped("stopped; the same command goes on")

    def _next(self) -> Job | None:
        """Takes the next job whose needs are met."""
        done = {job.key for job in self._done}
        for job in self._left:
            if done.issuperset(job.needs):
                self._left.remove(job)
                return job
        return None

    def _note(self, ended: "_Running") -> None:
        job = ended.job
        if ended.status:
            self._note_failure(job, f"{_last_line(ended.log)} ({ended.log})")
        else:
            self._done[job] = ended.seconds
            noted = {"seconds": round(ended.seconds, 2), "commands": self._jobs[job]}
            file = self._out / f"{job.key}.json"
            write_atomically(file, json.dumps(noted, indent=2) + "\n")
            print(f"{job.key}: {spoken(ended.seconds)}; {self._progress()}")
        self._after()

    def _note_failure(self, job: Job, why: str) -> None:
        self.failed.append(job)
        print(f"{job.key}: failed: {why}", file=sys.stderr)

    def _progress(self) -> str:
        """How many are done, and the time that the others take at the pace of those.

        A step of one part may take a hundred times as long as one of another, so that each part has
        a pace of its own as soon as one of its jobs is done; until then, that of all.
        """
        pending = [job for job in self._jobs if job not in self._done and job not in self.failed]
        paces = {job.part.name: self._pace(job.part.name) for job in pending}
        left = sum(self._work[job] * paces[job.part.name] for job in pending)
        return (
            f"{len(self._done)} of {len(self._jobs)} jobs, "
            f"about {spoken(left / self._devices.count)} left"
        )

    def _pace(self, part: str) -> float:
        """Seconds a unit of work."""
        same = [job for job in self._done if job.part.name == part] or list(self._done)
        return sum(self._done[job] for job in same) / sum(self._work[job] for job in same)


class _Running:
    """A job that runs, on one device: one command line after the other."""

    def __init__(
        self,
        job: Job,
        commands: Sequence[Sequence[str]],
        log: Path,
        environment: Mapping[str, str],
        device: int,
    ):
        self.job, self.log, self.device = job, log, device
        self._left = list(commands)
        self._environment = os.environ | environment
        self._start = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        self._process = self._begin()

    def ended(self) -> bool:
        """Whether the last command has ended, or one has failed; else the next one runs."""
        status = self._process.poll()
        if status == 0 and self._left:
            self._process = self._begin()
            return False
        return status is not None

    @property
    def status(self) -> int:
        return self._process.returncode

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def stop(self) -> None:
        """Lets it save what it has, and end."""
        # Not SIGINT, which it ignores if this process began in a script's background.
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        self._process.wait()

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *self._left.pop(0)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                process_group=0,  # the terminal's Ctrl-C is for this process, which hands it on
            )


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").split("\n")
    said = [line.rpartition("\r")[2].strip() for line in lines]
    return next((line for line in reversed(said) if line), "it says nothing")
