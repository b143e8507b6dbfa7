"""Folders in MVTec layout: pairing, what is ignored, and every error's text."""

import re
from pathlib import Path

import pytest
from PIL import Image

from adtr_jax.data import good_images, load_images, load_masks
from adtr_jax.data.folders import categories, read_category
from adtr_jax.errors import InputError


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 255).save(root / name)
    return root


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A sound category; returns its folder."""
    write(
        tmp_path / "grid",
        "train/good/001.png",
        "train/good/000.jpg",
        "test/good/000.png",
        "test/crack/000.png",
        "test/crack/001.JPG",
        "test/bent wire/000.tif",
        "ground_truth/crack/000_mask.png",
        "ground_truth/crack/001.bmp",
        "ground_truth/bent wire/000_mask.png",
    )
    return tmp_path / "grid"


def error_of(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_category(folder.parent, folder.name)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(folder.as_posix(), "GRID")


def test_samples_are_sorted_and_masks_paired_by_name(grid: Path) -> None:
    category = read_category(grid.parent, "grid")
    assert category.name == "grid"
    assert [sample.name for sample in category.train] == [
        "train/good/000.jpg",
        "train/good/001.png",
    ]
    found = [
        (s.name, s.defect, s.label, None if s.mask is None else str(s.mask)) for s in category.test
    ]
    truth = grid / "ground_truth"
    assert found == [
        ("test/bent wire/000.tif", "bent wire", 1, str(truth / "bent wire/000_mask.png")),
        ("test/crack/000.png", "crack", 1, str(truth / "crack/000_mask.png")),
        ("test/crack/001.JPG", "crack", 1, str(truth / "crack/001.bmp")),
        ("test/good/000.png", "good", 0, None),
    ]
    assert category.has_masks
    assert load_masks(category.test, 4).marked.sum((1, 2)).tolist() == [16, 16, 16, 0]
    assert load_images(category.test, 4).shape == (4, 4, 4, 3)


def test_hidden_and_text_files_are_ignored(grid: Path) -> None:
    before = read_category(grid.parent, "grid")
    for name in (
        "train/good/.DS_Store",
        "train/good/Thumbs.db",
        "train/good/notes.txt",
        "test/crack/._000.png",
        "test/.ipynb_checkpoints/000.png",
        "ground_truth/crack/labels.json",
        "readme.txt",
    ):
        (grid / name).parent.mkdir(exist_ok=True)
        (grid / name).write_bytes(b"no image")
    assert read_category(grid.parent, "grid") == before


def test_folders_of_systems_and_network_drives_are_left_out(grid: Path) -> None:
    """A Synology drive puts @eaDir everywhere: thumbnails, in folders named as the images are."""
    before = read_category(grid.parent, "grid")
    for name in (
        "@eaDir/train/good/000.png",
        "train/@eaDir/good/SYNOPHOTO_THUMB_M.jpg",
        "train/good/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg",
        "test/@eaDir/000.png",
        "test/crack/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg",
        "ground_truth/crack/@eaDir/000_mask.png",
        "test/__MACOSX/000.png",
        "test/lost+found/000.png",
    ):
        write(grid, name)
    assert read_category(grid.parent, "grid") == before


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("train/good", "train/Good"),
        ("train", "Train"),
        ("test/good", "test/GOOD"),
        ("ground_truth", "Ground_Truth"),
    ],
)
def test_folders_spelled_with_other_capitals(grid: Path, right: str, wrong: str) -> None:
    (grid / right).rename(grid / wrong)
    message = f"{grid}/{wrong} is taken for {wrong.lower().split('/')[-1]} only if it is spelled so"
    with pytest.raises(InputError) as caught:
        read_category(grid.parent, "grid")
    assert str(caught.value).startswith(message)
    with pytest.raises(InputError) as caught:
        good_images.files(grid)  # else it would train on what lies in test
    assert str(caught.value).startswith(message)


def test_a_link_to_itself_is_named_when_it_is_read(grid: Path) -> None:
    (grid / "train/good/loop.png").symlink_to(grid / "train/good/loop.png")
    category = read_category(grid.parent, "grid")
    with pytest.raises(InputError, match=r"cannot read .*loop\.png: Too many levels of symbolic"):
        load_images(category.train, 8)


def test_without_any_ground_truth_there_are_no_masks(tmp_path: Path) -> None:
    write(tmp_path / "a", "train/good/0.png", "test/good/0.png", "test/bad/0.png")
    category = read_category(tmp_path, "a")
    assert not category.has_masks
    assert [sample.mask for sample in category.test] == [None, None]


def test_masks_of_normal_images_are_not_used(grid: Path) -> None:
    write(grid, "ground_truth/good/000_mask.png")
    normal = read_category(grid.parent, "grid").test[-1]
    assert (normal.label, normal.mask) == (0, None)


def test_an_image_named_like_a_mask(tmp_path: Path) -> None:
    """x_mask.png is the mask of x, x_mask_mask.png that of x_mask."""
    write(tmp_path / "a", "train/good/0.png", "test/good/0.png", "test/bad/x.png")
    write(tmp_path / "a", "test/bad/x_mask.png")
    write(tmp_path / "a", "ground_truth/bad/x_mask.png", "ground_truth/bad/x_mask_mask.png")
    pairs = [(s.name, s.mask) for s in read_category(tmp_path, "a").test if s.label]
    truth = tmp_path / "a/ground_truth/bad"
    assert pairs == [
        ("test/bad/x.png", truth / "x_mask.png"),
        ("test/bad/x_mask.png", truth / "x_mask_mask.png"),
    ]


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("train/good", "GRID/train/good holds no images: put images there"),
        ("test/good", "GRID/test/good holds no images"),
        ("test/crack", "GRID/test/crack holds no images"),
        ("ground_truth/crack", "GRID/ground_truth/crack holds no images"),
    ],
)
def test_empty_folders(grid: Path, removed: str, message: str) -> None:
    for path in (grid / removed).iterdir():
        path.unlink()
    assert error_of(grid).startswith(message)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("test", "GRID/ground_truth/bent wire/000_mask.png is a mask without an image: there is"),
        ("test/good", "GRID/test/good is missing: the test needs normal images"),
        ("ground_truth/crack/000_mask.png", "GRID/test/crack/000.png has no mask while other"),
        ("ground_truth/crack", "GRID/test/crack/000.png has no mask while other images have: add"),
        (
            "test/crack/000.png",
            "GRID/ground_truth/crack/000_mask.png is a mask without an image: t",
        ),
        ("test/crack", "GRID/ground_truth/crack/000_mask.png is a mask without an image: there is"),
    ],
)
def test_missing_files_and_folders(grid: Path, removed: str, message: str) -> None:
    (grid / removed).rename(grid / ".removed")
    assert error_of(grid).startswith(message)


@pytest.mark.parametrize(
    ("names", "defects", "unmeasurable"),
    [
        ([], [], "there are no test images"),
        (["test/good/0.png"], ["good"], "there are no anomalous test images"),
        (["test/0.png", "test/1.png"], [None, None], "it is unknown which test images are normal"),
        (["test/good/0.png", "test/bad/1.png"], ["bad", "good"], None),
    ],
)
def test_only_the_training_images_must_be_there(
    tmp_path: Path, names: list[str], defects: list[str | None], unmeasurable: str | None
) -> None:
    write(tmp_path / "a", "train/good/0.png", *names)
    category = read_category(tmp_path, "a")
    assert [sample.defect for sample in category.test] == defects
    assert category.unmeasurable == unmeasurable
    if unmeasurable is None:
        assert category.measurable() is category
        return
    with pytest.raises(InputError, match=f"^a: {unmeasurable}: put normal ones into test/good"):
        category.measurable()


def test_masks_of_images_without_a_label(tmp_path: Path) -> None:
    write(tmp_path / "a", "train/good/0.png", "test/0.png", "ground_truth/bad/0_mask.png")
    assert error_of(tmp_path / "a").startswith("GRID/ground_truth/bad/0_mask.png is a mask without")


def test_a_file_beside_the_folders_of_test(tmp_path: Path) -> None:
    write(tmp_path / "a", "train/good/0.png", "test/good/0.png", "test/1.png")
    assert error_of(tmp_path / "a").startswith("GRID/test/1.png lies directly in test: move it")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (
            "train/good/002.gif",
            "GRID/train/good/002.gif has an unknown file type: convert it (png,",
        ),
        (
            "test/crack/b/0.png",
            "GRID/test/crack/b is a folder where images were expected: move its",
        ),
        ("test/9.png", "GRID/test/9.png lies directly in test: move it into one of the folders"),
        ("train/9.png", "GRID/train/9.png lies directly in train"),
        ("ground_truth/9.png", "GRID/ground_truth/9.png lies directly in ground_truth"),
        ("test/crack/000.jpg", "GRID/test/crack/000.png and 000.jpg differ only in their ending"),
        (
            "ground_truth/crack/000.png",
            "GRID/test/crack/000.png has two masks, 000.png and 000_mask.png: keep one of them",
        ),
    ],
)
def test_files_out_of_place(grid: Path, added: str, message: str) -> None:
    write(grid, added)
    assert error_of(grid).startswith(message)


def test_categories_are_the_folders_with_train_good(grid: Path) -> None:
    write(grid.parent, "bottle/train/good/0.png", "photos/0.png", ".cache/train/good/0.png")
    assert categories(grid.parent) == ["bottle", "grid"]


def root_error(root: Path, category: str = "grid") -> str:
    with pytest.raises(InputError) as caught:
        read_category(root, category)
    return str(caught.value)


def test_unknown_categories_suggest_the_nearest(grid: Path) -> None:
    write(grid.parent, "bottle/train/good/0.png", "tile/test/good/0.png")
    root = grid.parent
    known = "There are: bottle, grid"
    assert root_error(root, "gird") == (
        f"no category in {root} is called gird: did you mean grid? {known}"
    )
    assert root_error(root, "zzz") == f"no category in {root} is called zzz: {known}"
    assert "did you mean grid?" in root_error(root, "grid/")
    assert root_error(root, "../x") == f"no category in {root} is called ../x: {known}"
    assert root_error(root, "tile").startswith(f"{root}/tile/train/good is missing")


def test_roots_that_hold_no_categories(grid: Path) -> None:
    root = grid.parent
    assert root_error(root / "gone").startswith(f"{root / 'gone'} does not exist: give the folder")
    assert root_error(grid / "test/good/000.png").endswith(
        "is not a folder: give the folder that holds the categories"
    )
    assert root_error(grid) == (
        f"{grid} is itself a category: give the folder above it, --data={root} --category=grid"
    )
    above = root / "above"
    write(above, "mvtec/grid/train/good/0.png", "empty/0.png")
    assert root_error(above) == (
        f"{above} holds no category in MVTec layout: use {above / 'mvtec'}, which does"
    )
    assert root_error(grid / "test").endswith(
        "holds no category in MVTec layout: a category has images in train/good"
    )


def test_corrupt_files_are_named_when_loaded(grid: Path) -> None:
    broken = grid / "test/crack/001.JPG"
    broken.write_bytes(broken.read_bytes()[:-40])
    category = read_category(grid.parent, "grid")
    with pytest.raises(InputError, match=re.escape(f"{broken} is corrupt (")):
        load_images(category.test, 8)


def test_toothbrush(shared_data: Path) -> None:
    category = read_category(shared_data / "mvtec_ad", "toothbrush")
    labels = [sample.label for sample in category.test]
    assert (len(category.train), labels.count(0), labels.count(1)) == (48, 12, 30)
    assert category.has_masks
    masks = load_masks(category.test, 256).marked
    assert masks.any((1, 2)).tolist() == [bool(label) for label in labels]
    assert 0.01 < masks.mean() < 0.02


def test_magnetic_tile(shared_data: Path) -> None:
    assert "magnetic_tile" in categories(shared_data)
    category = read_category(shared_data, "magnetic_tile")
    defects = [sample.defect for sample in category.test]
    assert len(category.train) == 600
    assert {defect: defects.count(defect) for defect in set(defects)} == {
        "good": 160,
        "blowhole": 115,
        "break": 85,
        "crack": 57,
        "fray": 32,
        "uneven": 99,
    }
    masks = load_masks(category.test, 64).marked
    assert masks.shape == (548, 64, 64)
    assert not masks[[defect == "good" for defect in defects]].any()
