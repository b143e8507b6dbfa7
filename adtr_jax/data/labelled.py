"""The user's own anomalies for ADTR+: images with masks (Eq. 7) or without (Eq. 9).

    DIR/test/DEFECT/*                       the layout of a category, with or without masks:
    DIR/ground_truth/DEFECT/STEM_mask.png   see `layout`
    DIR/DEFECT/*                            without masks, one folder per defect type
    DIR/*                                   without masks, defect type "anomaly"

Nothing is decoded here.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from adtr_jax.data.encoded import read_bytes
from adtr_jax.data.layout import IMAGE_SUFFIXES, Entry, Listing, arrange_anomalies
from adtr_jax.data.samples import GOOD, Category, File, Sample
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError

_DEFECT = "anomaly"


def read_anomalies(folder: Path, masks: Path | None = None) -> tuple[Sample, ...]:
    """List anomalous images in one of the layouts above, and their masks where there are any.

    Args:
        masks: a folder of masks, in place of ground_truth: of NAME.png, NAME.* or NAME_mask.*, at
            any depth.

    Returns:
        Samples sorted by name.

    Raises:
        InputError: if the folder does not exist, or holds no images, normal images or other files;
            if `masks` holds no mask of any of them, or two of one; or as in `layout.arrange`.
    """
    folder = folder.expanduser()
    where = folder.as_posix()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{where} {what}: give a folder of anomalous images")
    names = list(walk(folder, depth=4))
    if "test/" in names:
        inside = [name for name in names if name.startswith(("test/", "ground_truth/"))]
        entries = arrange_anomalies(inside, where)
    else:
        entries = _without_masks(Listing.of(names, where))
    samples = tuple(entry.sample(folder.joinpath) for entry in entries)
    return samples if masks is None else _with_masks(samples, masks)


def _with_masks(samples: Sequence[Sample], folder: Path) -> tuple[Sample, ...]:
    """The samples with the masks in a folder, where it has one."""
    if not folder.is_dir():
        raise InputError(f"--masks={folder} is not a folder: give the folder of the masks")
    by_stem: dict[str, list[Path]] = {}
    for name in walk(folder, depth=3):
        path = folder / name
        if not name.endswith("/") and path.suffix.lower() in IMAGE_SUFFIXES:
            by_stem.setdefault(path.stem.removesuffix("_mask"), []).append(path)
    paired = []
    for sample in samples:
        found = by_stem.get(Path(sample.name).stem, [])
        if len(found) > 1:
            raise InputError(f"{sample.image} has two masks, {found[0]} and {found[1]}: keep one")
        paired.append(dataclasses.replace(sample, mask=found[0] if found else None))
    if all(sample.mask is None for sample in paired):
        raise InputError(
            f"--masks={folder} holds no mask of any defect: that of {samples[0].image} is to be "
            f"named {Path(samples[0].name).stem}.png or {Path(samples[0].name).stem}_mask.png"
        )
    return tuple(paired)


def require_all_or_no_masks(defects: Sequence[Sample]) -> None:
    """Raises InputError if only some of the defects have a mask."""
    bare = [sample for sample in defects if sample.mask is None]
    if 0 < len(bare) < len(defects):
        raise InputError(
            f"{bare[0].image} has no mask while other defects have: pixels are measured on all "
            "defects or on none, so add it or leave the masks out"
        )


def without(category: Category, anomalies: Sequence[Sample]) -> Category:
    """Remove the images that are trained on as anomalies from a category's test images.

    They are recognised by their bytes, so the anomalies may be copies of a few test images.

    Raises:
        InputError: if an anomaly is also a normal test image, no anomalous test image remains, or a
            file cannot be read.
    """
    by_digest = {_digest(sample.image): sample for sample in anomalies}
    kept = []
    for sample in category.test:
        twin = by_digest.get(_digest(sample.image))
        if twin is None:
            kept.append(sample)
        elif sample.label == 0:
            raise InputError(
                f"{twin.image} is given as an anomaly, but it is the same as the normal test image "
                f"{sample.image}: remove one of them"
            )
    if not any(sample.label for sample in kept):
        raise InputError(
            f"every anomalous test image of {category.name} is among the anomalies to learn from: "
            "leave some of them to the test"
        )
    return dataclasses.replace(category, test=tuple(kept))


def _without_masks(listing: Listing) -> list[Entry]:
    where = listing.where
    defects = listing.folders[""]
    for name, use in (
        (GOOD, "normal images"),
        ("train", "normal images"),
        ("ground_truth", "masks"),
    ):
        if name in defects:
            raise InputError(
                f"{where}/{name} holds {use}, not anomalous images: put anomalous images into "
                f"{where}/test/DEFECT, and masks into {where}/ground_truth/DEFECT"
            )
    if defects and listing.files[""]:
        raise InputError(
            f"{where}/{listing.files[''][0]} lies beside folders: move it into one of them"
        )
    if not defects:
        return [Entry(name, _DEFECT) for name in _images(listing, "")]
    return [
        Entry(f"{defect}/{name}", defect) for defect in defects for name in _images(listing, defect)
    ]


def _images(listing: Listing, folder: str) -> list[str]:
    names = listing.images(folder)
    stems = {PurePosixPath(name).stem for name in names}
    for name in names:
        stem = PurePosixPath(name).stem
        if stem.endswith("_mask") and stem.removesuffix("_mask") in stems:
            raise InputError(
                f"{listing.where}/{PurePosixPath(folder) / name} seems to be a mask: put images "
                f"into {listing.where}/test/DEFECT, and masks into {listing.where}/ground_truth/"
                "DEFECT"
            )
    return names


def _digest(file: File) -> bytes:
    return hashlib.sha256(read_bytes(file)).digest()
