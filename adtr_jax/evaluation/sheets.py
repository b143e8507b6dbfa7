"""Many test images in one picture, as in the papers: ADTR's Figs. A1 to A25, GTrans's Fig. 4.

Sizes are in pixels. Of ever so many images no sheet shows more than twelve.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from adtr_jax.evaluation import canvas
from adtr_jax.evaluation.figures import (
    GAP,
    MARGIN,
    OVERVIEW_SIDE,
    QUANTILES,
    Findings,
    Scale,
)
from adtr_jax.evaluation.report import ScoreRow

COLUMNS = 12  # images of a category's sheet
NORMAL_COLUMNS, NORMAL_COLUMNS_WITHOUT_MASKS = 1, 5  # of them, as in Figs. A1 to A15 and A16 to A25
CELL = 128


def sheet_columns(rows: Sequence[ScoreRow], masks: bool) -> list[int]:
    """Chooses what a category's sheet shows: normal images, then the kinds of defects by name.

    Every kind has as many images as the others, if it has them. They lie evenly among the scores of
    their kind, so that the sheet is neither the best nor the worst of the results.

    Args:
        rows: the results of all test images.
        masks: whether there are some; the papers show one normal image then, else five.

    Returns:
        Indices into `rows`, at most `COLUMNS`.
    """
    by_score = sorted(range(len(rows)), key=lambda i: rows[i].score)
    normal = [i for i in by_score if rows[i].label == 0]
    kinds: dict[str, list[int]] = {}
    for i in by_score:
        if rows[i].label == 1:
            kinds.setdefault(rows[i].defect, []).append(i)
    first = _evenly(normal, NORMAL_COLUMNS if masks else NORMAL_COLUMNS_WITHOUT_MASKS)
    counts = dict.fromkeys(sorted(kinds), 0)
    left = COLUMNS - len(first)
    while left and any(counts[kind] < len(kinds[kind]) for kind in counts):
        for kind in counts:
            if left and counts[kind] < len(kinds[kind]):
                counts[kind], left = counts[kind] + 1, left - 1
    return first + [i for kind, count in counts.items() for i in _evenly(kinds[kind], count)]


def _evenly(members: Sequence[int], count: int) -> list[int]:
    """The members in the middle of `count` equal parts; all, where there are no more."""
    count = min(count, len(members))
    return [members[(2 * j + 1) * len(members) // (2 * count)] for j in range(count)]


def save_sheet(path: Path, findings: Findings, columns: Sequence[int]) -> None:
    """Saves some test images side by side: image, ground truth, score map from top to bottom.

    Args:
        columns: the images' indices. Above each stand its kind of defect and its score.
    """
    top, left, pitch = 40, 84, CELL + 4
    height = top + pitch * len(findings.captions)
    sheet = Image.new("RGB", (left + pitch * len(columns) + MARGIN, height + MARGIN - 4), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 11)
    for line, caption in enumerate(findings.captions):
        middle = top + line * pitch + CELL // 2
        draw.text((left - GAP, middle), caption, "black", font, anchor="rm")
    for column, i in enumerate(columns):
        x, row = left + column * pitch, findings.rows[i]
        title = f"{canvas.cut(row.defect, 18)}\n{row.score:.4g}"
        draw.multiline_text((x + CELL // 2, top - 4), title, "black", font, "md", 3, "center")
        for line, panel in enumerate(findings.panels(i)):
            sheet.paste(Image.fromarray(panel).resize((CELL, CELL)), (x, top + line * pitch))
    sheet.save(path, compress_level=3)


def save_layer_maps(
    path: Path,
    images: UInt8[np.ndarray, "n s s 3"],
    masks: Bool[np.ndarray, "n s s"] | None,
    rows: Sequence[ScoreRow],
    maps: Mapping[str, Float[np.ndarray, "n s s"]],
) -> None:
    """Saves the maps of GTrans's layers beside the fused one, a row an image (its Fig. 4).

    Every column of maps has a colour scale of its own, between `QUANTILES` of what it shows: the
    layers' maps differ by powers of ten, and the fused one may be of their products.

    Args:
        images: those shown, in [0, 255].
        masks: their ground truth; without it there is no column for it.
        rows: their results.
        maps: a column's caption -> its maps.
    """
    layers = {
        caption: Findings(
            images, values, masks, rows, Scale.between(*np.quantile(values, QUANTILES))
        )
        for caption, values in maps.items()
    }
    first, *_ = layers.values()
    captions = [*first.captions[:-1], *layers]
    cell, top, left = OVERVIEW_SIDE + 4, 40, 128
    bottom = top + cell * len(rows)
    figure = canvas.new_figure(left + cell * len(captions) + MARGIN, bottom + 48)
    middle = OVERVIEW_SIDE // 2
    for column, caption in enumerate(captions):
        x = left + column * cell + middle
        canvas.put_text(figure, caption, x, top - 6, size=8, ha="center")
    for i, row in enumerate(rows):
        y = top + i * cell
        text = f"{canvas.cut(row.defect, 18)}\n{row.score:.4g}"
        canvas.put_text(figure, text, left - 8, y + middle, size=8, ha="right", va="center")
        panels = first.panels(i)[:-1] + [layer.panels(i)[-1] for layer in layers.values()]
        for column, panel in enumerate(panels):
            small = Image.fromarray(panel).resize((OVERVIEW_SIDE, OVERVIEW_SIDE))
            canvas.put_image(figure, np.asarray(small), left + column * cell, y)
    for column, layer in enumerate(layers.values(), start=len(captions) - len(layers)):
        box = (left + column * cell, bottom + 4, OVERVIEW_SIDE, 10)
        canvas.put_colour_bar(figure, box, layer.scale.norm, "")
    canvas.save(figure, path)
