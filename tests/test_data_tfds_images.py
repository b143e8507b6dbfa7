"""CIFAR by TFDS: reading what is prepared, without TensorFlow; and what to do where it is not."""

import io
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import Sample, cifar, load_images, tfds_images
from adtr_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stands for TFDS's builder, with the same features: 20 images a split, of ten classes."""

    VERSION = tfds.core.Version("3.0.2")

    def _info(self) -> Any:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=list(cifar.CLASSES)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(0), "test": self._generate_examples(20)}

    def _generate_examples(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(20):
            yield (
                index,
                {
                    "id": f"{'test' if start else 'train'}_{index:05d}",
                    "image": png(IMAGES[start + index]),
                    "label": index % 10,
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared CIFAR-10 of 40 images."""
    root = tmp_path_factory.mktemp("tfds")
    Cifar10(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def test_a_prepared_data_set_is_read_in_its_own_order(prepared: Path) -> None:
    images = tfds_images.read("cifar10", prepared)
    assert images.classes == cifar.CLASSES
    for label, name in enumerate(cifar.CLASSES):
        for split, start in (("train", 0), ("test", 20)):
            files = images.of(split, name)
            loaded = load_images([Sample("", file, "") for file in files], 32)
            np.testing.assert_array_equal(loaded, IMAGES[start : start + 20][label::10])
    assert str(images.of("test", "cat")[1]) == "TFDS's cifar10/test_00013"
    assert "tensorflow" not in sys.modules


def test_categories_are_read_from_where_tfds_keeps_them(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tfds_images.read
    monkeypatch.setattr(tfds_images, "read", lambda name: read(name, prepared))
    category = cifar.read_category("cat", None, seed=0)
    np.testing.assert_array_equal(load_images(category.train, 32), IMAGES[3:20:10])
    assert [sample.label for sample in category.test].count(1) == 2
    assert len(cifar.read_known_anomalies(["dog"], None, 1, seed=0)) == 1


def error_of(name: Any, data_dir: Path) -> str:
    with pytest.raises(InputError) as caught:
        tfds_images.read(name, data_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("name", "flag"), [("cifar10", "--data"), ("cifar100", "--anomalies")])
def test_preparing_needs_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flag: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert error_of(name, tmp_path) == (
        f"preparing {name} by TFDS needs TensorFlow: pip install tensorflow, or get "
        f"{name.replace('cifar', 'cifar-')}-python.tar.gz from "
        f"https://www.cs.toronto.edu/~kriz/cifar.html and pass {flag}=FILE"
    )
    assert not list(tmp_path.rglob("*.array_record*"))


def test_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    builder = tfds.builder_cls("cifar10")
    info = builder(data_dir=tmp_path)._cifar_info
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar-10-binary.tar.gz"
        monkeypatch.setattr(builder, "_cifar_info", info._replace(url=url))
        monkeypatch.setattr(tfds_images, "find_spec", lambda name: name)
        message = error_of("cifar10", tmp_path)
    assert message.startswith("TFDS cannot download and prepare cifar10 (HTTPConnectionPool(host=")
    assert "Max retries exceeded with url: /cifar-10-binary.tar.gz" in message
    assert message.endswith("and pass --data=FILE")
    assert "Retrying" not in caplog.text


def test_files_that_only_tensorflow_can_read(prepared: Path, tmp_path: Path) -> None:
    """As TFDS writes them by default: the description says TFRecord."""
    shutil.copytree(prepared, tmp_path / "tfds")
    path = tmp_path / "tfds/cifar10/3.0.2"
    for file in path.glob("*array_record*"):
        file.rename(path / file.name.replace("array_record", "tfrecord"))
    description = json.loads((path / "dataset_info.json").read_text())
    description["fileFormat"] = "tfrecord"
    (path / "dataset_info.json").write_text(json.dumps(description))
    message = error_of("cifar10", tmp_path / "tfds")
    assert message.startswith(f"{path} holds files of a format that only TensorFlow can read: set ")
    assert "TFDS_DATA_DIR to another folder to prepare it again, or get cifar-10-python" in message


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = error_of("cifar10", tmp_path)
    assert message.startswith(
        "cifar10 by TFDS needs tensorflow_datasets: pip install tensorflow tensorflow-datasets "
        "importlib_resources array_record, or get cifar-10-python.tar.gz"
    )
