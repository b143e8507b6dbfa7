"""What all commands share: flags with suggestions for typos, one-line errors, exit statuses."""

import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from adtr_jax.errors import InputError, unknown

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """The command line as a dataclass of `kind`; a wrong value ends the process with status 2.

    Raises:
        InputError: a flag that does not exist; suggests the nearest.
    """
    words = _split(arguments)
    flags = _flags(kind, default)
    known = {flag.replace("-", "_") for flag in flags}
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag.replace("-", "_") not in known:
            raise unknown(f"no option of {prog}", flag, flags)
    if default is None:
        return tyro.cli(kind, prog=prog, args=words, use_underscores=True)
    return tyro.cli(kind, prog=prog, args=words, default=default, use_underscores=True)


def _flags(kind: type, default: object = None) -> list[str]:
    """All flags of a command, those of nested dataclasses among them.

    Where the default of a nested dataclass is of a subclass, that one's flags count, as for tyro.
    """
    flags = ["--help"]
    for field, full in typing.get_type_hints(kind, include_extras=True).items():
        marks = getattr(full, "__metadata__", ())
        name = next((mark.name for mark in marks if getattr(mark, "name", None)), field)
        hint = full
        while typing.get_origin(hint) is typing.Annotated:
            hint = typing.get_args(hint)[0]
        if tyro.conf.Positional in marks:
            continue
        if dataclasses.is_dataclass(hint):
            prefix = "" if tyro.conf.OmitArgPrefixes in marks else f"{name}."
            value = getattr(default, field, None)
            inner = _flags(type(value) if value is not None else typing.cast(type, hint))[1:]
            flags += [f"--{prefix}{flag.removeprefix('--')}" for flag in inner]
        else:
            flags += [f"--{name}", f"--no_{name}"] if hint is bool else [f"--{name}"]
    return flags


def _split(arguments: Sequence[str]) -> list[str]:
    """`--flag=value` as two words, so that every flag stands on its own."""
    words: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        is_flag = flag.startswith("--") and equals and not value.startswith("-")
        words.extend((flag, value) if is_flag else (argument,))
    return words


def guarded(action: Callable[[], int], interrupted: str) -> int:
    """Runs a command's action; returns its status, 2 for bad input, 130 for Ctrl-C.

    Args:
        action: the command; returns the exit status.
        interrupted: what to say after Ctrl-C where the interrupt itself says nothing.
    """
    try:
        return action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError) as error:  # a full disc, a folder that is not writable
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(str(stopped) or interrupted, file=sys.stderr)
        return 130
