"""The readers by name."""

from functools import partial

from benchmarks.fuzz import class_sets, formats, pictures, trained
from benchmarks.fuzz.mutations import Mutation, generic
from benchmarks.fuzz.reader import Reader

_IMAGES = {".png": (formats.png, formats.png), ".tif": (formats.tiff,)}
_PICKLE: tuple[Mutation, ...] = (formats.pickled, formats.pickled)
_IN_ZIP: Mutation = partial(formats.zipped, formats.pickled)
_IN_TAR: Mutation = partial(formats.gzipped, partial(formats.tarred, formats.pickled))
_ANY_IN_TAR: Mutation = partial(formats.gzipped, partial(formats.tarred, generic))
_IN_GZIP: Mutation = partial(formats.gzipped, generic)

READERS = {
    "image": Reader(pictures.images, pictures.read_images, mutations=_IMAGES),
    "mask": Reader(pictures.masks, pictures.read_mask, files=("mask_*",), mutations=_IMAGES),
    "metadata": Reader(
        pictures.metadata,
        pictures.read_images,
        mutations={
            f".{kind}": (partial(pictures.damage_exif, kind),) * 9 for kind in pictures.KINDS
        },
    ),
    "checkpoint": Reader(
        trained.checkpoints,
        trained.read_checkpoint,
        mutations={"new.pth": (_IN_ZIP, _IN_ZIP, formats.set_zip_field), "legacy.pth": _PICKLE},
    ),
    "weights": Reader(
        trained.weights,
        trained.read_weights,
        mutations={".safetensors": (formats.safetensors,)},
        checked=True,
    ),
    "model": Reader(
        trained.models,
        trained.read_model,
        mutations={".adtr": (formats.safetensors,)},
        checked=True,
    ),
    "training": Reader(
        trained.training, trained.read_training, mutations={"": (formats.json_text,)}, checked=True
    ),
    "cifar": Reader(
        class_sets.cifar,
        class_sets.read_classes,
        mutations={
            ".gz": (_IN_TAR, _IN_TAR, _ANY_IN_TAR, _IN_GZIP),
            "_batch": _PICKLE,
            "batches.meta": _PICKLE,
        },
    ),
    "idx": Reader(class_sets.idx, class_sets.read_classes, mutations={".gz": (_IN_GZIP,)}),
    "zip": Reader(
        class_sets.zipped,
        class_sets.read_classes,
        mutations={".zip": (partial(formats.zipped, generic), formats.set_zip_field)},
    ),
}
