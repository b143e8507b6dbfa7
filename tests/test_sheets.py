"""The sheets of many images: which they show, and where. How they look, a human says."""

import numpy as np
from PIL import Image
from test_figures import make_findings, make_rows, read

from adtr_jax.evaluation.canvas import COLOURS
from adtr_jax.evaluation.figures import MARGIN
from adtr_jax.evaluation.report import ScoreRow
from adtr_jax.evaluation.sheets import CELL, save_layer_maps, save_sheet, sheet_columns


def test_a_sheet_shows_normal_images_then_every_kind_of_defect_alike():
    kinds = ["good"] * 6 + ["scratch"] * 20 + ["bend"] * 2 + ["crack"] * 20
    rows = [
        ScoreRow(f"{i}.png", kind, int(kind != "good"), float(i)) for i, kind in enumerate(kinds)
    ]
    with_masks = sheet_columns(rows, masks=True)
    assert [rows[i].defect for i in with_masks] == (
        ["good"] + ["bend"] * 2 + ["crack"] * 5 + ["scratch"] * 4
    )
    assert with_masks[0] == 3  # the one in the middle
    assert with_masks[-4:] == [8, 13, 18, 23]  # of the scores 6 to 25
    assert [rows[i].label for i in sheet_columns(rows, masks=False)] == [0] * 5 + [1] * 7
    assert sheet_columns(make_rows([0, 1], [2.0, 1.0]), masks=False) == [0, 1]
    many = [ScoreRow(f"{i}.png", f"kind {i:02}", 1, 0.0) for i in range(30)]
    assert sheet_columns(many, masks=True) == list(range(12))


def test_a_sheet_holds_the_panels_of_its_columns(tmp_path):
    findings = make_findings(n=3, side=CELL)
    save_sheet(tmp_path / "sheet.png", findings, [2, 0])
    sheet = read(tmp_path / "sheet.png")
    assert sheet.shape == (40 + 3 * 132 + MARGIN - 4, 84 + 2 * 132 + MARGIN, 3)
    for column, i in enumerate([2, 0]):
        for line, panel in enumerate(findings.panels(i)):
            top, left = 40 + line * 132, 84 + column * 132
            np.testing.assert_array_equal(sheet[top : top + CELL, left : left + CELL], panel)


def test_every_layer_has_a_scale_of_its_own(tmp_path):
    """The same map a thousand times as large has the same colours."""
    findings = make_findings(n=2, side=150)
    maps = findings.score_maps
    columns = {"layer 1": maps, "layer 2": 1000 * maps, "fused": 1 - maps}
    images, masks, rows = findings.images, findings.masks, findings.rows
    save_layer_maps(tmp_path / "layers.png", images, masks, rows, columns)
    save_layer_maps(tmp_path / "unmasked.png", images, None, rows, columns)
    picture = read(tmp_path / "layers.png")[..., :3]
    assert picture.shape == (40 + 2 * 154 + 48, 128 + 5 * 154 + MARGIN, 3)

    def cell(row, column):
        top, left = 40 + 154 * row, 128 + 154 * column
        return picture[top : top + 150, left : left + 150]

    for i in range(2):
        np.testing.assert_array_equal(cell(i, 0), images[i])
        np.testing.assert_array_equal(cell(i, 1), findings.panels(i)[1])
        np.testing.assert_array_equal(cell(i, 2), cell(i, 3))
        assert (cell(i, 2) != cell(i, 4)).mean() > 0.5
    with Image.open(tmp_path / "unmasked.png") as unmasked:
        assert unmasked.width == picture.shape[1] - 154
    bar = picture[40 + 2 * 154 + 9, 128 + 2 * 154 + 10 : 128 + 2 * 154 + 140].astype(int)
    assert np.abs(bar[[0, -1]] - 255 * np.array([COLOURS(0.02)[:3], COLOURS(0.98)[:3]])).max() < 20
