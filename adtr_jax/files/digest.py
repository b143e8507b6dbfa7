"""SHA-256 of what is written, kept beside it and checked when it is read: damage is never silent.

A file of which every bit counts holds its own digest, 64 hexadecimal digits, in a place that its
format has for text: that of the file with `BLANK` there. A folder has a file of digests.
"""

import hashlib
import json
from pathlib import Path

BLANK = "the SHA-256 of this file with these words in its place".ljust(64, ".")
FOLDER = "sha256.json"  # of a folder: the digests of all other files in it, by their paths


def sealed(content: bytes) -> bytes:
    """Returns the content of a file with its digest filled in.

    Raises:
        ValueError: `BLANK` is not there exactly once.
    """
    if content.count(BLANK.encode()) != 1:
        raise ValueError("a file has one place for its digest")
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(BLANK.encode(), digest.encode())


def seal(path: Path) -> None:
    """Fills in the digest of a file that is not in use yet; raises ValueError as `sealed`."""
    path.write_bytes(sealed(path.read_bytes()))


def is_intact(content: bytes, digest: str) -> bool:
    """Returns whether the content of a file is what was written, with this digest in it."""
    view, place = memoryview(content), content.find(digest.encode())
    found = hashlib.sha256(view[: max(place, 0)])
    found.update(BLANK.encode())
    found.update(view[place + len(BLANK) :])
    return place >= 0 and found.hexdigest() == digest


def seal_folder(folder: Path) -> None:
    """Writes the digests of all files in a folder that is not in use yet."""
    (folder / FOLDER).write_text(json.dumps(_digests(folder), indent=1) + "\n")


def damage_of(folder: Path) -> str | None:
    """Returns what is wrong with a folder that was sealed; None: it is what was written."""
    try:
        written = json.loads((folder / FOLDER).read_bytes())
        found = _digests(folder)
    except (OSError, ValueError) as error:
        return f"its digests cannot be read ({error})"
    if not isinstance(written, dict):
        return f"{FOLDER} holds no digests"
    changed = sorted(name for name in written | found if written.get(name) != found.get(name))
    return f"{changed[0]} is not what was written" if changed else None


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / FOLDER:
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return digests
