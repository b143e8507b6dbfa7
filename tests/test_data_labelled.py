"""The user's own anomalies: layouts, masks, errors, and taking them out of the test."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from adtr_jax.data import load_masks
from adtr_jax.data.folders import read_category
from adtr_jax.data.labelled import read_anomalies, without
from adtr_jax.errors import InputError


def write(root: Path, *names: str) -> Path:
    """Write images, each of another grey."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        grey = 1 + sum(path.suffix == ".png" for path in root.rglob("*"))
        Image.new("L", (4, 4), grey).save(root / name)
    return root


def found(folder: Path) -> list[tuple[str, str, str | None]]:
    samples = read_anomalies(folder)
    assert all(sample.label == 1 for sample in samples)
    assert all(sample.image == folder / sample.name for sample in samples)
    return [(s.name, s.defect, None if s.mask is None else str(s.mask)) for s in samples]


def error_of(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_anomalies(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(folder.as_posix(), "DIR")


def test_images_with_masks(tmp_path: Path) -> None:
    write(tmp_path, "test/crack/b.png", "test/crack/a.png", "test/bent wire/a.png")
    write(tmp_path, "ground_truth/crack/a_mask.png", "ground_truth/crack/b.png")
    write(tmp_path, "ground_truth/bent wire/a_mask.png")
    truth = tmp_path / "ground_truth"
    assert found(tmp_path) == [
        ("test/bent wire/a.png", "bent wire", f"{truth}/bent wire/a_mask.png"),
        ("test/crack/a.png", "crack", f"{truth}/crack/a_mask.png"),
        ("test/crack/b.png", "crack", f"{truth}/crack/b.png"),
    ]
    assert load_masks(read_anomalies(tmp_path), 4).marked.sum((1, 2)).tolist() == [16, 16, 16]


def test_images_without_masks(tmp_path: Path) -> None:
    write(tmp_path / "a", "test/crack/a.png")
    assert found(tmp_path / "a") == [("test/crack/a.png", "crack", None)]
    write(tmp_path / "b", "crack/b.png", "crack/a.png", "bent/a.png", "bent wire/a.png")
    assert found(tmp_path / "b") == [
        ("bent wire/a.png", "bent wire", None),
        ("bent/a.png", "bent", None),
        ("crack/a.png", "crack", None),
        ("crack/b.png", "crack", None),
    ]
    write(tmp_path / "c", "b.png", "a.png")
    assert found(tmp_path / "c") == [("a.png", "anomaly", None), ("b.png", "anomaly", None)]


@pytest.mark.parametrize("image", ["a.png", "crack/a.png"])
def test_hidden_and_text_files_are_ignored(tmp_path: Path, image: str) -> None:
    write(tmp_path, image)
    before = found(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    write(tmp_path, ".cache/b.png")
    assert found(tmp_path) == before


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path, "a.png"))
    assert found(Path(".")) == [("a.png", "anomaly", None)]
    assert found(Path("..") / tmp_path.name) == [("a.png", "anomaly", None)]


def test_some_images_with_masks_and_some_without(tmp_path: Path) -> None:
    write(tmp_path, "test/crack/a.png", "test/crack/b.png", "ground_truth/crack/b_mask.png")
    masks = [sample.mask for sample in read_anomalies(tmp_path)]
    assert masks == [None, tmp_path / "ground_truth/crack/b_mask.png"]


def test_a_folder_of_masks(tmp_path: Path) -> None:
    write(tmp_path, "DIR/a.png", "DIR/b.png", "DIR/c.png", "masks/x/b_mask.png", "masks/c.png")
    folder, masks = tmp_path / "DIR", tmp_path / "masks"
    found = [sample.mask for sample in read_anomalies(folder, masks)]
    assert found == [None, masks / "x/b_mask.png", masks / "c.png"]
    write(tmp_path, "masks/c_mask.png")
    with pytest.raises(InputError, match=r"c\.png has two masks, .*c\.png and .*c_mask\.png: keep"):
        read_anomalies(folder, masks)
    for mask in masks.rglob("*.png"):
        mask.unlink()
    with pytest.raises(InputError, match=r"masks holds no mask of any defect: that of .*a\.png is"):
        read_anomalies(folder, masks)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["test/good/a.png", "test/crack/a.png"], "DIR/test/good holds normal images where anom"),
        (["good/a.png"], "DIR/good holds normal images, not anomalous images: put anomalous imag"),
        (["train/good/a.png"], "DIR/train holds normal images, not anomalous images"),
        (["ground_truth/crack/a.png", "crack/a.png"], "DIR/ground_truth holds masks, not anomal"),
        (["a.png", "a_mask.png"], "DIR/a_mask.png seems to be a mask: put images into DIR/test/"),
        (["c/a.png", "c/a_mask.png"], "DIR/c/a_mask.png seems to be a mask: put images into DIR"),
        (["a.png", "crack/a.png"], "DIR/a.png lies beside folders: move it into one of them"),
        (["crack/a/a.png"], "DIR/crack/a is a folder where images were expected: move its images"),
        (["test/a.png"], "DIR/test/a.png lies directly in test: move it into one of the folders"),
        (["test/c/a.png", "ground_truth/c/b.png"], "DIR/ground_truth/c/b.png is a mask without"),
        (["a.gif"], "DIR/a.gif has an unknown file type: convert it (png, jpg, jpeg, bmp, tif"),
    ],
)
def test_images_out_of_place(tmp_path: Path, names: list[str], message: str) -> None:
    assert error_of(write(tmp_path, *names)).startswith(message)


