"""Pictures of the results, as in Fig. 4 of the ADTR paper.

All pictures of a category share one colour scale, so that a colour means the same score in each of
them. Figures are created without pyplot: no global state, no display. Sizes are in pixels, and
positions are relative to the top left corner.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from adtr_jax.data.lazy import LazyArray
from adtr_jax.evaluation import canvas
from adtr_jax.evaluation.overlay import OUTLINE, overlay
from adtr_jax.evaluation.quantile import quantiles
from adtr_jax.evaluation.report import ScoreRow
from adtr_jax.files.plain_name import plain_name

# The scale runs between these quantiles of all pixels' scores; what lies outside takes its ends.
QUANTILES = (0.01, 0.995)
NORMAL, ANOMALOUS = "#3b6fb6", "#d1495b"

MARGIN, GAP = 14, 8
BAR, TICKS = 14, 72  # the colour bar and the room for its ticks and label
PICTURE_SIDE = 256  # small images are enlarged by an integer factor to at least this side
OVERVIEW_SIDE = 150
OVERVIEW_GROUP = 3  # images per group of the overview

RGB = UInt8[np.ndarray, "s s 3"]


@dataclass(frozen=True)
class Scale:
    """The colour scale of a category: the scores of its first and last colour."""

    low: float
    high: float

    @classmethod
    def of(cls, score_maps: Float[np.ndarray, "n s s"]) -> "Scale":
        """The scale of the score maps of all processes, each of which has some, by `QUANTILES`."""
        return cls.between(*quantiles(score_maps, QUANTILES))

    @classmethod
    def between(cls, low: float, high: float) -> "Scale":
        """The scale from `low` to `high`, which may be equal."""
        return cls(float(low), float(high) if high > low else float(low) + 1.0)

    @property
    def norm(self) -> Normalize:
        """Maps scores to [0, 1]."""
        return Normalize(self.low, self.high, clip=True)


@dataclass(frozen=True, eq=False)
class Findings:
    """The test images of a category and their results.

    Attributes:
        images: RGB in [0, 255].
        score_maps: higher is more anomalous; only those of images that are shown are looked at.
        masks: the ground truth; without it there are two panels per image instead of three.
        rows: the result of each image.
        scale: of the colours.

    Raises:
        ValueError: arrays or rows of different lengths.
    """

    images: UInt8[np.ndarray | LazyArray, "n s s 3"]
    score_maps: Float[np.ndarray, "n s s"]
    masks: Bool[np.ndarray | LazyArray, "n s s"] | None
    rows: Sequence[ScoreRow]
    scale: Scale

    def __post_init__(self) -> None:
        lengths = [len(self.images), len(self.score_maps), len(self.rows)]
        lengths += [] if self.masks is None else [len(self.masks)]
        if len(set(lengths)) != 1:
            raise ValueError(f"images, score maps, rows and masks differ in number: {lengths}")

    @property
    def captions(self) -> list[str]:
        middle = [] if self.masks is None else ["ground truth"]
        return ["image", *middle, "score map"]

    def panels(self, i: int) -> list[RGB]:
        """Returns the panels of image i, in the order of `captions`.

        The score map is blended with the grey image, and the ground truth is outlined on it.
        """
        scale = (self.scale.low, self.scale.high)
        image = self.images[i]
        heat = np.array(overlay(Image.fromarray(image), self.score_maps[i], scale))
        if self.masks is None:
            return [image, heat]
        mask = self.masks[i]
        heat[ndimage.binary_dilation(mask) & ~mask] = OUTLINE
        return [image, np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1), heat]


def save_pictures(directory: Path, findings: Findings, shown: Sequence[int]) -> list[Path]:
    """Saves a picture of each image shown: image, ground truth, score map, colour bar and score.

    Args:
        directory: created if necessary.
        findings: images smaller than 256 are enlarged by an integer factor.
        shown: the images' indices.

    Returns:
        The files in the order of `shown`, named by `picture_names`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    factor = -(-PICTURE_SIDE // findings.images.shape[1])
    frame, corners = _picture_frame(findings, findings.images.shape[1] * factor)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 15)
    names = picture_names(findings.rows)

    def save(i: int) -> Path:
        picture = frame.copy()
        for panel, corner in zip(findings.panels(i), corners, strict=True):
            enlarged = panel.repeat(factor, axis=0).repeat(factor, axis=1)
            picture.paste(Image.fromarray(enlarged), corner)
        title = _title(findings.rows[i], picture.width // 9)
        ImageDraw.Draw(picture).text((MARGIN, 8), title, fill="black", font=font)
        # Twice as fast as PIL's 6, and 9 % larger.
        picture.save(directory / names[i], compress_level=3)
        return directory / names[i]

    with ThreadPoolExecutor() as pool:  # Pillow's work, which needs no GIL; matplotlib is done
        return list(pool.map(save, shown))


def save_overview(path: Path, findings: Findings) -> None:
    """Saves a sheet of at most nine test images: those found best, and the hardest ones.

    Columns: the three anomalous images with the highest scores, the three with the lowest, and the
    three normal images with the highest, each with its defect type and score. Rows: the panels.
    """
    groups = overview_groups(findings.rows)
    cell, top, left = OVERVIEW_SIDE + 4, 64, 2 * MARGIN
    right = left + cell * sum(len(group) for group in groups.values()) + GAP * len(groups)
    height = cell * len(findings.captions) - 4
    figure = canvas.new_figure(right + BAR + TICKS, top + height + MARGIN)
    for line, caption in enumerate(findings.captions):
        middle = top + line * cell + OVERVIEW_SIDE // 2
        canvas.put_text(
            figure, caption, left - 6, middle, size=8, ha="right", va="center", rotation=90
        )
    for heading, group in groups.items():
        canvas.put_text(figure, heading, left, 20, size=10, weight="bold")
        for i in group:
            row = findings.rows[i]
            text = f"{canvas.cut(row.defect, 20)}\n{row.score:.4g}"
            canvas.put_text(figure, text, left + OVERVIEW_SIDE // 2, top - 5, size=8, ha="center")
            for line, panel in enumerate(findings.panels(i)):
                small = Image.fromarray(panel).resize((OVERVIEW_SIDE, OVERVIEW_SIDE))
                canvas.put_image(figure, np.asarray(small), left, top + line * cell)
            left += cell
        left += GAP
    _put_scale(figure, right, top, height, findings.scale)
    canvas.save(figure, path)


def save_histogram(path: Path, rows: Sequence[ScoreRow], auroc: float) -> None:
    """Saves a histogram of the image scores of normal and anomalous test images.

    Args:
        auroc: the image AUROC in [0, 1], for the title.
    """
    figure = Figure(figsize=(5.6, 3.2), dpi=canvas.DPI, layout="constrained")
    ax = figure.subplots()
    edges = np.histogram_bin_edges([row.score for row in rows], bins=30).tolist()
    for label, name, colour in ((0, "normal", NORMAL), (1, "anomalous", ANOMALOUS)):
        scores = [row.score for row in rows if row.label == label]
        ax.hist(scores, edges, color=colour, alpha=0.65, label=f"{name} ({len(scores)})")
    ax.set(xlabel="image score", ylabel="images", title=f"image AUROC {100 * auroc:.1f}")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="best", frameon=False)
    canvas.save(figure, path)


def picture_names(rows: Sequence[ScoreRow]) -> list[str]:
    """Returns `DEFECT_NAME.png` for each row, from the defect type and the image's file name.

    By `plain_name`; no two names are alike, upper and lower case being the same.
    """
    names: list[str] = []
    taken: set[str] = set()
    for row in rows:
        stem = plain_name(f"{row.defect}_{PurePosixPath(row.path).stem}")
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.casefold())
        names.append(f"{name}.png")
    return names


