"""The solar cells of elpv-dataset, and what happens without the package."""

from pathlib import Path

import numpy as np
import pytest

from adtr_jax.data import load_images, solar_cells
from adtr_jax.errors import InputError


@pytest.mark.parametrize(
    ("kind", "train", "normal", "defective"), [("mono", 470, 118, 313), ("poly", 736, 184, 402)]
)
def test_counts_and_split(kind: str, train: int, normal: int, defective: int) -> None:
    pytest.importorskip("elpv_dataset")
    category = solar_cells.read_category(kind)
    labels = [sample.label for sample in category.test]
    assert (len(category.train), labels.count(0), labels.count(1)) == (train, normal, defective)
    assert {sample.defect for sample in category.train} == {"good"}
    assert not category.has_masks
    names = [sample.name for sample in (*category.train, *category.test)]
    assert len(set(names)) == train + normal + defective
    assert category == solar_cells.read_category(kind)


def test_images_and_labels_are_the_packages_own(tmp_path: Path) -> None:
    """Compared with the package's loader, which is given a table of a few cells: all take long."""
    elpv = pytest.importorskip("elpv_dataset.utils")
    package = Path(elpv.__file__).parent / "data"
    rows = (package / "labels.csv").read_text().splitlines(keepends=True)[::97]
    (tmp_path / "labels.csv").write_text("".join(rows))
    (tmp_path / "images").symlink_to(package / "images")
    images, probabilities, kinds = elpv.load_dataset(str(tmp_path / "labels.csv"))
    samples = {}
    for kind in solar_cells.CATEGORIES:
        category = solar_cells.read_category(kind)
        samples |= {(kind, s.name): s for s in (*category.train, *category.test)}
    seen = 0
    for row, image, probability, kind in zip(rows, images, probabilities, kinds, strict=True):
        sample = samples.get((str(kind), row.split()[0]))
        assert (sample is None) == (probability not in (0, 1))
        if sample is not None:
            assert sample.label == probability
            np.testing.assert_array_equal(load_images([sample], 300)[0, ..., 1], image)
            seen += 1
    assert seen >= 20


def test_unknown_kind() -> None:
    with pytest.raises(
        InputError, match="no category of solar cells is called monno: did you mean mono"
    ):
        solar_cells.read_category("monno")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solar_cells, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed: pip install elpv-dataset"):
        solar_cells.read_category("mono")


def test_broken_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solar_cells, "_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*labels\.csv .*--force-reinstall elpv"):
        solar_cells.read_category("mono")
    (tmp_path / "labels.csv").write_text("images/cell0001.png 1.0\n")
    with pytest.raises(InputError, match=r"cannot read .*labels\.csv .*--force-reinstall elpv"):
        solar_cells.read_category("mono")
