"""CIFAR-10 as one-class categories, and the draws of test images and anomalies."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cifar_files import CIFAR100_CLASSES, cifar10, cifar100, pack, write
from PIL import Image

from adtr_jax.data import cifar, load_images
from adtr_jax.data.samples import Category, Sample
from adtr_jax.errors import InputError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Of each class 10 training and 3 test images."""
    return write(tmp_path / "cifar-10-batches-py", cifar10()[0])


@pytest.fixture
def irrelevant(tmp_path: Path) -> Path:
    """12 training images of four classes."""
    return write(tmp_path / "cifar-100-python", cifar100()[0])


def names(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.name for sample in samples]


def test_a_class_is_trained_on_and_tested_against_as_many_of_the_others(source: Path) -> None:
    category = cifar.read_category("cat", source, seed=0)
    assert category.name == "cat"
    assert names(category.train) == [f"train/cat/{index:04d}" for index in range(10)]
    assert {sample.defect for sample in category.train} == {"good"}
    normal = [sample for sample in category.test if not sample.label]
    anomalous = [sample for sample in category.test if sample.label]
    assert [sample.name for sample in normal] == [f"test/cat/{index:04d}" for index in range(3)]
    assert len(anomalous) == 3
    assert all(sample.name.startswith(f"test/{sample.defect}/") for sample in anomalous)
    assert names(category.test) == sorted(names(category.test))
    assert not category.has_masks
    _, train, test = cifar10()
    np.testing.assert_array_equal(load_images(category.train, 32), train[3::10])
    for sample in category.test:
        _, name, number = sample.name.split("/")
        expected = test[cifar.CLASSES.index(name) + 10 * int(number)]
        np.testing.assert_array_equal(load_images([sample], 32)[0], expected)


def anomalies(category: Category) -> list[str]:
    return [sample.name for sample in category.test if sample.label]


def test_the_draw_depends_on_the_seed_alone(source: Path, tmp_path: Path) -> None:
    packed = pack(tmp_path / "cifar-10-python.tar.gz", cifar10()[0], "cifar-10-batches-py/")
    draws = [anomalies(cifar.read_category("cat", source, seed)) for seed in range(200)]
    assert anomalies(cifar.read_category("cat", source, 7)) == draws[7]
    assert anomalies(cifar.read_category("cat", packed, 7)) == draws[7]
    counts = Counter(name for draw in draws for name in draw)
    # 27 candidates, each drawn 22.2 times on average; the standard deviation is 4.4.
    assert len(counts) == 27
    assert all(5 < count < 40 for count in counts.values())
    assert all(len(set(draw)) == 3 for draw in draws)


def test_classes_left_out_are_not_tested_on(source: Path) -> None:
    for seed in range(50):
        category = cifar.read_category("cat", source, seed, leave_out=("dog", "deer"))
        assert len(anomalies(category)) == 3
        assert not {sample.defect for sample in category.test} & {"dog", "deer", "cat"}


def test_fewer_anomalies_than_normal_images_are_all_taken(tmp_path: Path) -> None:
    for name in cifar.CLASSES:
        for split, count in (("train", 1), ("test", 5 if name == "cat" else 1)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (2, 2)).save(folder / f"{index}.png")
    left = cifar.read_category("cat", tmp_path, 0, leave_out=cifar.CLASSES[5:])
    assert anomalies(left) == [
        *(f"test/{name}/0000" for name in ("airplane", "automobile", "bird", "deer")),
    ]
    assert len(left.test) == 9


def error_of(*arguments: object, **further: object) -> str:
    with pytest.raises(InputError) as caught:
        cifar.read_category(*arguments, **further)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_classes_that_cannot_be_had(source: Path) -> None:
    message = error_of("car", source, 0)
    assert message.startswith("no class of CIFAR-10 is called car: did you mean cat? There are: ai")
    assert "did you mean truck?" in error_of("cat", source, 0, leave_out=["pickup_truck"])
    assert error_of("cat", source, 0, leave_out=["dog", "cat"]) == (
        "cat is the normal class: known anomalies are of other classes"
    )
    others = [name for name in cifar.CLASSES if name != "cat"]
    assert error_of("cat", source, 0, leave_out=others) == (
        "all other classes are known anomalies: leave at least one to the test"
    )


