"""CIFAR-10 and CIFAR-100, prepared by TensorFlow Datasets.

Preparing them needs TensorFlow, once; the ArrayRecord files prepared here are read without it.
TFDS's default TFRecord files can only be read with TensorFlow.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adtr_jax.data.image_set import SPLITS, ImageSet, Split, by_class
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError, one_line

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Name = Literal["cifar10", "cifar100"]

_HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_INSTEAD: dict[Name, str] = {
    "cifar10": f"get cifar-10-python.tar.gz from {_HOMEPAGE} and pass --data=FILE",
    "cifar100": f"get cifar-100-python.tar.gz from {_HOMEPAGE} and pass --anomalies=FILE",
}


def read(name: Name, data_dir: Path | None = None) -> ImageSet:
    """List the images, after downloading and preparing the data set if necessary.

    Args:
        data_dir: Where TFDS keeps its data sets. Default: the environment variable TFDS_DATA_DIR,
            or ~/tensorflow_datasets.

    Raises:
        InputError: if a package is missing, or the data set cannot be downloaded or prepared, or is
            present in a format that only TensorFlow can read.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"{name} by TFDS needs {error.name}: pip install tensorflow tensorflow-datasets "
            f"importlib_resources array_record, or {_INSTEAD[name]}"
        ) from error
    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.data_path.exists():  # TFDS renames it into place when it is complete
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        _prepare(builder, name)
    try:
        return _image_set(builder)
    except NotImplementedError as error:
        raise InputError(
            f"{builder.data_path} holds files of a format that only TensorFlow can read: set "
            f"TFDS_DATA_DIR to another folder to prepare it again, or {_INSTEAD[name]}"
        ) from error


def _prepare(builder: "tfds.core.DatasetBuilder", name: Name) -> None:
    from adtr_jax.data.tfds_prepare import DOWNLOAD_ERRORS, ChecksumError, prepare

    if find_spec("tensorflow") is None:  # TFDS would only notice after the download
        raise InputError(
            f"preparing {name} by TFDS needs TensorFlow: pip install tensorflow, or "
            f"{_INSTEAD[name]}"
        )
    try:
        prepare(builder)
    except (ChecksumError, *DOWNLOAD_ERRORS, OSError) as error:
        reason = one_line(error)
        raise InputError(
            f"TFDS cannot download and prepare {name} ({reason[:200]}): try again, or "
            f"{_INSTEAD[name]}"
        ) from error


def _image_set(builder: "tfds.core.DatasetBuilder") -> ImageSet:
    import tensorflow_datasets as tfds

    from adtr_jax.data.tfds_prepare import Record

    classes = builder.info.features["label"].names
    encoded = {"image": tfds.decode.SkipDecoding()}
    files: dict[tuple[Split, str], tuple[File, ...]] = {}
    for split in SPLITS:
        source = builder.as_data_source(split, decoders=encoded)
        records = []
        for index, record in enumerate(source):
            name = record["id"].decode()
            image = Record(source, index, "image", f"TFDS's {builder.name}/{name}")
            records.append((name, image, int(record["label"])))
        # TFDS shuffles; "train_00000" and so on are the data set's own order.
        pairs = [(image, label) for _, image, label in sorted(records, key=lambda r: r[0])]
        files |= {(split, each): group for each, group in by_class(pairs, classes).items()}
    return ImageSet(f"TFDS's {builder.name}", tuple(classes), files)
