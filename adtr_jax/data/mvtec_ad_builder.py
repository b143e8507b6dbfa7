"""The TFDS builder of MVTec-AD, imported by `mvtec_ad` on use, because TFDS is slow to load.

TFDS prepares and reads it without TensorFlow because the features are the files' encoded bytes
(writing image features would need TensorFlow) in ArrayRecord files. Extraction by TFDS would also
need TensorFlow, so each category is read from the archive as a stream: that takes no disk space,
and one or two minutes of decompression per category, once.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tqdm.auto import tqdm

from adtr_jax.data import mvtec_ad_archive as published
from adtr_jax.data.layout import TOP_FOLDERS, Entry, arrange
from adtr_jax.data.samples import Category, Sample
from adtr_jax.data.tfds_prepare import Record


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """MVTec-AD for TFDS: one configuration per category, splits train and test.

    Features, all as bytes: name ("test/crack/003.png"), defect ("crack", "good"), image and mask
    (the encoded files; the mask is empty for a normal image).
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in published.CATEGORIES)

    @property
    def url_infos(self) -> dict[str, checksums.UrlInfo]:
        """The archive's size and SHA-256, which TFDS checks."""
        archive = published.ARCHIVE
        info = checksums.UrlInfo(archive.size, archive.sha256, archive.file_name)
        return {archive.url: info}

    def _info(self) -> tfds.core.DatasetInfo:
        encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs of industrial parts and textures, normal and defective.",
            homepage=published.HOMEPAGE,
            license="CC BY-NC-SA 4.0",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "defect": tfds.features.Text(),
                    "image": encoded,
                    "mask": encoded,
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        category = self.builder_config.name
        files = _read_archive(Path(dl_manager.download(published.ARCHIVE.url)), category)
        train, test = arrange(files, where=f"{published.ARCHIVE.file_name}/{category}")
        return {
            "train": self._generate_examples(train, files),
            "test": self._generate_examples(test, files),
        }

    def _generate_examples(
        self, entries: list[Entry], files: dict[str, bytes]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for entry in entries:
            yield (
                entry.name,
                {
                    "name": entry.name,
                    "defect": entry.defect,
                    "image": files[entry.name],
                    "mask": files[entry.masks[0]] if entry.masks else b"",
                },
            )


def builder_of(category: str, data_dir: Path | None) -> MvtecAd:
    """Return the builder of one category; nothing is downloaded."""
    return MvtecAd(config=category, data_dir=data_dir, file_format="array_record")


def read(builder: MvtecAd) -> Category:
    """Return the samples of a prepared builder's category."""
    return Category(
        builder.builder_config.name,
        train=_samples(builder, "train"),
        test=_samples(builder, "test"),
    )


def _samples(builder: MvtecAd, split: str) -> tuple[Sample, ...]:
    source = builder.as_data_source(split)
    where = f"MVTec-AD's {builder.builder_config.name}"
    samples = []
    for index, record in enumerate(source):
        name, defect = record["name"].decode(), record["defect"].decode()
        image = Record(source, index, "image", f"{where}/{name}")
        mask = Record(source, index, "mask", f"{where}/{name} (mask)") if record["mask"] else None
        samples.append(Sample(name, image, defect, mask))
    return tuple(sorted(samples, key=lambda sample: sample.name))


def _read_archive(archive: Path, category: str) -> dict[str, bytes]:
    """Return a category's files by path relative to its folder: 0.35 GB on average."""
    files = {}
    with archive.open("rb") as raw:
        progress = tqdm.wrapattr(
            raw, "read", total=archive.stat().st_size, desc=f"Reading {category}", leave=False
        )
        with progress as stream, tarfile.open(fileobj=stream, mode="r|xz") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                start = parts.index(category) + 1 if category in parts else len(parts)
                content = tar.extractfile(member)
                if content is not None and parts[start : start + 1] and parts[start] in TOP_FOLDERS:
                    files["/".join(parts[start:])] = content.read()
    return files
