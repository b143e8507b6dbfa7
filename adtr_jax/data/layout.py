"""The layout of MVTec-AD: the images of a category, and the mask of each.

    CATEGORY/train/good/*                           normal training images
    CATEGORY/test/good/*                            normal test images
    CATEGORY/test/DEFECT/*                          anomalous images, one folder per defect type
    CATEGORY/test/*                                 without folders: it is unknown which are normal
    CATEGORY/ground_truth/DEFECT/STEM_mask.png      the mask of test/DEFECT/STEM.*
    CATEGORY/ground_truth/DEFECT/STEM/*             or its masks, where there are several

Only the training images must be there.

Works on names alone, so that the same rules apply to folders and archives.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adtr_jax.data.mask_union import MaskUnion
from adtr_jax.data.samples import GOOD, Sample
from adtr_jax.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TOP_FOLDERS = ("train", "test", "ground_truth")
# Of systems and network drives, which put them everywhere: what is in them are no images of the
# user's, but thumbnails, for instance. Those that are hidden begin with a dot.
SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found")

# Files that may accompany images. Any other type is an error, so that images of an unsupported type
# are not left out silently.
_COMPANIONS = (".txt", ".md", ".csv", ".json", ".xml", ".yaml", ".yml", ".html", ".db", ".ini")


@dataclass(frozen=True)
class Entry:
    """An image: its name and its masks', relative to the category's folder."""

    name: str
    defect: str | None
    masks: tuple[str, ...] = ()

    def sample(self, path: Callable[[str], Path]) -> Sample:
        """The sample, given what finds a name's file."""
        masks = tuple(map(path, self.masks))
        mask = MaskUnion(masks) if len(masks) > 1 else next(iter(masks), None)
        return Sample(self.name, path(self.name), self.defect, mask)


@dataclass(frozen=True)
class Listing:
    """The visible content of a folder: files and subfolders by path, without `SYSTEM_FOLDERS`.

    Attributes:
        where: The folder, for messages.
        files: Path relative to the folder ("" is itself) -> sorted names of files.
        folders: As `files`, the names of the subfolders.
    """

    where: str
    files: dict[str, list[str]]
    folders: dict[str, list[str]]

    @classmethod
    def of(cls, names: Iterable[str], where: str) -> "Listing":
        """Sort paths into folders; hidden files and companions of images are left out.

        Args:
            names: Paths relative to the folder, with "/" separators; those of folders end with "/".
        """
        files: dict[str, list[str]] = {"": []}
        folders: dict[str, list[str]] = {"": []}
        for name in sorted(names):
            path = PurePosixPath(name)
            if any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.parts):
                continue
            above = path.parts if name.endswith("/") else path.parts[:-1]
            for depth in range(len(above) + 1):
                folder = "/".join(above[:depth])
                files.setdefault(folder, [])
                subfolders = folders.setdefault(folder, [])
                if above[depth:] and above[depth] not in subfolders:
                    subfolders.append(above[depth])
            if not name.endswith("/") and path.suffix.lower() not in _COMPANIONS:
                files["/".join(above)].append(path.name)
        return cls(where, files, folders)

    def images(self, folder: str) -> list[str]:
        """Return the sorted file names in `folder`, which must hold only images.

        Raises:
            InputError: if it is missing or empty, or holds folders or files of another type.
        """
        place = f"{self.where}/{folder}" if folder else self.where
        if folder not in self.files:
            raise InputError(f"{place} is missing: a category needs the folder {folder} of images")
        if self.folders[folder]:
            raise InputError(
                f"{place}/{self.folders[folder][0]} is a folder where images were expected: "
                f"move its images into {place}"
            )
        for name in self.files[folder]:
            if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
                kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
                raise InputError(
                    f"{place}/{name} has an unknown file type: convert it ({kinds}) or move it away"
                )
        if not self.files[folder]:
            raise InputError(f"{place} holds no images: put images there, or remove the folder")
        return self.files[folder]

    def types(self, top: str) -> list[str]:
        """Return the folders in `top`; raises InputError if files lie directly in it."""
        if self.files.get(top):
            raise InputError(
                f"{self.where}/{top}/{self.files[top][0]} lies directly in {top}: "
                "move it into one of the folders there"
            )
        return self.folders.get(top, [])


def arrange(names: Iterable[str], where: str) -> tuple[list[Entry], list[Entry]]:
    """Sort a category's files into training and test images, and pair the masks.

    Args:
        names: Paths relative to the category's folder, with "/" separators; those of folders end
            with "/". Hidden files, text files and `SYSTEM_FOLDERS` are ignored.
        where: The category's folder, for messages.

    Returns:
        The entries of train/good and those of test, each sorted by name; of test there may be none,
        or none of anomalous images. Normal images have no mask, even if ground_truth/good exists.
        Without any masks, no entry has one.

    Raises:
        InputError: if a folder is empty or spelled with other capitals, train/good is missing, or
            test/good beside anomalous images; if a file is of an unknown type or misplaced, a mask
            has no image, an image has two masks, or only some anomalous images have a mask.
    """
    listing = Listing.of(names, where)
    require_spelling(listing)
    listing.types("train")
    train = [Entry(f"train/{GOOD}/{n}", GOOD) for n in listing.images(f"train/{GOOD}")]
    if listing.files.get("test") and not listing.folders["test"]:
        _pair_all(listing, {})  # raises where there are masks
        return train, [Entry(f"test/{name}", None) for name in listing.images("test")]
    images = {defect: listing.images(f"test/{defect}") for defect in listing.types("test")}
    if images and GOOD not in images:
        raise InputError(
            f"{where}/test/{GOOD} is missing: the test needs normal images, too; where it is "
            "unknown which are normal, put all images into test itself"
        )
    entries = _entries(listing, images)
    for entry in entries:
        if entry.defect != GOOD and not entry.masks and any(other.masks for other in entries):
            raise InputError(
                f"{where}/{entry.name} has no mask while other images have: add ground_truth/"
                f"{entry.defect}/{PurePosixPath(entry.name).stem}_mask.png, or remove the image"
            )
    return train, entries


