"""Charts: learning curves, Table 4 of the ADTR paper as bars, Fig. 5 (t-SNE), Section 3.2's study.

Figures are created without pyplot, in the colours of `figures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from adtr_jax.errors import InputError
from adtr_jax.evaluation.canvas import COLOURS, DPI
from adtr_jax.evaluation.figures import ANOMALOUS, NORMAL, QUANTILES, Scale
from adtr_jax.training.curves import Curves

PAPER = "#b9bec6"  # the paper's bars
HELD_OUT = "#e08e2b"
SAMPLES = 600  # difference vectors in Fig. 5, half of them anomalous
PERPLEXITY = 30.0  # of the t-SNE: scikit-learn's default


def save_curves(path: Path, curves: Curves) -> None:
    """Saves the loss over the epochs, of the images trained on and of those held out."""
    figure = _figure(5.2, 3.4)
    ax = figure.subplots()
    lines = [("training images", NORMAL, curves.loss)]
    if curves.held_out is not None:
        lines.append(("held-out normal images", HELD_OUT, curves.held_out))
    for label, colour, losses in lines:  # the last epoch is a dot: a single one is no line
        ax.plot(curves.epochs, losses, ".-", color=colour, markevery=[-1], label=label)
    ax.legend(loc="best", frameon=False, fontsize=8)
    ax.set(yscale="log", title="learning curves", xlabel="epoch", ylabel="loss (mean of images)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # 100, 200, 500 in full: by default only powers of ten are, and a loss may fall by less.
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    _save(figure, path)


def save_bars(
    path: Path,
    names: Sequence[str],
    values: Sequence[float],
    paper_values: Sequence[float] | None,
    ylabel: str,
) -> None:
    """Saves our values as bars, in per cent, beside the paper's if there are any.

    The axis does not start at 0, because the values of an ablation are close together.

    Args:
        names: one per bar or pair of bars, at least one.
        values: ours, in [0, 1].
        paper_values: the paper's, in [0, 1].
    """
    series = [("ours", NORMAL, values)]
    series += [] if paper_values is None else [("paper", PAPER, paper_values)]
    figure = _figure(max(4.0, 1.2 + 1.2 * len(names)), 3.4)
    ax = figure.subplots()
    width = 0.8 / len(series)
    for i, (label, colour, heights) in enumerate(series):
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * width
        bars = ax.bar(places, 100 * np.asarray(heights), 0.92 * width, color=colour, label=label)
        ax.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    lowest = 100 * min(min(heights) for _, _, heights in series)
    bottom = max(0, 5 * int((lowest - 3) // 5))
    ax.set_ylim(bottom, 100 + 0.06 * (100 - bottom))  # room for the number above a full bar
    ax.set_xticks(range(len(names)), [str(name) for name in names])
    ax.set_ylabel(f"{ylabel} (%)")
    if len(series) > 1:
        ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    _save(figure, path)


def sample_positions(
    anomalous: Bool[np.ndarray, "n h w"], seed: int
) -> tuple[Int[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """Samples positions u for Fig. 5, equally many normal and anomalous ones.

    Args:
        anomalous: the ground truth at every position of the test images.
        seed: of the sampling, which is without replacement.

    Returns:
        The positions' indices in the flat array, normal ones first, 300 of each kind or as many as
        the rarer kind has; and whether each is anomalous.

    Raises:
        InputError: only normal positions, or only anomalous ones.
    """
    kinds = [np.flatnonzero(anomalous.ravel() == label) for label in (False, True)]
    half = min(SAMPLES // 2, *(len(kind) for kind in kinds))
    if half == 0:
        raise InputError(
            "t-SNE needs normal and anomalous positions, but the masks of the test images leave "
            f"{len(kinds[0])} normal and {len(kinds[1])} anomalous; add images of the missing kind"
        )
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([rng.choice(kind, half, replace=False) for kind in kinds])
    return chosen, np.repeat([False, True], half)


def save_tsne(
    path: Path,
    differences: Float[np.ndarray, "m c"],
    labels: Bool[np.ndarray, "m"],
    scores: Float[np.ndarray, "m"],
    seed: int,
) -> None:
    """Saves Fig. 5: difference vectors in the plane by t-SNE.

    Args:
        differences: the vectors, at least two.
        labels: whether each is anomalous (a triangle) or normal (a circle).
        scores: s(u) of each, its colour.
    """
    from sklearn.manifold import TSNE  # takes a second, and few commands need it

    perplexity = min(PERPLEXITY, (len(differences) - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(differences)
    norm = Scale.between(*np.quantile(scores, QUANTILES)).norm
    figure = _figure(6.2, 5.0)
    ax = figure.subplots()
    legend = []
    for label, name, marker in ((False, "normal", "o"), (True, "anomalous", "^")):
        x, y = places[labels == label].T
        points = ax.scatter(
            x,
            y,
            26,
            scores[labels == label],
            marker=marker,
            edgecolors="0.35",
            linewidths=0.4,
            cmap=COLOURS,
            norm=norm,
        )
        legend.append(Line2D([], [], ls="", c="0.35", marker=marker, label=f"{name} ({len(x)})"))
    ax.set(xticks=[], yticks=[], title="feature differences by t-SNE")
    ax.legend(
        handles=legend,
        fontsize=8,
        ncols=2,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
    )
    figure.colorbar(points, ax=ax, extend="both").set_label("anomaly score")
    _save(figure, path)


@dataclass(frozen=True, eq=False)
class LayerStudy:
    """One network's row in the figure of Section 3.2.

    Attributes:
        matrix: the matrix that is the identity for an identical mapping.
        curves: name -> values over the steps of training.
        normal: reconstruction errors of normal positions.
        anomalous: reconstruction errors of anomalous positions.
    """

    title: str
    matrix: Float[np.ndarray, "k k"]
    matrix_title: str
    curves: Mapping[str, Float[np.ndarray, "steps"]]
    normal: Float[np.ndarray, "p"]
    anomalous: Float[np.ndarray, "q"]


def save_identical_mapping(path: Path, studies: Sequence[LayerStudy]) -> None:
    """Saves the figure of Section 3.2: each network's matrix, training curves and errors in a row.

    All errors share one logarithmic axis, so that the rows can be compared.
    """
    figure = _figure(12.0, 3.2 * len(studies))
    rows = figure.subplots(len(studies), 3, squeeze=False, width_ratios=(1, 1.15, 1.3))
    errors = np.concatenate([np.concatenate([study.normal, study.anomalous]) for study in studies])
    bins = np.geomspace(max(errors.min(), 1e-12), errors.max() * 1.001, 41)
    for study, (left, middle, right) in zip(studies, rows, strict=True):
        image = left.imshow(study.matrix, cmap=COLOURS, vmin=0, vmax=1, interpolation="nearest")
        left.set(title=study.matrix_title, xticks=[], yticks=[])
        left.set_ylabel(study.title, fontsize=11, weight="bold")
        figure.colorbar(image, ax=left, shrink=0.85)
        colours = (NORMAL, "0.2", ANOMALOUS)
        for (name, curve), colour in zip(study.curves.items(), colours, strict=False):
            middle.plot(np.arange(1, len(curve) + 1), curve, color=colour, label=name)
        middle.set(title="training", xlabel="step", ylim=(0, None))
        middle.legend(loc="best", frameon=False, fontsize=8)
        _put_errors(right, study, bins)
    _save(figure, path)


def _put_errors(ax: Axes, study: LayerStudy, bins: Float[np.ndarray, "k"]) -> None:
    """Draws two histograms of equal area, with the mean of each as a line."""
    kinds = (("normal", NORMAL, study.normal), ("anomalous", ANOMALOUS, study.anomalous))
    for name, colour, errors in kinds:
        shares = np.full(len(errors), 100 / len(errors))
        label = f"{name}, mean {errors.mean():.3g}"
        ax.hist(errors, bins.tolist(), weights=shares, color=colour, alpha=0.65, label=label)
        ax.axvline(errors.mean(), color=colour, ls="--", lw=1)
    ax.set(xscale="log", title="reconstruction error", ylabel="positions (%)")
    ax.set_xlabel("mean squared difference over the channels")
    ax.legend(loc="best", frameon=False, fontsize=8)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    for ax in figure.axes:
        if ax.get_label() != "<colorbar>":
            ax.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
