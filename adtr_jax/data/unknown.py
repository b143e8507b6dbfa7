"""The error for a category that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from adtr_jax.errors import InputError


def unknown_category(name: str, known: Iterable[str], where: str) -> InputError:
    """Return the error that names the nearest of the `known` categories and lists them all."""
    known = sorted(known)
    nearest = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return InputError(f"no category {name!r} in {where}: {hint}There are: {', '.join(known)}")
