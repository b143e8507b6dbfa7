"""What all data sets by TensorFlow Datasets share: preparing them, its errors, its records.

Imported when it is needed, for TFDS is slow to load.
"""

import logging
from dataclasses import dataclass
from typing import Any

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, downloader, util

ChecksumError = download_manager.NonMatchingChecksumError
DOWNLOAD_ERRORS = (util.DownloadError, requests.RequestException)

# TFDS would try ten times, for over three minutes, before it admits that there is no network.
downloader.MAX_RETRIES = 3


@dataclass(frozen=True)
class Record:
    """A file that is kept in a prepared split: field `key` of record number `index`."""

    source: Any
    index: int
    key: str
    name: str

    def read_bytes(self) -> bytes:
        """Return the file's encoded bytes."""
        return self.source[self.index][self.key]

    def __str__(self) -> str:
        return self.name


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Download what the builder needs unless it is there, check it, and prepare it.

    Raises:
        ChecksumError, one of DOWNLOAD_ERRORS, OSError: what their names say.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    retries = logging.getLogger("urllib3.connectionpool")
    level = retries.level
    retries.setLevel(logging.ERROR)  # it warns of every retry; the error in the end says it all
    try:
        builder.download_and_prepare(download_config=config)
    finally:
        retries.setLevel(level)
