"""The charts: what they are made of, and that they are drawn."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from adtr_jax.errors import InputError
from adtr_jax.evaluation.canvas import COLOURS
from adtr_jax.evaluation.plots import (
    LayerStudy,
    sample_positions,
    save_bars,
    save_curves,
    save_identical_mapping,
    save_tsne,
)
from adtr_jax.run import Differences, save_tsne_of_all
from adtr_jax.training.curves import Curves


def _colours(path) -> set[tuple[int, ...]]:
    """The colours that cover at least a thousandth of a picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return {
        tuple(map(int, c)) for c, n in zip(colours, counts, strict=True) if n > len(pixels) / 1e3
    }


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look at what they hold."""
    figures, real = [], Figure.savefig

    def savefig(self, path):
        figures.append(self)
        real(self, path)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_learning_curves_have_the_losses_of_every_epoch(tmp_path, drawn):
    epochs, loss, held_out = np.arange(1, 4), np.array([400, 90.0, 30]), np.array([300, 99.0, 40])
    save_curves(tmp_path / "both.png", Curves(epochs, loss, held_out))
    save_curves(tmp_path / "one.png", Curves(epochs[:1], loss[:1], None))
    ax, single = (figure.axes[0] for figure in drawn)
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines == {
        "training images": [[1, 400], [2, 90], [3, 30]],
        "held-out normal images": [[1, 300], [2, 99], [3, 40]],
    }
    assert (ax.get_yscale(), ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (
        *("log", "learning curves", "epoch", "loss (mean of images)"),
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(lines)
    shown = [text.get_text() for text in ax.get_yticklabels()]
    assert {"50", "100", "200"} <= set(shown)
    assert [line.get_xydata().tolist() for line in single.lines] == [[[1, 400]]]
    with Image.open(tmp_path / "both.png") as image:
        assert image.size == (520, 340)
    assert {(0x3B, 0x6F, 0xB6), (0xE0, 0x8E, 0x2B)} <= _colours(tmp_path / "both.png")


def test_bars_are_ours_beside_the_papers(tmp_path):
    names, values = ["CNN", "full"], [0.9, 0.97]
    save_bars(tmp_path / "both.png", names, values, [0.944, 0.972], "pixel AUROC")
    save_bars(tmp_path / "ours.png", names, values, None, "pixel AUROC")
    paper = (0xB9, 0xBE, 0xC6)
    assert paper in _colours(tmp_path / "both.png")
    assert paper not in _colours(tmp_path / "ours.png")


def test_bars_have_their_heights_names_and_places(tmp_path, drawn):
    save_bars(tmp_path / "a.png", ["CNN", "full"], [0.9123, 0.98], [0.944, 0.972], "pixel AUROC")
    ax = drawn[0].axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights == [pytest.approx([91.23, 98]), pytest.approx([94.4, 97.2])]
    assert [text.get_text() for text in ax.texts] == ["91.2", "98.0", "94.4", "97.2"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["CNN", "full"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "paper"]
    assert ax.get_ylim() == (85, pytest.approx(100.9))
    # The pair of a name stands around its tick, side by side.
    first, second = ax.containers[0][0], ax.containers[1][0]
    assert first.get_x() < first.get_x() + first.get_width() < second.get_x()
    assert (first.get_x() + second.get_x() + second.get_width()) / 2 == pytest.approx(0)


def _marked(n: int, anomalous: int) -> np.ndarray:
    """Of the positions the first are anomalous."""
    return (np.arange(16 * n) < anomalous).reshape(n, 4, 4)


@pytest.mark.parametrize(("anomalous", "each"), [(500, 300), (300, 300), (20, 20), (1595, 5)])
def test_as_many_normal_positions_as_anomalous_ones(anomalous, each):
    positions, labels = sample_positions(_marked(100, anomalous), seed=0)
    assert labels.tolist() == [False] * each + [True] * each
    assert len(set(positions)) == 2 * each
    assert np.array_equal(positions < anomalous, labels)
    again, _ = sample_positions(_marked(100, anomalous), seed=0)
    assert np.array_equal(positions, again)


def test_one_kind_only_is_an_error():
    with pytest.raises(InputError, match="leave 1600 normal and 0 anomalous; add images"):
        sample_positions(_marked(100, 0), seed=0)


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


def test_tsne_separates_what_is_separate_and_colours_by_score(tmp_path, drawn):
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], 40)
    differences = rng.normal(size=(80, 12)) + 8 * labels[:, None]
    save_tsne(tmp_path / "a.png", differences, labels, np.arange(80.0), seed=0)
    ax, bar = drawn[0].axes
    circles, triangles = (points.get_offsets() for points in ax.collections)
    assert len(circles) == len(triangles) == 40
    apart = np.linalg.norm(circles.mean(axis=0) - triangles.mean(axis=0))
    assert apart > 3 * max(circles.std(axis=0).max(), triangles.std(axis=0).max())
    lowest, highest = ax.collections[0].get_facecolors()[0], ax.collections[1].get_facecolors()[-1]
    assert lowest.tolist() == pytest.approx(COLOURS(0.0))
    assert highest.tolist() == pytest.approx(COLOURS(1.0))
    assert bar.get_ylim() == pytest.approx((0.79, 78.605))  # figures.QUANTILES of 0..79
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["normal (40)", "anomalous (40)"]


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


def test_identical_mapping_holds_matrix_curves_and_errors(tmp_path, drawn):
    rng = np.random.default_rng(0)
    curves = {"error": np.linspace(2, 0, 7), "distance": np.linspace(1, 0, 7)}
    normal, anomalous = rng.uniform(0.01, 0.1, 200), rng.uniform(0.1, 1, 50)
    study = LayerStudy("linear", np.eye(5), "|w|", curves, normal, anomalous)
    other = LayerStudy("attention", np.eye(3), "map", curves, np.full(4, 9.0), np.full(2, 9.0))
    save_identical_mapping(tmp_path / "figure.png", [study, other])
    axes = [ax for ax in drawn[0].axes if ax.get_label() != "<colorbar>"]
    assert [ax.get_title() for ax in axes[:3]] == ["|w|", "training", "reconstruction error"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["linear", "attention"]
    assert np.array_equal(axes[0].images[0].get_array(), np.eye(5))
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes[1].lines}
    assert lines == {name: curve.tolist() for name, curve in curves.items()}
    for bars in axes[2].containers:
        assert sum(bar.get_height() for bar in bars) == pytest.approx(100)
    means = [line.get_xdata()[0] for line in axes[2].lines]
    assert means == pytest.approx([normal.mean(), anomalous.mean()])
    assert axes[2].get_xlim() == axes[5].get_xlim()  # one axis for the errors of both rows


def test_fig_5_of_all_categories_holds_vectors_of_each(tmp_path, drawn):
    """As many normal as anomalous ones of each, told apart by s(u), which is the colour."""
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], 10)
    parts = [Differences(rng.normal(10 * i, 1, (20, 4)), labels) for i in range(3)]
    save_tsne_of_all(parts, 0, tmp_path / "tsne.png")
    for points in drawn[0].axes[0].collections:
        assert len(points.get_offsets()) == 30
        category = np.round(np.asarray(points.get_array()) / 20).astype(int)
        assert np.bincount(category).tolist() == [10, 10, 10]
