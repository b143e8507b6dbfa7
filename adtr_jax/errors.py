"""The one exception that a user can cause."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: its message is one line that says what was wrong, where, and what to do.

    The commands print the message without a traceback and exit with status 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: the nearest known one, and all of them."""
    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ";"
    return f"{hint} There are: {', '.join(known)}"
