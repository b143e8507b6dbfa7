"""Regions of a score map, in pixels of the original image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adtr_jax.calibration.regions import MAX_REGIONS, Region, find_regions
from adtr_jax.errors import InputError


def owners(side, length, crop):
    """Of each column of the original image the column of the map that its centre lies in."""
    whole = round(side / crop)
    before = (whole - side) // 2
    column = [(2 * i + 1) * whole // (2 * length) - before for i in range(length)]
    return [c if 0 <= c < side else None for c in column]


def oracle(scores, threshold, width, height, crop):
    """The map at the size of the original image, pixel by pixel, and its regions by flood fill."""
    side = len(scores)
    columns, rows = owners(side, width, crop), owners(side, height, crop)
    waiting = {
        (r, c)
        for r in range(height)
        for c in range(width)
        if rows[r] is not None
        and columns[c] is not None
        and scores[rows[r], columns[c]] > threshold
    }
    found = []
    while waiting:
        stack, region = [waiting.pop()], []
        while stack:
            r, c = stack.pop()
            region.append((r, c))
            for near in [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in waiting:
                    waiting.remove(near)
                    stack.append(near)
        r, c = np.array(region).T
        box = (int(c.min()), int(r.min()), int(c.max()) + 1, int(r.max()) + 1)
        peak = max(float(scores[rows[r], columns[c]]) for r, c in region)
        found.append(Region(box, len(region), peak))
    return found


@st.composite
def maps(draw):
    side = draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    levels = draw(st.sampled_from([2, 3, 1000]))
    scores = np.random.default_rng(seed).integers(0, levels, (side, side)) / levels
    return scores.astype(draw(st.sampled_from([np.float32, np.float64])))


CROPS = st.sampled_from([1.0, 0.875, 0.5, 0.7])


@settings(max_examples=300, deadline=None)
@given(maps(), CROPS, st.data())
def test_regions_equal_the_oracle(scores, crop, data):
    whole = round(len(scores) / crop)
    width, height = (data.draw(st.integers(whole, 40)) for _ in range(2))
    regions = find_regions(scores, 0.5, width, height, crop)
    expected = oracle(scores, 0.5, width, height, crop)
    assert sorted(regions, key=lambda r: r.box) == sorted(expected, key=lambda r: r.box)
    peaks = [region.peak for region in regions]
    assert peaks == sorted(peaks, reverse=True)


@settings(max_examples=300, deadline=None)
@given(maps(), CROPS, st.integers(1, 12), st.integers(1, 12))
def test_boxes_and_areas_lie_in_an_image_of_any_size(scores, crop, width, height):
    regions = find_regions(scores, 0.5, width, height, crop)
    # No peak is lost, however small the image.
    assert max((r.peak for r in regions), default=None) == (
        float(scores.max()) if scores.max() > 0.5 else None
    )
    assert sum(region.area for region in regions) <= width * height
    for region in regions:
        left, top, right, bottom = region.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert 1 <= region.area <= (right - left) * (bottom - top)
        assert region.peak > 0.5


def test_regions_by_hand():
    scores = np.zeros((4, 4))
    scores[0, 0] = 0.7
    scores[1, 1] = 0.9  # touches it at a corner
    scores[3, 2:] = 0.95
    regions = find_regions(scores, 0.6, width=8, height=12)
    assert regions == (
        Region(box=(4, 9, 8, 12), area=12, peak=0.95),
        Region(box=(0, 0, 4, 6), area=12, peak=0.9),
    )


def test_a_pixel_at_the_threshold_is_in_no_region():
    scores = np.full((3, 3), 0.5)
    assert find_regions(scores, 0.5, 30, 30) == ()
    assert len(find_regions(scores, np.nextafter(0.5, 0), 30, 30)) == 1
    # 0.1 in float32 is a little above 0.1.
    assert len(find_regions(np.full((3, 3), 0.1, np.float32), 0.1, 30, 30)) == 1


@pytest.mark.parametrize(("crop", "size"), [(1.0, 32), (0.875, 28), (0.5, 33)])
def test_a_box_is_where_the_model_saw_the_defect(crop, size):
    """A bright rectangle, resized and cut out as the model's images are, is found where it was."""
    width, height = 640, 480
    box = (300, 200, 400, 280)
    pixels = np.zeros((height, width), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    whole = round(size / crop)
    before = (whole - size) // 2
    resized = Image.fromarray(pixels).resize((whole, whole), Image.Resampling.BILINEAR)
    seen = resized.crop((before, before, before + size, before + size))
    (region,) = find_regions(np.asarray(seen) / 255, 0.5, width, height, crop)
    # To a pixel of the map.
    assert region.box == pytest.approx(box, abs=max(width, height) / whole)


def test_a_crop_never_reaches_the_edge():
    (region,) = find_regions(np.ones((224, 224)), 0.5, 1024, 512, crop=0.875)
    assert region == Region(box=(64, 32, 960, 480), area=896 * 448, peak=1.0)


def test_a_noisy_map_gives_the_highest_hundred():
    scores = np.zeros((64, 64))
    scores[::2, ::2] = np.random.default_rng(0).permutation(1024).reshape(32, 32) + 1
    regions = find_regions(scores, 0.5, 64, 64)
    assert [region.peak for region in regions] == [1024.0 - i for i in range(MAX_REGIONS)]


@pytest.mark.parametrize(
    ("scores", "size", "crop", "text"),
    [
        ([[np.nan]], (4, 4), 1.0, "a score map holds values that are NaN or infinite"),
        ([[1.0]], (0, 4), 1.0, "an image of 0 x 4 pixels is empty"),
        ([[1.0]], (4, 4), 0.0, r"covers a share 0.0 of its image; give one in \(0, 1\]"),
        ([[1.0]], (4, 4), 1.5, "covers a share 1.5"),
    ],
)
def test_bad_input_is_an_error(scores, size, crop, text):
    with pytest.raises(InputError, match=text):
        find_regions(np.array(scores), 0.5, *size, crop)
