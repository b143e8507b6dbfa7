"""A data set as published, whose folders are not named as MVTec-AD's are (see `layout`)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adtr_jax.data.layout import arrange
from adtr_jax.data.samples import Category
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError

# A category's folder -> the paths of its images and masks in it, and what they are in MVTec-AD's
# layout. What is not among them is left out.
Names = Callable[[Path], Mapping[str, str]]


def names_of(folder: Path, folders: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the names, as `Names` does, of all that lies in folders with other names.

    Args:
        folder: the category's.
        folders: "test/ok" -> "test/good". Those of masks may be missing, the others must be there.

    Raises:
        InputError: a folder of images is missing or empty.
    """
    found: dict[str, str] = {}
    for place, meaning in folders.items():
        inside = list(walk(folder / place, depth=2))
        if not inside and not meaning.startswith("ground_truth/"):
            raise InputError(f"{folder / place} is missing or empty")
        found |= {f"{place}/{name}": f"{meaning}/{name}" for name in inside}
    return found


def root(data: Path, categories: Sequence[str], title: str, homepage: str) -> Path:
    """Returns the folder of the categories: the one given, or the only one in it.

    Raises:
        InputError: neither holds any of the categories.
    """
    data = data.expanduser()
    if not data.is_dir():
        what = "is not a folder: unpack it and give the folder" if data.exists() else "is missing"
        raise InputError(f"{data} {what}; {title} is to be had from {homepage}")
    below = [data / name for name in walk(data, depth=1) if name.endswith("/") and name[0] != "."]
    for folder in (data, *below) if len(below) == 1 else (data,):
        if any((folder / name).is_dir() for name in categories):
            return folder
    raise InputError(
        f"{data} holds no category of {title} ({', '.join(categories)}): give the folder that its "
        f"archive unpacks to, which is to be had from {homepage}"
    )


def read_category(root: Path, name: str, title: str, names: Names | Mapping[str, str]) -> Category:
    """Lists the images and masks of a category; none is decoded.

    Args:
        root: the folder of all categories.
        name: the category's folder in it.
        title: the data set's, for messages.
        names: what its files are called in MVTec-AD's layout; or its folders (`names_of`).

    Raises:
        InputError: its folder is missing, or is not as published.
    """
    folder = root / name
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: unpack all of {title}'s archive there")
    try:
        named = names_of(folder, names) if isinstance(names, Mapping) else names(folder)
        original = {meaning: path for path, meaning in named.items()}
        train, test = arrange(original, where=folder.as_posix())
    except InputError as error:
        raise InputError(f"{error}; {title} as published is expected") from error

    def path(meaning: str) -> Path:
        return folder / original[meaning]

    return Category(
        name,
        train=tuple(entry.sample(path) for entry in train),
        test=tuple(entry.sample(path) for entry in test),
    ).measurable()