def arrange_anomalies(names: Iterable[str], where: str) -> list[Entry]:
    """Pair images and masks as `arrange` does, in a folder of anomalous images only.

    Returns:
        The entries of test, sorted by name; some may have a mask and others not.

    Raises:
        InputError: as in `arrange`, and if there are normal images or no anomalous ones.
    """
    listing = Listing.of(names, where)
    require_spelling(listing)
    images = {defect: listing.images(f"test/{defect}") for defect in listing.types("test")}
    if GOOD in images:
        raise InputError(
            f"{where}/test/{GOOD} holds normal images where anomalous ones are expected: "
            "move it away, or give another folder"
        )
    if not images:
        raise InputError(f"{where}/test holds no images: put anomalous ones into test/DEFECT")
    return _entries(listing, images)


def require_spelling(listing: Listing) -> None:
    """Raises InputError where a folder that has a meaning is spelled with other capitals."""
    meant = {"": TOP_FOLDERS, **dict.fromkeys(TOP_FOLDERS, (GOOD,))}
    for above, names in meant.items():
        for found in listing.folders.get(above, ()):
            name = found.lower()
            if name in names and found != name:
                place = f"{listing.where}/{above}/" if above else f"{listing.where}/"
                raise InputError(
                    f"{place}{found} is taken for {name} only if it is spelled so: rename it to "
                    f"{place}{name}"
                )


def _entries(listing: Listing, images: dict[str, list[str]]) -> list[Entry]:
    masks = _pair_all(listing, images)
    return [
        Entry(f"test/{defect}/{name}", defect, masks.get(f"{defect}/{name}", ()))
        for defect in images
        for name in images[defect]
    ]


@dataclass(frozen=True)
class _Mask:
    """What is drawn of one image: a file, or a folder of several."""

    name: str
    stem: str
    files: tuple[str, ...]


def _masks(listing: Listing, place: str) -> list[_Mask]:
    """Return the masks in a folder, sorted by name."""
    several = listing.folders[place]
    if not several:
        images = listing.images(place)
        return [_Mask(n, PurePosixPath(n).stem, (f"{place}/{n}",)) for n in images]
    if listing.files[place]:
        raise InputError(
            f"{listing.where}/{place}/{listing.files[place][0]} lies beside folders: put it into "
            "one named after its image, as the others are"
        )
    return [
        _Mask(name, name, tuple(f"{place}/{name}/{n}" for n in listing.images(f"{place}/{name}")))
        for name in several
    ]


def _pair_all(listing: Listing, images: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return {"DEFECT/image file": ("ground_truth/DEFECT/mask file", ...)} of those with masks."""
    pairs: dict[str, tuple[str, ...]] = {}
    for defect in listing.types("ground_truth"):
        if defect == GOOD:
            continue
        masks = _masks(listing, f"ground_truth/{defect}")
        if defect not in images:
            raise InputError(
                f"{listing.where}/ground_truth/{defect}/{masks[0].name} is a mask without an "
                f"image: there is no folder {listing.where}/test/{defect}"
            )
        for name, mask in _pair(defect, images[defect], masks, listing.where).items():
            pairs[f"{defect}/{name}"] = mask.files
    return pairs


def _pair(defect: str, images: list[str], masks: list[_Mask], where: str) -> dict[str, _Mask]:
    by_stem: dict[str, str] = {}
    for name in images:
        stem = PurePosixPath(name).stem
        if stem in by_stem:
            raise InputError(
                f"{where}/test/{defect}/{name} and {by_stem[stem]} differ only in their ending, so "
                "masks cannot be told apart: rename one of them and its mask"
            )
        by_stem[stem] = name
    pairs: dict[str, _Mask] = {}
    for mask in masks:
        short = mask.stem.removesuffix("_mask")
        image = by_stem.get(short) or by_stem.get(mask.stem)
        if image is None:
            raise InputError(
                f"{where}/ground_truth/{defect}/{mask.name} is a mask without an image: there is "
                f"no {short} in {where}/test/{defect}"
            )
        if image in pairs:
            raise InputError(
                f"{where}/test/{defect}/{image} has two masks, {pairs[image].name} and "
                f"{mask.name}: keep one of them, or put both into ground_truth/{defect}/"
                f"{PurePosixPath(image).stem}"
            )
        pairs[image] = mask
    return pairs
