"""The one exception that a user can cause."""

import difflib
import functools
from collections.abc import Iterable

_LISTED = 20  # names that a message lists at most


class InputError(Exception):
    """Bad input: its message is one line that says what was wrong, where, and what to do.

    The commands print the message without a traceback and exit with status 2.
    """


class Stopped(KeyboardInterrupt):
    """The run was interrupted and saved; the same command goes on with it."""


def one_line(error: object) -> str:
    """What an exception says, in one line; the name of its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def unknown(what: str, word: str, known: Iterable[str], listed: str = "") -> InputError:
    """The error about a word that is none of the known ones: the nearest one or two, and all.

    Args:
        what: the start of the message: `no backbone`, `no category in runs/data`.
        word: what the user wrote.
        known: what there is.
        listed: what lists them all. If it is empty, the message does, or begins to.
    """
    known = list(known)
    bare = {name.lstrip("-"): name for name in known}  # the dashes of all options are alike
    written = word.lower().lstrip("-")
    near = functools.partial(difflib.get_close_matches, written, bare)
    close = near(n=2, cutoff=0.8)
    if not close:  # `lite2` is far from `efficientnet-lite2`, but a part of it alone
        longer = [name for name in bare if written in name]
        close = longer if 1 <= len(longer) <= 2 else near(n=1, cutoff=0.55)
    hint = f"did you mean {' or '.join(bare[name] for name in close)}? " if close else ""
    if not listed:
        rest = f", ... ({len(known)} in all)" if len(known) > _LISTED else ""
        listed = f"There are: {', '.join(known[:_LISTED])}{rest}"
    return InputError(f"{what} is called {word}: {hint}{listed}")
