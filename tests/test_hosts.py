"""Two processes, as on two machines: the numbers of one, one that dies, and how the run goes on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stripes import ROOT, write_category

from adtr_jax.devices import hosts
from adtr_jax.errors import InputError

EPOCHS = 30
COMMAND = """
import runpy
runpy.run_module("experiments.mvtec", run_name="__main__", alter_sys=True)
"""
# A checkpoint after every epoch.
SAVING = f"from adtr_jax.training import train; train.SAVE_SECONDS = 0\n{COMMAND}"
# The command several times, with one folder of data each, in processes that have met once.
SEVERAL = """
import sys
from adtr_jax.devices import hosts
from experiments import mvtec
from experiments.options import main

*flags, where = sys.argv[1:]
hosts.join(where.removeprefix("--hosts="))
hosts.join = lambda where: None
for data in [flag for flag in flags if flag.startswith("--data=")]:
    sys.argv[1:] = [flag for flag in flags if not flag.startswith("--data=")] + [data, "--hosts=x"]
    status = main(mvtec.run, mvtec.defaults, preset="paper", prog="mvtec")
    print(f"status {status}", file=sys.stderr)
"""
# A process that meets the others and then does something else for ever.
BUSY = """
import sys, time
from adtr_jax.devices import hosts
hosts.TIMEOUT = 8
hosts.join(sys.argv[-1].removeprefix("--hosts="))
print("met", file=sys.stderr, flush=True)
hosts.until_one_fails(lambda: time.sleep(600))
"""
FLAGS = [
    *("--category=stripes", "--backbone=pixels", "--image_size=64", "--layers", "4"),
    *("--preset=fast", "--dropout=0.1", "--batch_size=6", f"--epochs={EPOCHS}"),
    *("--width=32", "--heads=4", "--depth=1", "--hidden=64"),
    *("--held_out=0.05", "--patience=20"),  # one image, of which the second process has no share
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data")
    write_category(folder / "stripes", wide=8)
    return f"--data={folder}"


@contextmanager
def pair(
    flags: list[list[str]], devices: int = 2, code: str = COMMAND
) -> Iterator[list[subprocess.Popen[str]]]:
    """The code in two processes, each with so many devices and flags of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", code, *FLAGS, *own),
                f"--hosts=localhost:{port},{index}/2",
            ],
            cwd=ROOT,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, own in enumerate(flags)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of both."""
    texts = [process.communicate(timeout=240) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def wait_for_epoch(log: Path, epoch: int) -> None:
    """Until the log has so many lines."""
    end = time.monotonic() + 240
    while not log.exists() or len(log.read_text().splitlines()) < epoch:
        assert time.monotonic() < end
        time.sleep(0.01)


def losses(log: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def test_two_processes_get_the_numbers_of_one_though_one_is_killed(data, tmp_path):
    one = [sys.executable, "-c", COMMAND, *FLAGS, data, f"--out={tmp_path / 'one'}"]
    subprocess.run(one, cwd=ROOT, check=True, timeout=240)
    # Only the first process writes: the second one's folder could be on another machine.
    flags = [[data, f"--out={tmp_path / name}"] for name in ("two", "nothing")]
    log = tmp_path / "two/stripes/log.jsonl"

    # A dead one ends the other: at once, where a process has one device. Where it has two, one may
    # wait for the other until the dead process is missed, after `hosts.TIMEOUT`.
    with pair(flags, devices=1, code=SAVING) as processes:
        wait_for_epoch(log, 3)
        start = time.monotonic()
        processes[1].kill()
        _, stderr = processes[0].communicate(timeout=60)
        assert time.monotonic() - start < 30
        assert processes[0].returncode == 1
        assert "error: another process has ended, or the network to it is gone" in stderr
        assert "Traceback" not in stderr
    assert 3 <= len(losses(log)) < EPOCHS

    for own in flags:
        own.append("--devices=2")
    flags[1].append("--memory=0")  # where one has no memory, all read their rows part by part
    with pair(flags) as processes:  # and the same command goes on
        (status, stdout, stderr), (other, silent, _) = ends(processes)
        assert (status, other) == (0, 0), stderr
    assert "stripes" in stdout.splitlines()[-1]
    assert "AUROC" not in silent
    assert [path.name for path in (tmp_path / "nothing").iterdir()] == [".features"]

    theirs = losses(tmp_path / "one/stripes/log.jsonl")
    assert losses(log) == pytest.approx(theirs, rel=1e-4)
    assert losses(log)[:3] == pytest.approx(theirs[:3], rel=1e-6)
    metrics = [
        json.loads((tmp_path / name / "stripes/metrics.json").read_text())
        for name in ("one", "two")
    ]
    assert metrics[0]["image_auroc"] > 0.9
    assert metrics[1] == pytest.approx(metrics[0], abs=1e-4)
    scores = [(tmp_path / name / "stripes/scores.csv").read_text() for name in ("one", "two")]
    assert scores[0].count("\n") == scores[1].count("\n") == 17


def test_what_one_process_finds_wrong_all_say(data, tmp_path):
    """The second one has a damaged image, none at all, or others."""
    damaged, missing, different = (tmp_path / name for name in ("damaged", "missing", "different"))
    for folder in (damaged, different):
        write_category(folder / "stripes", wide=8)
    (damaged / "stripes/train/good/015.png").write_bytes(b"no image")
    (different / "stripes/train/good/015.png").unlink()
    others = [f"--data={folder}" for folder in (damaged, missing, different)]
    flags = [[*own, f"--out={tmp_path}"] for own in ([data] * 3, others)]
    with pair(flags, code=SEVERAL) as processes:
        for status, _, stderr in ends(processes):
            assert status == 0, stderr
            lines = stderr.strip().splitlines()
            messages = [lines[i - 1] for i, line in enumerate(lines) if line == "status 2"]
            assert messages[0].startswith(f"error: {damaged / 'stripes/train/good/015.png'}")
            assert messages[1].startswith(f"error: {missing}")
            assert messages[2].startswith(
                "error: the machines differ in their images' names: give all of them the same"
            )
            assert len(messages) == 3


def first_is_killed(processes: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    processes[0].kill()
    return processes[1]


def second_stops_responding(processes: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    processes[1].send_signal(signal.SIGSTOP)
    return processes[0]


@pytest.mark.parametrize("happens", [first_is_killed, second_stops_responding])
def test_one_that_dies_before_the_training_ends_the_others_with_one_line(happens):
    with pair([[], []], code=BUSY) as processes:
        for process in processes:
            assert process.stderr is not None
            assert process.stderr.readline() == "met\n"
        begin = time.monotonic()
        other = happens(processes)
        _, stderr = other.communicate(timeout=60)
        assert time.monotonic() - begin < 25
        assert other.returncode == 1
    assert stderr.startswith(
        "error: another process has ended, or the network to it is gone (coord"
    )
    assert stderr.count("\n") == 1


def test_one_that_never_comes_is_not_waited_for_for_ever():
    with pair([[], []], code=BUSY.replace("TIMEOUT = 8", "START = 3")) as processes:
        processes[1].kill()
        ((status, _, stderr),) = ends(processes[:1])
    assert status == 2
    assert re.search(
        r"--hosts=\S+,0/2: the other processes did not come .* within 3 seconds", stderr
    )
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "--hosts=nowhere is neither auto nor ADDRESS:PORT,INDEX/COUNT, such as"),
        (
            "localhost:99999,0/2",
            "--hosts=localhost:99999,0/2: there is no port 99999: take one below",
        ),
        ("localhost:1,2/2", "--hosts=localhost:1,2/2: the processes count from 0, so 2/2 is none"),
    ],
)
def test_an_address_that_makes_no_sense(where, message):
    with pytest.raises(InputError, match=message):
        hosts.join(where)


def test_shares_are_contiguous_and_complete(monkeypatch):
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 4)

    def share(process: int, total: int) -> slice:
        monkeypatch.setattr(hosts.jax, "process_index", lambda: process)
        return hosts.share(total)

    parts = [share(process, 6) for process in range(4)]
    assert parts == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 6)]
    assert [share(3, total) for total in (0, 3, 4)] == [*(slice(0, 0), slice(3, 3), slice(3, 4))]