def test_folders_without_images(tmp_path: Path) -> None:
    assert error_of(tmp_path).startswith("DIR holds no images: put images there, or remove")
    (tmp_path / "test").mkdir()
    assert error_of(tmp_path) == "DIR/test holds no images: put anomalous ones into test/DEFECT"
    (tmp_path / "test/crack").mkdir()
    assert error_of(tmp_path).startswith("DIR/test/crack holds no images: put images there")
    assert error_of(tmp_path / "gone") == "DIR does not exist: give a folder of anomalous images"
    file = write(tmp_path, "a.png") / "a.png"
    assert error_of(file) == "DIR is not a folder: give a folder of anomalous images"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    write(tmp_path, "crack/a.png")
    (tmp_path / "crack").chmod(0)
    try:
        assert error_of(tmp_path).startswith("cannot list DIR/crack: Permission denied; check the")
    finally:
        (tmp_path / "crack").chmod(0o700)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A category with three anomalous test images and one normal one."""
    names = ("train/good/0.png", "test/good/0.png")
    return write(tmp_path / "grid", *names, *(f"test/crack/{index}.png" for index in range(3)))


def test_copies_of_test_images_are_taken_out_of_the_test(grid: Path, tmp_path: Path) -> None:
    """Under any name, by their bytes; two test images that are the same both go."""
    shutil.copy(grid / "test/crack/1.png", grid / "test/crack/9.png")
    category = read_category(grid.parent, "grid")
    (tmp_path / "known").mkdir()
    shutil.copy(grid / "test/crack/1.png", tmp_path / "known/other name.png")
    Image.new("L", (4, 4), 200).save(tmp_path / "known/new.png")
    left = without(category, read_anomalies(tmp_path / "known"))
    assert [sample.name for sample in left.test] == [
        "test/crack/0.png",
        "test/crack/2.png",
        "test/good/0.png",
    ]
    assert len(category.test) - len(left.test) == 2
    assert (left.name, left.train) == (category.name, category.train)


def test_anomalies_of_elsewhere_change_nothing(grid: Path, tmp_path: Path) -> None:
    category = read_category(grid.parent, "grid")
    Image.new("L", (4, 4), 200).save(tmp_path / "new.png")
    (grid / "test").rename(grid / "kept")
    (tmp_path / "known").mkdir()
    (tmp_path / "new.png").rename(tmp_path / "known/new.png")
    (grid / "kept").rename(grid / "test")
    assert without(category, read_anomalies(tmp_path / "known")) == category
    assert without(category, ()) == category


def test_anomalies_that_make_no_test(grid: Path, tmp_path: Path) -> None:
    category = read_category(grid.parent, "grid")
    with pytest.raises(InputError, match="every anomalous test image of grid is among the anomal"):
        without(category, read_anomalies(grid / "test/crack"))
    (tmp_path / "known").mkdir()
    shutil.copy(grid / "test/good/0.png", tmp_path / "known/a.png")
    anomalies = read_anomalies(tmp_path / "known")
    with pytest.raises(InputError) as caught:
        without(category, anomalies)
    assert str(caught.value) == (
        f"{tmp_path}/known/a.png is given as an anomaly, but it is the same as the normal test "
        f"image {grid}/test/good/0.png: remove one of them"
    )
    (tmp_path / "known/a.png").unlink()
    with pytest.raises(InputError, match=r"cannot read .*known/a\.png: No such file or directory"):
        without(category, anomalies)


def test_ten_defects_of_a_real_category(shared_data: Path, tmp_path: Path) -> None:
    category = read_category(shared_data / "mvtec_ad", "toothbrush")
    source = shared_data / "mvtec_ad/toothbrush"
    for number in range(10):
        name = f"{number:03d}"
        for top, ending in (("test", ""), ("ground_truth", "_mask")):
            folder = tmp_path / top / "defective"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / top / "defective" / f"{name}{ending}.png", folder)
    anomalies = read_anomalies(tmp_path)
    assert len(anomalies) == 10
    assert load_masks(anomalies, 64).marked.any((1, 2)).all()
    left = without(category, anomalies)
    assert (len(category.test), len(left.test)) == (42, 32)
    assert sum(sample.label for sample in left.test) == 20
    assert left.has_masks
