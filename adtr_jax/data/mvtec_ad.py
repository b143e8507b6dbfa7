"""MVTec-AD: downloaded, checked and prepared by TensorFlow Datasets (without TensorFlow).

Licence: CC BY-NC-SA 4.0. Source: Bergmann et al., "MVTec AD - A Comprehensive Real-World Dataset
for Unsupervised Anomaly Detection", CVPR 2019.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adtr_jax.data.samples import Category
from adtr_jax.errors import InputError, unknown

if TYPE_CHECKING:
    from adtr_jax.data.mvtec_ad_builder import MvtecAd

HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"

CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)


@dataclass(frozen=True)
class Archive:
    """The file to download: address, size in bytes, and SHA-256 in hexadecimal."""

    url: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


# MVTec moves the file now and then: the address may change, the file may not.
ARCHIVE = Archive(
    url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/"
    "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
    size=5_264_982_680,
    sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
)


def read_category(category: str, data_dir: Path | None = None) -> Category:
    """List the images and masks of one category, after downloading the archive if need be.

    The first call downloads 5.3 GB into `data_dir`/downloads, with progress, and checks the
    SHA-256; the first call for a category copies its images out of the archive. The archive is
    also taken from `data_dir`/downloads/manual if it lies there.

    Args:
        category: One of `CATEGORIES`.
        data_dir: Where TFDS keeps its data sets; None is TFDS's own default, the environment
            variable TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        InputError: if there is no such category, tensorflow-datasets is not installed, the archive
            cannot be downloaded or written, or is not the expected one.
    """
    if category not in CATEGORIES:
        raise unknown("no category of MVTec-AD", category, CATEGORIES)
    try:
        # Takes half a second, and those who bring their own folder do without.
        from adtr_jax.data import mvtec_ad_builder as tfds_side
    except ImportError as error:
        raise InputError(
            f"preparing MVTec-AD needs {error.name}: pip install tensorflow-datasets "
            "importlib_resources array_record, or unpack the archive yourself and pass --data=DIR"
        ) from error
    builder = tfds_side.builder_of(category, data_dir)
    if not builder.data_path.exists():  # TFDS renames it into place when it is complete
        _prepare(builder)
    return tfds_side.read(builder)


def _prepare(builder: "MvtecAd") -> None:
    from adtr_jax.data import mvtec_ad_builder as tfds_side

    downloads = Path(builder.data_dir_root) / "downloads"
    by_hand = (
        f"download {ARCHIVE.file_name} from {HOMEPAGE} by hand, then unpack it and pass "
        f"--data=DIR, or put it into {downloads / 'manual'}"
    )
    try:
        tfds_side.prepare(builder)
    except tfds_side.ChecksumError as error:
        raise InputError(
            f"{ARCHIVE.file_name} from {ARCHIVE.url} is not the expected file (SHA-256 "
            f"{ARCHIVE.sha256[:8]}...): delete it from {downloads} and try again, or {by_hand}"
        ) from error
    except tfds_side.DOWNLOAD_ERRORS as error:
        raise InputError(f"cannot download {ARCHIVE.url} ({_brief(error)}): {by_hand}") from error
    except OSError as error:
        raise InputError(
            f"cannot prepare MVTec-AD in {downloads.parent} ({_brief(error)}): make room for "
            f"11 GB, or set TFDS_DATA_DIR to another folder, or {by_hand}"
        ) from error


def _brief(error: BaseException) -> str:
    """Return the innermost cause's message in one line, for requests nests several."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__
