"""A process that reads damaged inputs one by one, and may hang, grow or die of them."""

import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from adtr_jax.errors import InputError
from benchmarks.fuzz.reader import Files, Reader

ONE_LINE, RIGHT, UNCHECKED, WRONG = "one line", "right result", "other result", "anything else"
OUTCOMES = (ONE_LINE, RIGHT, UNCHECKED, WRONG)
_STAND_IN = "that of another sound input"
_READY = "ready"
_START = 300.0  # seconds that importing and reading the sound inputs may take
# Audit events of what no reader does outside of its folder, or at all.
_WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        kind: One of `OUTCOMES`.
        detail: The message; of anything else, what it was.
        source: The sound input that was damaged, and its file.
    """

    kind: str
    detail: str
    source: str = ""


@dataclass(frozen=True)
class Limits:
    """Beyond these a case counts as anything else.

    Attributes:
        seconds: For one case.
        memory: In MB, above what the process has when it starts.
    """

    seconds: float = 10.0
    memory: int = 1000


class Worker:
    """Reads cases in a process of its own, which is started anew when one has killed it."""

    def __init__(self, reader: Reader, inputs: Mapping[str, Files], limits: Limits) -> None:
        # The mutations stay here.
        self._arguments = (reader.read, reader.checked, inputs, limits)
        self._limits = limits
        self._process: Any = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._pipe.send(None)
            self._process.join(self._limits.seconds)
            self._stop()

    def outcome(self, source: str, files: Files, victim: str) -> Outcome:
        """Reads the files, one of which, the victim, is that of a sound input, damaged."""
        if self._process is None:
            self._start()
        self._pipe.send((source, files, victim))
        if not self._pipe.poll(self._limits.seconds):
            self._stop()
            return Outcome(WRONG, f"hangs for {self._limits.seconds:g} s")
        try:
            found: Outcome = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._stop()
            return Outcome(WRONG, f"the process dies, status {code}")
        if found.detail.startswith("takes"):
            self._stop()  # the peak is the process's, for good
        return found

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments))
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START) or (answer := self._pipe.recv()) != _READY:
            raise RuntimeError(f"the sound inputs cannot be read: {answer}")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(
    pipe: Connection,
    read: Callable[[Path], str],
    checked: bool,
    inputs: Mapping[str, Files],
    limits: Limits,
) -> None:
    warnings.simplefilter("always")  # of those that Python shows
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    with tempfile.TemporaryDirectory() as root:
        try:
            judge = _Judge(read, checked, inputs, Path(root), limits)
        except Exception:
            pipe.send(traceback.format_exc())
            raise
        pipe.send(_READY)
        while (case := pipe.recv()) is not None:
            pipe.send(judge.outcome(*case))


class _Judge:
    """Reads cases in a folder, and watches what else happens."""

    def __init__(
        self,
        read: Callable[[Path], str],
        checked: bool,
        inputs: Mapping[str, Files],
        root: Path,
        limits: Limits,
    ) -> None:
        self._read_folder, self._checked = read, checked
        self._folder = root / "case"
        self._said = (root / "stderr").open("w+b")
        self._done: list[str] = []
        self._limits = limits
        self._sound: dict[str, str] = {}
        for source, files in inputs.items():
            self._write(files)
            self._sound[source] = read(self._folder)
        os.dup2(self._said.fileno(), 2)
        self._memory = _peak()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 3 * limits.memory * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.addaudithook(self._audit)

    def outcome(self, source: str, files: Files, victim: str) -> Outcome:
        """Reads one case."""
        self._write(files)
        self._said.seek(0)
        self._said.truncate()
        self._done.clear()
        kind, detail = self._read(source)
        sys.stderr.flush()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        names = (Path(victim).name, str(self._folder))
        grown = (_peak() - self._memory) // 2**20
        if self._done:
            kind, detail = WRONG, f"does {self._done[0]}"
        elif grown > self._limits.memory:
            kind, detail = WRONG, f"takes {grown} MB ({kind}: {detail})"
        elif any(all(name not in line for name in names) for line in said.splitlines()):
            kind, detail = WRONG, f"stderr without the file's name: {said[:300]} ({kind}: {detail})"
        elif kind == _STAND_IN:
            told = bool(said) or not self._checked
            kind, detail = (RIGHT, said) if told else (WRONG, "another result, in silence")
        return Outcome(kind, " ".join(detail.split()), f"{source}/{victim}")

    def _read(self, source: str) -> tuple[str, str]:
        try:
            result = self._read_folder(self._folder)
        except InputError as error:
            named = "\n" not in str(error) and str(self._folder) in str(error)
            if named:
                return ONE_LINE, str(error)
            return WRONG, f"not one line that names it: {error!r:.300}"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            return WRONG, f"{type(error).__name__} at {where}: {' '.join(str(error).split()):.200}"
        if result == self._sound[source]:
            return RIGHT, ""
        group = source.partition(":")[0]
        if any(
            result == each for name, each in self._sound.items() if name.startswith(f"{group}:")
        ):
            return _STAND_IN, ""
        return (WRONG, "another result, in silence") if self._checked else (UNCHECKED, "")

    def _write(self, files: Files) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for name, content in files.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") if mode else flags & 3
            if writes and not self._inside(path):
                self._done.append(f"open {path!r} for writing")
        elif event in _RUNS or (event in _WRITES and not self._inside(arguments[0])):
            self._done.append(f"{event} {arguments!r:.200}")

    def _inside(self, path: object) -> bool:
        """Whether a path is in the folder, or no path at all, or the null device."""
        if not isinstance(path, str | bytes | os.PathLike):
            return True
        found = os.path.abspath(os.fsdecode(path))
        return found.startswith(str(self._folder.parent)) or found == os.devnull


def _peak() -> int:
    """The process's largest resident memory so far, in bytes; `getrusage` counts its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
