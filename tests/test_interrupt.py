"""Ctrl-C: the first one stops, always, with one line and status 130; the second one at once."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from stripes import ROOT

from adtr_jax.interrupt import Deferral


def started(*words: str) -> subprocess.Popen[str]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a script's background; inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status and stderr."""
    _, err = process.communicate(timeout=120)
    return process.returncode, err


COMMANDS = [
    (
        ["experiments.mvtec", "--category=grid", f"--data={ROOT}"],
        "interrupted; the same command, without --retrain, goes on\n",
    ),
    (["adtr_jax", "fit", "no_such_folder"], "interrupted; the same command goes on\n"),
    (["conversion", "no-such-network"], "interrupted; the same command goes on with a download\n"),
]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc: when it listens")
@pytest.mark.parametrize(("words", "line"), COMMANDS)
def test_a_command_that_begins_ends_at_once(words, line):
    """Among its imports, too; it may have ended by itself, for what it was told makes no sense."""
    moments = random.Random(0)
    interrupted = 0
    for _ in range(4):
        process = started("-m", *words)
        tasks = f"/proc/{process.pid}/task"
        while process.poll() is None and len(os.listdir(tasks)) < 2:
            time.sleep(0.001)  # Python itself begins
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGINT)
        status, err = ended(process)
        # A Python that is about to end has given up its handlers: to a shell this is 130, too.
        by_itself = status in (2, -signal.SIGINT) and err.startswith("error: ")
        assert (status, err) == (130, line) or by_itself, err
        interrupted += status == 130
    assert interrupted


def script(body: str) -> subprocess.Popen[str]:
    """A command of ours, which has said that it is ready."""
    code = (
        "import gc, os, signal, sys, time\nfrom adtr_jax import interrupt\n"
        f"interrupt.take_over('over')\n{body}"
    )
    process = started("-c", code)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_it_is_not_lost_in_a_callback():
    """Where an exception is printed and ignored, as in JAX's own at a garbage collection."""
    process = script(
        "gc.callbacks.append(lambda phase, info: [print('ready', flush=True), time.sleep(100)])\n"
        "gc.collect()\n"
    )
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "over\n")


IN_TRAINING = """
with interrupt.Deferral("after this epoch") as deferral:
    print("ready", flush=True)
    while not ({0}):
        time.sleep(0.01)
print("heard", file=sys.stderr)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_second_ends_it(number):
    process = script(IN_TRAINING.format("deferral.asked"))
    process.send_signal(number)
    assert ended(process) == (0, "after this epoch\nheard\n")
    process = script(IN_TRAINING.format("False"))
    process.send_signal(number)
    assert process.stderr is not None and process.stderr.readline() == "after this epoch\n"
    process.send_signal(number)
    assert ended(process) == (130, "over\n")


def test_what_nobody_has_heard_ends_it_after_the_epoch():
    process = script(IN_TRAINING.format("deferral._asked"))
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "after this epoch\nover\n")


def test_where_it_is_ignored_it_stays_so():
    code = (
        "import signal\nfrom adtr_jax import interrupt\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "interrupt.take_over('over')\nsignal.raise_signal(signal.SIGINT)\n"
    )
    assert ended(started("-c", code)) == (0, "")


def test_outside_commands_the_second_is_an_exception(capfd):
    """As in a notebook; and all is as before afterwards."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Deferral("asked") as deferral:
        assert not deferral.asked
        signal.raise_signal(signal.SIGINT)
        assert deferral.asked
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err == "asked\n"
    with pytest.raises(KeyboardInterrupt), Deferral(""):
        signal.raise_signal(signal.SIGINT)
