"""MVTec-AD: downloaded, checked and prepared by TensorFlow Datasets (without TensorFlow).

Licence: CC BY-NC-SA 4.0. Source: Bergmann et al., "MVTec AD - A Comprehensive Real-World Dataset
for Unsupervised Anomaly Detection", CVPR 2019.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from adtr_jax.data import mvtec_ad_archive
from adtr_jax.data.samples import Category
from adtr_jax.errors import InputError, one_line, unknown
from adtr_jax.files.download import downloaded

if TYPE_CHECKING:
    from adtr_jax.data.mvtec_ad_builder import MvtecAd


def read_category(category: str, data_dir: Path | None = None) -> Category:
    """List the images and masks of one category, after downloading the archive if necessary.

    The first call downloads 5.3 GB into `data_dir`/downloads, with a progress bar, and checks the
    SHA-256; the first call for a category copies its images out of the archive. An archive in
    `data_dir`/downloads/manual is used instead of a download.

    Args:
        data_dir: Where TFDS keeps its data sets. Default: the environment variable TFDS_DATA_DIR,
            or ~/tensorflow_datasets.

    Raises:
        InputError: if there is no such category, tensorflow-datasets is not installed, or the
            archive cannot be downloaded or written, or is not the expected one.
    """
    if category not in mvtec_ad_archive.CATEGORIES:
        raise unknown("no category of MVTec-AD", category, mvtec_ad_archive.CATEGORIES)
    try:
        # Takes half a second, and is not needed for the user's own folders.
        from adtr_jax.data import mvtec_ad_builder
    except ImportError as error:
        raise InputError(
            f"preparing MVTec-AD needs {error.name}: pip install tensorflow-datasets "
            "importlib_resources array_record, or unpack the archive yourself and pass --data=DIR"
        ) from error
    builder = mvtec_ad_builder.builder_of(category, data_dir)
    if not builder.data_path.exists():  # TFDS renames it into place when it is complete
        _prepare(builder)
    return mvtec_ad_builder.read(builder)


def _prepare(builder: "MvtecAd") -> None:
    from adtr_jax.data import tfds_prepare

    archive = mvtec_ad_archive.ARCHIVE
    downloads = Path(builder.data_dir_root) / "downloads"
    by_hand = (
        f"download {archive.file_name} from {mvtec_ad_archive.HOMEPAGE} by hand, then unpack it "
        f"and pass --data=DIR, or put it into {downloads / 'manual'}"
    )
    try:
        _download(downloads, by_hand)
        tfds_prepare.prepare(builder)
    except tfds_prepare.ChecksumError as error:
        raise InputError(
            f"{archive.file_name} from {archive.url} is not the expected file (SHA-256 "
            f"{archive.sha256[:8]}...): delete it from {downloads} and try again, or {by_hand}"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot prepare MVTec-AD in {downloads.parent} ({_brief(error)}): make room for "
            f"11 GB, or set TFDS_DATA_DIR to another folder, or {by_hand}"
        ) from error


def _download(downloads: Path, by_hand: str) -> None:
    """Downloads the archive, unless it is there, to where TFDS looks for one put there by hand.

    TFDS's own downloader waits for ever where a server stalls, and begins anew where it breaks off.
    """
    archive = mvtec_ad_archive.ARCHIVE
    manual = downloads / "manual"
    manual.mkdir(parents=True, exist_ok=True)
    target = manual / archive.file_name
    # What TFDS has downloaded itself has a name of its own.
    if target.exists() or any(path.stat().st_size == archive.size for path in downloads.iterdir()):
        return
    part = manual / f".{archive.file_name}.part"
    with downloaded(archive.url, part, limit=archive.size, remedy=by_hand) as path:
        path.rename(target)


def _brief(error: BaseException) -> str:
    """Return the innermost cause's message in one line, because requests nests several."""
    while error.__context__ is not None:
        error = error.__context__
    return one_line(error)
