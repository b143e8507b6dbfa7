"""Preparation, errors and records common to all data sets from TensorFlow Datasets.

Imported on use, because TFDS is slow to load.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, downloader, util

from adtr_jax.files.download import PATIENCE

ChecksumError = download_manager.NonMatchingChecksumError
DOWNLOAD_ERRORS = (util.DownloadError, requests.RequestException)

# TFDS's default of ten takes over three minutes to report that there is no network, and where a
# server stalls it waits for ever.
downloader.MAX_RETRIES = 3
downloader._open_url = partial(downloader._open_url, timeout=PATIENCE.timeout)


@dataclass(frozen=True)
class Record:
    """An encoded file in a prepared split: field `key` of record `index`."""

    source: Any
    index: int
    key: str
    name: str

    def read_bytes(self) -> bytes:
        return self.source[self.index][self.key]

    def __str__(self) -> str:
        return self.name


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Download the builder's data unless present, check it, and prepare it.

    Raises ChecksumError, one of `DOWNLOAD_ERRORS`, or OSError.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    retries = logging.getLogger("urllib3.connectionpool")
    level = retries.level
    retries.setLevel(logging.ERROR)  # it warns of every retry; the final error suffices
    try:
        builder.download_and_prepare(download_config=config)
    finally:
        retries.setLevel(level)
