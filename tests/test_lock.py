"""One command a folder; and what is temporary, of processes that live and of those that do not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stripes import ROOT

from adtr_jax.errors import InputError
from adtr_jax.files import lock, temporary
from adtr_jax.files.atomic import write_atomically

HOLD = """
import sys, time, pathlib
from adtr_jax.files import lock, temporary
folder = pathlib.Path(sys.argv[1])
with lock.locked(folder), temporary.folder(folder, "large") as made:
    (made / "features").write_bytes(bytes(1000))
    print(made, flush=True)
    time.sleep(600)
"""


def held(folder: Path) -> subprocess.Popen[str]:
    """A process that has the folder locked, and a temporary folder in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline().strip().endswith(".part")
    return process


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.part"))


def test_a_living_process_keeps_its_folder_and_a_dead_one_does_not(tmp_path):
    process = held(tmp_path)
    with pytest.raises(InputError, match=rf"^another command \(pid {process.pid} on .*, since 20"):
        lock.locked(tmp_path).__enter__()
    write_atomically(tmp_path / "file", "text")
    assert len(parts(tmp_path)) == 1  # of the living one
    process.kill()
    process.communicate()
    write_atomically(tmp_path / "file", "text")
    assert parts(tmp_path) == []
    with lock.locked(tmp_path):
        assert json.loads((tmp_path / lock.HOLDER).read_text())["pid"] == os.getpid()


def test_kill_after_kill_leaves_one_part_at_most(tmp_path):
    for _ in range(3):
        process = held(tmp_path)
        process.kill()
        process.communicate()
        assert len(parts(tmp_path)) == 1


def test_a_locked_folder_that_stays_empty_is_removed(tmp_path):
    with lock.locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with lock.locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [lock.LOCK, "file"]
    with lock.locked(tmp_path / "run"):
        (tmp_path / "run" / "inner").mkdir()
        (tmp_path / "run" / "inner" / "file").touch()
        lock.clear(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    file = tmp_path / "notes.txt"
    file.touch()
    for folder, wrong in (
        (file, "is a file: choose"),
        (file / "s", "is in no folder"),
    ):
        with pytest.raises(InputError) as caught, lock.locked(folder):
            pass
        assert str(caught.value).startswith(f"{folder} {wrong}")
        assert str(caught.value).endswith("with --out")


def test_a_holder_that_does_not_say_who_it_is(tmp_path):
    with lock.locked(tmp_path):
        (tmp_path / lock.HOLDER).write_text("{")
        with pytest.raises(InputError, match="another command, which does not say who it is, is u"):
            lock.locked(tmp_path).__enter__()


def test_a_temporary_folder_of_nobody_is_removed_and_others_stay(tmp_path):
    (tmp_path / f".a{temporary.SUFFIX}").mkdir()
    (tmp_path / f".a{temporary.SUFFIX}" / "b").touch()
    (tmp_path / f".file{temporary.SUFFIX}").touch()
    (tmp_path / ".others.part").mkdir()
    with temporary.folder(tmp_path, "mine") as mine:
        temporary.sweep(tmp_path)
        assert mine.exists()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f".file{temporary.SUFFIX}", ".others.part"]


def test_many_at_once_do_not_sweep_each_other(tmp_path):
    code = (
        "import sys, pathlib\nfrom adtr_jax.files.atomic import write_atomically\n"
        "for i in range(40): write_atomically(pathlib.Path(sys.argv[1]) / 'same', str(i))"
    )
    begun = time.monotonic()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert time.monotonic() - begun < 120
    assert (tmp_path / "same").read_text() == "39" and parts(tmp_path) == []
