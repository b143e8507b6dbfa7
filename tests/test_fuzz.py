"""Damaged inputs: what counts as what, and some hundreds of cases of every reader."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adtr_jax.errors import InputError
from benchmarks.fuzz.__main__ import main
from benchmarks.fuzz.campaign import campaign, damaged
from benchmarks.fuzz.reader import Reader
from benchmarks.fuzz.readers import READERS
from benchmarks.fuzz.worker import ONE_LINE, RIGHT, UNCHECKED, WRONG, Limits, Worker

OUTSIDE = Path(tempfile.gettempdir(), "adtr_jax_fuzz_outside")
# Of the others 100.
CASES = {"weights": 30, "model": 40, "training": 40, "cifar": 60, "idx": 60, "zip": 60}


def behave(folder: Path) -> str:
    """Does what the file says."""
    (path,) = folder.iterdir()
    match path.read_text():
        case "one line":
            raise InputError(f"{path} is damaged")
        case "two lines":
            raise InputError(f"{path} is\ndamaged")
        case "no name":
            raise InputError("it is damaged")
        case "raise":
            raise ValueError("raised")
        case "warn":
            print(f"{path.name} looks odd", file=sys.stderr)
        case "mumble":
            os.write(2, b"looks odd\n")
        case "hang":
            time.sleep(60)
        case "die":
            os.abort()
        case "grow":
            return str(len(path.read_bytes() * 50 * 2**20))
        case "write":
            OUTSIDE.write_text("outside")
        case "run":
            subprocess.run(["true"], check=True)
        case "other":
            return "another"
    return "sound"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    reader = Reader(dict, behave)
    with Worker(reader, {"it": {"file": b"sound"}}, Limits(seconds=2, memory=100)) as worker:
        yield worker
    OUTSIDE.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("does", "kind", "detail"),
    [
        ("sound", RIGHT, ""),
        ("other", UNCHECKED, ""),
        ("one line", ONE_LINE, "file is damaged"),
        ("warn", RIGHT, ""),
        ("two lines", WRONG, "not one line that names it"),
        ("no name", WRONG, "not one line that names it"),
        ("raise", WRONG, "ValueError at test_fuzz.py:"),
        ("mumble", WRONG, "stderr without the file's name: looks odd"),
        ("hang", WRONG, "hangs for 2 s"),
        ("die", WRONG, "the process dies, status -6"),
        ("grow", WRONG, " MB (other result"),
        ("write", WRONG, f"does open '{OUTSIDE}' for writing"),
        ("run", WRONG, "does subprocess.Popen"),
        ("sound", RIGHT, ""),  # after all that
    ],
)
def test_what_counts_as_what(worker, does, kind, detail):
    outcome = worker.outcome("it", {"file": does.encode()}, "file")
    assert outcome.kind == kind
    assert detail in outcome.detail


def test_another_result_is_wrong_where_a_digest_would_tell():
    reader = Reader(dict, behave, checked=True)
    with Worker(reader, {"it": {"file": b"sound"}}, Limits()) as worker:
        outcome = worker.outcome("it", {"file": b"other"}, "file")
    assert (outcome.kind, outcome.detail) == (WRONG, "another result, in silence")


def test_a_case_depends_on_seed_and_index_alone():
    inputs = READERS["idx"].sound()
    cases = [damaged(READERS["idx"], inputs, seed, 7) for seed in (0, 0, 1)]
    random.seed(0)
    assert cases[0] == cases[1] != cases[2]
    source, files, victim = cases[0]
    changed = [name for name in files if files[name] != inputs[source][name]]
    assert changed == [victim]


def test_the_command_prints_a_table_and_one_case(capsys, tmp_path):
    assert main(["--reader=idx", "--count=20", "--processes=1"]) == 0
    row = capsys.readouterr().out.splitlines()[0].split(" | ")
    assert (row[0], row[1], row[5]) == ("idx", "20", "0")
    assert sum(map(int, row[2:5])) == 20
    assert main(["--reader=idx", "--only=3", f"--save={tmp_path / 'case'}"]) == 0
    assert capsys.readouterr().out.startswith(("one line: ", "right result: ", "other result: "))
    assert len(list((tmp_path / "case").iterdir())) == 4
    assert main(["--only=3"]) == 2
    assert "--only=3 of which reader? Add --reader=NAME" in capsys.readouterr().err


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_give_one_line_or_the_right_result(name):
    cases = campaign(READERS[name], range(CASES.get(name, 100)), seed=0, limits=Limits(seconds=60))
    outcomes = dict(cases)
    assert len(outcomes) == CASES.get(name, 100)
    wrong = {index: each.detail for index, each in outcomes.items() if each.kind == WRONG}
    assert wrong == {}
    assert sum(bool(each.detail) for each in outcomes.values()) > 5  # something was said
