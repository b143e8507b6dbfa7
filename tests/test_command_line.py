"""What is wrong with a command line: one line on stderr, exit status 2."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from stripes import ROOT, call

from adtr_jax.command_line import guarded, parse
from adtr_jax.errors import InputError, unknown
from experiments.options import peek

MVTEC = "python -m experiments.mvtec"


@dataclass(frozen=True)
class Options:
    """A command with two options."""

    size: int = 3
    folder: Path | None = None


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--epoch=3", "did you mean --epochs? "),
        ("-epochs", "did you mean --epochs? "),
        ("--methd=gtrans", "did you mean --method? "),
        ("--plus.epoch=3", "did you mean --plus.epochs? "),
        ("--standardize", "did you mean --standardise or --no_standardise? "),
        ("--max-step=3", "did you mean --max_steps? "),
        ("--size=64", "did you mean --image_size or --batch_size? "),
        ("--output=DIR", "did you mean --out? "),
        ("--zzz", ""),
        ("--fusion=P4", ""),  # an option of GTrans
    ],
)
def test_a_mistyped_option(word, hint):
    for others in ([], ["--category=grid", "--epochs=abc"]):
        result = call(*others, word)
        assert result.returncode == 2
        assert result.stderr == (
            f"error: no option of {MVTEC} is called {word.partition('=')[0]}: "
            f"{hint}--help lists them all\n"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs=abc"], "--epochs: invalid literal for int() with base 10: 'abc'"),
        (["--epochs"], "Missing value for argument '--epochs'. Expected 1 values"),
        (
            ["--preset=fst"],
            "invalid choice 'fst' for argument '--preset'. Expected one of ('paper', 'fast', "
            "'best')",
        ),
        (["--plus.k", "x"], "--plus.k: invalid literal for int() with base 10: 'x'"),
        (["grid"], "Unrecognized options: grid"),
        (["--out=~nobody-of-that-name/x"], "--out: ~nobody-of-that-name/x: there is no such user"),
    ],
)
def test_a_wrong_value(words, message):
    result = call("--category=grid", *words)
    assert result.returncode == 2
    assert result.stderr == f"error: {message}; {MVTEC} --help lists the options\n"


def test_a_missing_option():
    result = call("--epochs=3")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: Missing from {MVTEC}: --category STR A category's name, several with commas "
        "between, or `all`: any folder in DIR that holds train/good. (required); "
        f"{MVTEC} --help lists the options\n"
    )


class Terminal(io.StringIO):
    """One that has colours."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("output", [io.StringIO, Terminal])
def test_whatever_the_output_can_draw(output, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", output())
    with pytest.raises(InputError) as error:
        parse(Options, ["--size=three"], prog="command")
    assert str(error.value) == (
        "--size: invalid literal for int() with base 10: 'three'; command --help lists the options"
    )
    with pytest.raises(InputError, match=r"is called --sise: did you mean --size\?"):
        parse(Options, ["--sise=3"], prog="command")


def test_paths_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(Options, ["--folder=~/a"], prog="command").folder == tmp_path / "a"
    assert parse(Options, ["--folder", "a/~"], prog="command").folder == Path("a/~")


def test_the_options_that_choose_the_defaults_are_read_first():
    methods = ("adtr", "gtrans")
    assert peek(["--data", "x", "--method=gtrans"], "method", methods) == "gtrans"
    assert peek(["--method", "adtr", "--epochs=3"], "method", methods) == "adtr"
    assert peek(["--method=gtran"], "method", methods) is None
    assert peek(["--method"], "method", methods) is None
    assert peek(["--category=gtrans"], "method", methods) is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "error: there is not enough memory"),
        (MemoryError("Unable to allocate\n9 GiB"), "error: there is not enough memory (Unable to "),
        (OSError(), "error: OSError"),
        (
            OSError(28, "No space"),
            "error: [Errno 28] No space; make room, and the same command goes",
        ),
        (OSError(21, "Is a directory", "a/b"), "error: a/b: Is a directory"),
        (OSError(21, "Is a directory", "part", None, "a/b"), "error: a/b: Is a directory"),
        (OSError(2, "No such file", b"a\xff"), "error: a\\udcff: No such file"),
    ],
)
def test_no_error_is_without_words(error, line, capsys):
    def fail() -> int:
        raise error

    assert guarded(fail, "") == 2
    said = capsys.readouterr().err.encode(errors="backslashreplace").decode()
    assert said.startswith(line) and said.count("\n") == 1


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_devices_that_are_not_there(platform, tmp_path):
    if platform == "cuda" and any(find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)):
        pytest.skip("JAX for CUDA is installed")
    words = ["adtr_jax", "fit", str(tmp_path), f"--out={tmp_path / 'm.adtr'}"]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"error: JAX cannot use JAX_PLATFORMS={platform}"
    )
    assert "Traceback" not in done.stderr


def test_long_lists_are_cut():
    names = [f"class{i:02}" for i in range(21)]
    assert str(unknown("no class", "class00x", names)) == (
        "no class is called class00x: did you mean class00 or class20? There are: "
        f"{', '.join(names[:20])}, ... (21 in all)"
    )
    assert str(unknown("no class", "nothing", names[:20])) == (
        f"no class is called nothing: There are: {', '.join(names[:20])}"
    )


@pytest.mark.parametrize("reason", ["", "Unable to allocate 3 TiB"])
def test_too_little_memory_is_said_in_words(
    reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def action() -> int:
        raise MemoryError(*[reason] if reason else [])

    assert guarded(action, "") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: there is not enough memory{reason and f' ({reason})'}: take ")
    assert said.count("\n") == 1


def test_a_notebooks_drawing_backend_does_no_harm():
    text = (
        "from adtr_jax.command_line import guarded\n"
        "def action():\n"
        "    import matplotlib\n"
        "    return len(matplotlib.rcParams['font.family'])\n"
        "print(guarded(action, ''))"
    )
    environment = os.environ | {"MPLBACKEND": "module://nowhere_installed.backend"}
    words = [sys.executable, "-c", text]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
