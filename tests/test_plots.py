"""The charts: what they are made of, and that they are drawn."""

import numpy as np
import pytest
from PIL import Image

from adtr_jax.errors import InputError
from adtr_jax.plots import (
    LayerStudy,
    sample_differences,
    save_bars,
    save_identical_mapping,
    save_tsne,
)


def _colours(path) -> set[tuple[int, ...]]:
    """The colours that cover at least a thousandth of a picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return {
        tuple(map(int, c)) for c, n in zip(colours, counts, strict=True) if n > len(pixels) / 1e3
    }


def test_bars_are_ours_beside_the_papers(tmp_path):
    names, values = ["CNN", "full"], [0.9, 0.97]
    save_bars(tmp_path / "both.png", names, values, [0.944, 0.972], "pixel AUROC")
    save_bars(tmp_path / "ours.png", names, values, None, "pixel AUROC")
    paper = (0xB9, 0xBE, 0xC6)
    assert paper in _colours(tmp_path / "both.png")
    assert paper not in _colours(tmp_path / "ours.png")


def _marked(n: int, anomalous: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences whose first channel numbers the positions; the first are anomalous."""
    differences = np.zeros((n, 4, 4, 3), np.float32)
    differences[..., 0] = np.arange(16 * n).reshape(n, 4, 4)
    return differences, (np.arange(16 * n) < anomalous).reshape(n, 4, 4)


@pytest.mark.parametrize(("anomalous", "each"), [(500, 300), (300, 300), (20, 20), (1595, 5)])
def test_as_many_normal_differences_as_anomalous_ones(anomalous, each):
    vectors, labels = sample_differences(*_marked(100, anomalous), seed=0)
    assert vectors.shape == (2 * each, 3)
    assert labels.tolist() == [False] * each + [True] * each
    assert len(set(vectors[:, 0])) == 2 * each
    assert np.array_equal(vectors[:, 0] < anomalous, labels)
    again, _ = sample_differences(*_marked(100, anomalous), seed=0)
    assert np.array_equal(vectors, again)


def test_one_kind_only_is_an_error():
    with pytest.raises(InputError, match="leave 1600 normal and 0 anomalous; add images"):
        sample_differences(*_marked(100, 0), seed=0)


@pytest.mark.parametrize("count", [2, 40])
def test_tsne_is_drawn_and_seeded(count, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(count) >= count // 2
    differences = rng.normal(size=(count, 5)) + 5 * labels[:, None]
    scores = np.linalg.norm(differences, axis=1)
    for name in ("a.png", "b.png"):
        save_tsne(tmp_path / name, differences, labels, scores, seed=0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 500


def test_identical_mapping_is_drawn(tmp_path):
    study = LayerStudy(
        "linear layer",
        np.eye(4),
        "|w|",
        {"error": np.ones(10), "distance": np.linspace(1, 0, 10)},
        np.full(20, 0.1),
        np.full(5, 0.4),
    )
    save_identical_mapping(tmp_path / "figure.png", [study, study])
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width > 1.5 * image.height
