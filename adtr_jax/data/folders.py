"""Folders in MVTec layout (see `layout`), one folder per category."""

import os
from pathlib import Path

from adtr_jax.data.layout import TOP_FOLDERS, Listing, arrange, require_spelling
from adtr_jax.data.samples import GOOD, Category
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError, unknown


def categories(root: Path) -> list[str]:
    """Return the sorted names of the folders in `root` that hold a train/good.

    Raises:
        InputError: if `root` does not exist, is not a folder, is itself a category, or holds none.
    """
    root = root.expanduser()
    if not root.exists():
        raise InputError(f"{root} does not exist: give the folder that holds the categories")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the categories")
    if _is_category(root):
        absolute = root.resolve()
        raise InputError(
            f"{root} is itself a category: give the folder above it, "
            f"--data={absolute.parent} --category={absolute.name}"
        )
    found = _categories_in(root)
    if not found:
        for folder in (root, *_folders_in(root)):
            require_spelling(Listing.of(walk(folder, depth=2), folder.as_posix()))
        below = [child for child in _folders_in(root) if _categories_in(child)]
        hint = f"use {below[0]}, which does" if below else "a category has images in train/good"
        raise InputError(f"{root} holds no category in MVTec layout: {hint}")
    return found


def read_category(root: Path, category: str) -> Category:
    """List the images and masks of the category's folder in `root`; none is decoded.

    Raises:
        InputError: as in `categories` and `layout.arrange`, and if there is no such category.
    """
    known = categories(root)
    folder = root.expanduser() / category
    if category not in known:
        if folder in _folders_in(root.expanduser()) and folder.name == category:
            require_spelling(Listing.of(walk(folder, depth=2), folder.as_posix()))
            raise InputError(f"{folder}/train/{GOOD} is missing: put normal images there")
        raise unknown(f"no category in {root}", category, known)
    names = [n for n in walk(folder, depth=4) if n.partition("/")[0].lower() in TOP_FOLDERS]
    train, test = arrange(names, where=folder.as_posix())
    return Category(
        category,
        train=tuple(entry.sample(folder.joinpath) for entry in train),
        test=tuple(entry.sample(folder.joinpath) for entry in test),
    )


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"cannot list {folder}: {error.strerror}; check the permissions"
        ) from error


def _is_category(folder: Path) -> bool:
    # Unlike Path.is_dir, False where access is denied (lost+found on a data disk).
    return os.path.isdir(folder / "train" / GOOD)


def _folders_in(root: Path) -> list[Path]:
    return [
        child
        for child in _children(root)
        if not child.name.startswith(".") and child.is_dir() and os.access(child, os.R_OK | os.X_OK)
    ]


def _categories_in(root: Path) -> list[str]:
    return [child.name for child in _folders_in(root) if _is_category(child)]
