"""Names as other programs can take them."""

import re


def plain_name(text: str) -> str:
    """A file name that is nothing but a name, on every file system.

    It is the text with all but letters, digits, "-", "_" and "." made "_"; no hidden file's name;
    at most 60 characters, which are 240 bytes of UTF-8, where file systems take 255.
    """
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".-")[:60]


def drawable(text: str) -> str:
    """The text with what is no Unicode in it, as a file name may hold, as an escape."""
    return text.encode(errors="backslashreplace").decode()