def test_sources_that_are_not_cifar10(irrelevant: Path, source: Path, tmp_path: Path) -> None:
    assert error_of("cat", irrelevant, 0) == (
        f"{irrelevant} is not CIFAR-10, for it has no class airplane: give CIFAR-10"
    )
    for name in (*cifar.CLASSES, "tulip"):
        folder = tmp_path / "eleven/train" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(folder / "a.png")
    assert error_of("cat", tmp_path / "eleven", 0) == (
        f"{tmp_path}/eleven is not CIFAR-10, for it has a class tulip: give CIFAR-10"
    )
    (tmp_path / "eleven/train/tulip").rename(tmp_path / "tulip")
    assert "holds no test images of the class cat" in error_of("cat", tmp_path / "eleven", 0)


def test_irrelevant_anomalies(irrelevant: Path) -> None:
    drawn = cifar.read_irrelevant_anomalies(irrelevant, 5, seed=3)
    assert len(set(names(drawn))) == 5
    assert names(drawn) == sorted(names(drawn))
    assert {sample.label for sample in drawn} == {1}
    images = cifar100()[1]
    for sample in drawn:
        _, name, number = sample.name.split("/")
        assert sample.defect == name
        expected = images[CIFAR100_CLASSES.index(name) + 4 * int(number)]
        np.testing.assert_array_equal(load_images([sample], 32)[0], expected)
    again = cifar.read_irrelevant_anomalies(irrelevant, 5, seed=3)
    assert names(again) == names(drawn)
    draws = {tuple(names(cifar.read_irrelevant_anomalies(irrelevant, 5, seed=s))) for s in range(9)}
    assert len(draws) == 9
    assert len(cifar.read_irrelevant_anomalies(irrelevant, 5000, seed=0)) == 12


def test_what_is_tested_on_is_not_irrelevant(source: Path, irrelevant: Path) -> None:
    with pytest.raises(InputError, match="holds the class airplane, which is normal or tested on"):
        cifar.read_irrelevant_anomalies(source, 5, seed=0)
    good = irrelevant.parent / "own"
    (good / "train/good").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(good / "train/good/a.png")
    with pytest.raises(InputError, match="/own holds the class good, which is normal"):
        cifar.read_irrelevant_anomalies(good, 5, seed=0)


def test_known_anomalies(source: Path) -> None:
    drawn = cifar.read_known_anomalies(["truck", "dog"], source, 12, seed=0)
    assert len(set(names(drawn))) == 12
    assert {sample.defect for sample in drawn} == {"dog", "truck"}
    assert all(sample.name.startswith(f"train/{sample.defect}/") for sample in drawn)
    again = cifar.read_known_anomalies(["dog", "truck", "dog"], source, 12, seed=0)
    assert names(again) == names(drawn)
    everything = cifar.read_known_anomalies(["dog"], source, 12, seed=0)
    assert names(everything) == [f"train/dog/{index:04d}" for index in range(10)]
    with pytest.raises(InputError, match=r"is called dogs: did you mean dog\?"):
        cifar.read_known_anomalies(["dogs"], source, 12, seed=0)


def test_cifar10_in_a_zip_file(shared_data: Path) -> None:
    category = cifar.read_category("cat", shared_data / "cifar10_jpeg.zip", seed=0)
    assert (len(category.train), len(category.test)) == (5000, 2000)
    assert len(set(names(category.test))) == 2000
    counts = Counter(sample.defect for sample in category.test)
    assert counts.pop("good") == 1000
    # Nine classes, hypergeometric: 111.1 each on average, the standard deviation is 9.4.
    assert set(counts) == set(cifar.CLASSES) - {"cat"}
    assert all(75 < count < 150 for count in counts.values())
    first = category.test[0]
    assert str(first.image).endswith(f"cifar10_jpeg.zip/cifar10_jpeg/{first.name}.jpg")
    assert load_images(category.test[:20], 32).shape == (20, 32, 32, 3)
