"""File names that are nothing but names, on every file system."""

import re


def plain_name(text: str) -> str:
    """The text with all but letters, digits, "-", "_" and "." made "_"; no hidden file's name.

    At most 60 characters, which are 240 bytes of UTF-8, where file systems take 255.
    """
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".-")[:60]
