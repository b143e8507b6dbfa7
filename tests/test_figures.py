"""The pictures: places, colours, names. Whether they are good-looking, a human says."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from adtr_jax.evaluation.canvas import COLOURS
from adtr_jax.evaluation.figures import (
    BAR,
    GAP,
    MARGIN,
    TICKS,
    Findings,
    Scale,
    overview_groups,
    picture_names,
    save_histogram,
    save_overview,
    save_pictures,
)
from adtr_jax.evaluation.figures import _title as title
from adtr_jax.evaluation.overlay import OUTLINE, overlay
from adtr_jax.evaluation.report import ScoreRow

TOP = 56  # where the panels of a picture begin


def make_rows(labels, scores):
    names = ["good" if label == 0 else "crack" for label in labels]
    return [
        ScoreRow(f"tile/test/{name}/{i:03}.png", name, label, score)
        for i, (name, label, score) in enumerate(zip(names, labels, scores, strict=True))
    ]


def make_findings(n=2, side=256, with_masks=True, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, side, side), bool)
    masks[-1, side // 4 : side // 2, side // 4 : side // 2] = True
    images = rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)
    maps = rng.random((n, side, side)).astype(np.float32)
    rows = make_rows([0] * (n - 1) + [1], rng.random(n).tolist())
    return Findings(images, maps, masks if with_masks else None, rows, Scale.of(maps))


def save_all(folder, findings):
    return save_pictures(folder, findings, range(len(findings.rows)))


def read(path):
    return np.asarray(Image.open(path))


def panel(picture, i, side):
    left = MARGIN + i * (side + GAP)
    return picture[TOP : TOP + side, left : left + side]


def heat_of(findings, i):
    scale = (findings.scale.low, findings.scale.high)
    return np.asarray(overlay(Image.fromarray(findings.images[i]), findings.score_maps[i], scale))


def test_panels_stand_pixel_for_pixel_in_the_picture(tmp_path):
    findings = make_findings()
    paths = save_all(tmp_path / "pictures", findings)
    assert [path.name for path in paths] == ["good_000.png", "crack_001.png"]
    picture = read(paths[1])
    assert picture.shape == (TOP + 256 + MARGIN, MARGIN + 3 * (256 + GAP) + BAR + TICKS, 3)
    heat = heat_of(findings, 1)
    mask = findings.masks[1]
    np.testing.assert_array_equal(panel(picture, 0, 256), findings.images[1])
    np.testing.assert_array_equal(panel(picture, 1, 256), 255 * np.stack([mask] * 3, axis=-1))
    np.testing.assert_array_equal(panel(picture, 2, 256)[mask], heat[mask])
    # The outline runs outside the mask, along its four sides of 64 pixels.
    assert (panel(picture, 2, 256) == OUTLINE).all(axis=-1).sum() == 4 * 64
    assert panel(picture, 2, 256)[63, 64].tolist() == list(OUTLINE)


def test_only_the_images_shown_have_pictures_under_their_own_names(tmp_path):
    """The second `crack_001` keeps its number, though the first one is not drawn."""
    findings = make_findings(n=3)
    twin = dataclasses.replace(findings.rows[2], path="tile/other/002.png")
    findings = dataclasses.replace(findings, rows=[findings.rows[0], twin, findings.rows[2]])
    paths = save_pictures(tmp_path, findings, [0, 2])
    assert [path.name for path in paths] == ["good_000.png", "crack_002_2.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    np.testing.assert_array_equal(panel(read(paths[1]), 0, 256), findings.images[2])


def test_without_masks_there_are_two_panels_and_small_images_are_enlarged(tmp_path):
    findings = make_findings(side=100, with_masks=False)
    picture = read(save_all(tmp_path, findings)[0])
    assert picture.shape == (TOP + 300 + MARGIN, MARGIN + 2 * (300 + GAP) + BAR + TICKS, 3)
    np.testing.assert_array_equal(panel(picture, 0, 300)[1::3, 1::3], findings.images[0])
    heat = heat_of(findings, 0)
    np.testing.assert_array_equal(panel(picture, 1, 300)[1::3, 1::3], heat)


def test_a_score_has_one_colour_in_all_pictures(tmp_path):
    images = np.full((2, 256, 256, 3), 90, np.uint8)
    maps = np.zeros((2, 256, 256), np.float32)
    maps[0, :128], maps[0, 128:] = 1.0, 2.0
    maps[1, :128], maps[1, 128:] = 2.0, 5.0  # a scale of its own would give 2.0 its first colour
    findings = Findings(images, maps, None, make_rows([0, 1], [2.0, 5.0]), Scale.of(maps))
    first, second = (panel(read(path), 1, 256) for path in save_all(tmp_path, findings))
    assert (findings.scale.low, findings.scale.high) == (1.0, 5.0)
    assert np.unique(first[128:].reshape(-1, 3), axis=0).tolist() == second[:1, 0].tolist()
    assert np.unique(second[:128].reshape(-1, 3), axis=0).tolist() == first[255:, 0].tolist()
    assert first[0, 0].tolist() != first[255, 0].tolist()


def test_colour_bar_runs_from_the_first_colour_to_the_last(tmp_path):
    picture = read(save_all(tmp_path, make_findings())[0]).astype(int)
    x = MARGIN + 3 * (256 + GAP) + BAR // 2
    body = 256 / 1.1  # and a pointed end of 5 % of it above and below
    for y in range(16, 241, 32):
        share = 1 - (y + 0.5 - 0.05 * body) / body
        assert np.abs(picture[TOP + y, x] - 255 * np.array(COLOURS(share)[:3])).max() <= 4


def test_scale_leaves_out_the_extremes_and_bears_equal_scores():
    maps = np.arange(101.0 * 101.0).reshape(1, 101, 101)
    scale = Scale.of(maps)
    assert (scale.low, scale.high) == pytest.approx((102.0, 10149.0))
    assert Scale.of(np.full_like(maps, 7.0)) == Scale(7.0, 8.0)


def test_picture_names_are_plain_names_and_differ():
    paths = ["t/x/a.png", "t/x/a.jpg", "t/x/A.bmp", "../../etc/passwd", "t/..", "t/a b:c$.png"]
    rows = [ScoreRow(path, "../x\\y", 1, 0.0) for path in paths]
    assert picture_names(rows) == [
        "_x_y_a.png",
        "_x_y_a_2.png",
        "_x_y_A_3.png",
        "_x_y_passwd.png",
        "_x_y_...png",
        "_x_y_a_b_c_.png",
    ]


def test_picture_names_are_short_enough_for_any_file_system(tmp_path):
    rows = [ScoreRow(f"t/x/{'画' * 80}{i}.png", "欠陥", 1, 0.0) for i in range(2)]
    names = picture_names(rows)
    assert len(set(names)) == 2
    assert max(len(name.encode()) for name in names) <= 255
    findings = make_findings()
    findings = dataclasses.replace(findings, masks=None, rows=rows)
    save_all(tmp_path, findings)
    save_overview(tmp_path / "o.png", findings)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "o.png"])


def test_title_names_image_label_and_score_and_is_cut():
    row = ScoreRow("tile/test/crack/007.png", "crack", 1, 12.3456)
    assert title(row, 90) == "crack / 007.png   anomalous   score 12.35"
    assert title(row, 36) == "crack / 0…   anomalous   score 12.35"


def test_overview_shows_the_best_found_and_the_hardest():
    labels = [1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1]
    scores = [5.0, 1.0, 9.0, 2.0, 7.0, 8.0, 3.0, 6.0, 4.0, 0.0, 1.5]
    assert overview_groups(make_rows(labels, scores)) == {
        "highest scores": [2, 5, 7],
        "hardest anomalies": [10, 3, 6],
        "hardest normal images": [4, 8, 1],
    }
    assert overview_groups(make_rows([1, 1, 1, 1, 0], [4.0, 3.0, 2.0, 1.0, 0.0])) == {
        "highest scores": [0, 1, 2],
        "hardest anomalies": [3],
        "hardest normal images": [4],
    }
    assert overview_groups(make_rows([0, 0], [1.0, 2.0])) == {"hardest normal images": [1, 0]}


@pytest.mark.parametrize(("with_masks", "height"), [(True, 536), (False, 382)])
def test_overview_holds_the_chosen_images(tmp_path, with_masks, height):
    findings = make_findings(n=3, side=150, with_masks=with_masks)
    save_overview(tmp_path / "overview.png", findings)
    sheet = read(tmp_path / "overview.png")[..., :3]
    assert sheet.shape == (height, 2 * MARGIN + 3 * 154 + 2 * GAP + BAR + TICKS, 3)
    np.testing.assert_array_equal(sheet[64 : 64 + 150, 28 : 28 + 150], findings.images[2])


def test_histogram_shows_both_kinds(tmp_path):
    rows = make_rows([0] * 20 + [1] * 20, [*np.linspace(0, 1, 20), *np.linspace(3, 4, 20)])
    save_histogram(tmp_path / "histogram.png", rows, 1.0)
    picture = read(tmp_path / "histogram.png")[..., :3].astype(int)
    assert picture.shape == (320, 560, 3)
    blue, red = picture[..., 2] - picture[..., 0] > 60, picture[..., 0] - picture[..., 2] > 60
    assert blue[:, :280].sum() > 1000
    assert red[:, 280:].sum() > 1000


def test_parts_that_differ_in_number_are_an_error():
    findings = make_findings(n=3)
    with pytest.raises(ValueError, match=r"differ in number: \[3, 3, 2, 3\]"):
        dataclasses.replace(findings, rows=findings.rows[:2])


def test_pictures_need_no_global_state():
    code = "import sys, adtr_jax.evaluation.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
