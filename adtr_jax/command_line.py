"""What all commands share: the command line, one-line errors, exit statuses."""

import argparse
import contextlib
import errno
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from adtr_jax.errors import InputError, one_line, unknown
from adtr_jax.interrupt import STATUS

T = TypeVar("T")
W = TypeVar("W", bound=str)


def parse(kind: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """The command line as a dataclass of `kind`; `--help` ends the process.

    Args:
        kind: its fields are the options, their docstrings the help.
        arguments: the words after `prog`.
        prog: the command as the user types it.
        default: what the options are where the command line does not say.

    Raises:
        InputError: an option that does not exist, with the nearest one or two; a wrong value; an
            option that is missing.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    command: Callable[..., T] = functools.partial(
        tyro.cli, kind, prog=prog, use_underscores=True, registry=_REGISTRY, **given
    )
    # tyro suggests options too, in a box of ten lines or more, but not where a required one is
    # missing, which is the case when that is the one mistyped.
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return command(args=arguments)
    except SystemExit as end:
        if end.code != 2:  # --help
            raise
    options = _options(command)
    spelled = {option.replace("-", "_") for option in options}  # tyro takes - for _
    for word in arguments:
        option = re.match(r"--?[A-Za-z][^=]*", word)
        if option and option[0].replace("-", "_") not in spelled:
            raise unknown(f"no option of {prog}", option[0], options, "--help lists them all")
    raise InputError(f"{_message(box.getvalue())}; {prog} --help lists the options")


def _options(command: Callable[..., object]) -> list[str]:
    """The options of a command, from its help: tyro has no list of them to ask for."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        command(args=["--help"])
    return re.findall(r"(?<!\S)--?[a-z][\w.]*", text.getvalue())


def _message(box: str) -> str:
    """What tyro says in a box, as one line: all that is between the title and the next rule.

    The exception behind it, and the hook that would hand it over, are private to tyro.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)  # colours
    _, *parts = re.split("[─-]{5,}", plain)
    words = re.sub("[│╮]", " ", parts[0] if parts else plain).split()
    return " ".join(words).removeprefix("Error parsing ").removesuffix(".")


_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """`~` in all paths: in `--data=~/images` a shell leaves it alone."""
    if info.type is not Path:
        return None

    def read(words: list[str]) -> Path:
        try:
            return Path(words[0]).expanduser()
        except RuntimeError:
            raise ValueError(f"{words[0]}: there is no such user") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def peek(words: Sequence[str], flag: str, choices: Iterable[W]) -> W | None:
    """The value of `--flag` in a command line that has not been parsed yet, if it is a choice."""
    value = value_of(words, flag)
    return None if value is None else next((one for one in choices if one == value), None)


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of `--flag` in a command line that has not been parsed yet; None: it has none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{flag}", nargs="?", dest="value")
    return parser.parse_known_args(words)[0].value


def guarded(action: Callable[[], int], interrupted: str) -> int:
    """Runs a command's action; returns its status, 2 for bad input, 130 for Ctrl-C.

    Args:
        action: the command; returns the exit status.
        interrupted: what to say after Ctrl-C where the interrupt itself says nothing.
    """
    # Jupyter names a backend of its own environment, at which Matplotlib would fail in another.
    # Figures are written to files, which needs none.
    os.environ.pop("MPLBACKEND", None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name may have letters that the output's encoding lacks, or be no text at all. Whole
            # lines, so that none is lost where the process ends at once.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        return action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError) as error:  # a full disc, a folder that is not writable
        print(f"error: {_said(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(str(stopped) or interrupted, file=sys.stderr)
        return STATUS


def _said(error: OSError | MemoryError) -> str:
    """What an exception of Python's says, which may be nothing."""
    if isinstance(error, MemoryError):
        said = f" ({one_line(error)})" if str(error) else ""
        return (
            f"there is not enough memory{said}: take fewer or smaller images, or "
            "lower --batch_size or --image_size"
        )
    file = error.filename if error.filename2 is None else error.filename2
    said = one_line(error)
    if error.strerror and isinstance(file, str | bytes):
        said = f"{os.fsdecode(file)}: {error.strerror}"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{said}; make room, and the same command goes on" if full else said
