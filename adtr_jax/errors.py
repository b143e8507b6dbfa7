"""The one exception that a user can cause."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input: its message is one line that says what was wrong, where, and what to do.

    The commands print the message without a traceback and exit with status 2.
    """


class Stopped(KeyboardInterrupt):
    """The run was interrupted and saved; the same command goes on with it."""


def unknown(what: str, word: str, known: Iterable[str]) -> InputError:
    """The error about a word that is none of the known ones: the nearest, and all there are.

    Args:
        what: the start of the message: `no backbone`, `no category in runs/data`.
        word: what the user wrote.
        known: what there is.
    """
    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    return InputError(f"{what} is called {word}: {hint}There are: {', '.join(known)}")