def _picture_frame(findings: Findings, side: int) -> tuple[Image.Image, list[tuple[int, int]]]:
    """Draws what all pictures share; returns it and the corners of the panels."""
    top = 56
    corners = [(MARGIN + i * (side + GAP), top) for i in range(len(findings.captions))]
    right = corners[-1][0] + side + GAP
    figure = canvas.new_figure(right + BAR + TICKS, top + side + MARGIN)
    for caption, (left, _) in zip(findings.captions, corners, strict=True):
        canvas.put_text(figure, caption, left + side // 2, top - 5, size=9, ha="center")
    _put_scale(figure, right, top, side, findings.scale)
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    return Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB"), corners


def overview_groups(rows: Sequence[ScoreRow]) -> dict[str, list[int]]:
    """Returns heading -> indices into rows; no image twice, no empty group."""
    by_score = sorted(range(len(rows)), key=lambda i: -rows[i].score)
    anomalous = [i for i in by_score if rows[i].label == 1]
    groups = {
        "highest scores": anomalous[:OVERVIEW_GROUP],
        "hardest anomalies": anomalous[OVERVIEW_GROUP:][-OVERVIEW_GROUP:][::-1],
        "hardest normal images": [i for i in by_score if rows[i].label == 0][:OVERVIEW_GROUP],
    }
    return {heading: group for heading, group in groups.items() if group}


def _title(row: ScoreRow, length: int) -> str:
    tail = f"   {'anomalous' if row.label else 'normal'}   score {row.score:.4g}"
    return canvas.cut(f"{row.defect} / {PurePosixPath(row.path).name}", length - len(tail)) + tail


def _put_scale(figure: Figure, left: int, top: int, side: int, scale: Scale) -> None:
    low, high = (f"{100 * q:g} %" for q in QUANTILES)
    label = f"anomaly score ({low} to {high} of all pixels)"
    canvas.put_colour_bar(figure, (left, top, BAR, side), scale.norm, label)
