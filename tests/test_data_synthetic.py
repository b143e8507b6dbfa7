"""Synthetic anomalies: exact masks, streams of their own, and each kind against its definition."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from adtr_jax.data import synthetic
from adtr_jax.data.synthetic import KINDS, THRESHOLD, confetti, cutpaste, perlin, synthesise
from adtr_jax.data.synthetic.pixels import recolour
from adtr_jax.errors import InputError

SIZES = (32, 64, 224, 256)


def noise(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Random images with all values from 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def constant(value: int, size: int, n: int = 1) -> np.ndarray:
    """Images of one grey value."""
    return np.full((n, size, size, 3), value, np.uint8)


def ramp(size: int) -> np.ndarray:
    """An image whose red and green are the row and the column."""
    rows, columns = np.mgrid[:size, :size].astype(np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], -1)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    size=st.sampled_from(SIZES),
    value=st.none() | st.sampled_from([0, 255]) | st.integers(0, 255),
    seed=st.integers(0, 2**31 - 1),
)
def test_mask_is_exactly_where_the_image_changed(kind, size, value, seed):
    images = noise(2, size, seed) if value is None else constant(value, size, 2)
    before = images.copy()
    results, masks = synthesise(kind, images, seed)
    assert (images == before).all()
    assert (results.dtype, results.shape) == (np.uint8, images.shape)
    assert (masks.dtype, masks.shape) == (bool, images.shape[:3])
    difference = np.abs(results.astype(int) - images).max(-1)
    assert (masks == (difference > THRESHOLD)).all()
    assert (difference[~masks] == 0).all()
    assert masks.sum((1, 2)).min() >= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_get_an_anomaly_of_their_kind(kind, value, monkeypatch):
    monkeypatch.setattr(synthetic, "_move_square", None)  # the last resort would fail
    _, masks = synthesise(kind, constant(value, 64, 25), 3)
    assert masks.mean((1, 2)).min() >= synthetic.SMALLEST


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_depends_on_seed_and_place_alone(kind):
    images = noise(5, 64)
    results, masks = synthesise(kind, images, 7)
    again, _ = synthesise(kind, images, 7)
    assert (results == again).all()
    first, first_masks = synthesise(kind, images[:3], 7)
    assert (first == results[:3]).all()
    assert (first_masks == masks[:3]).all()
    other, _ = synthesise(kind, images, 8)
    assert all((other[i] != results[i]).any() for i in range(5))
    _, alike = synthesise(kind, constant(100, 64, 5), 7)
    assert len({mask.tobytes() for mask in alike}) == 5


def test_small_changes_are_taken_back(monkeypatch):
    def draw(rng, image, earlier):
        return image + np.arange(32, dtype=np.uint8)[:, None]

    monkeypatch.setitem(synthetic._DRAW, "confetti", draw)
    results, masks = synthesise("confetti", constant(100, 32), 0)
    assert masks[0, 0].tolist() == [column > THRESHOLD for column in range(32)]
    expected = [100 + column if column > 8 else 100 for column in range(32)]
    assert results[0, 5, :, 1].tolist() == expected


@pytest.mark.parametrize(("size", "side"), [(32, 4), (100, 12)])
def test_last_resort_is_a_square_moved_by_half_the_range(monkeypatch, size, side):
    calls = []

    def nothing(rng, image, earlier):
        calls.append(len(earlier))
        return image.copy()

    monkeypatch.setitem(synthetic._DRAW, "perlin", nothing)
    images = noise(1, size)
    results, masks = synthesise("perlin", images, 0)
    assert calls == [0] * synthetic.ATTEMPTS
    assert masks.sum() == side * side
    assert masks[0].any(0).sum() == side
    assert (np.abs(results.astype(int) - images)[masks] == 128).all()


def test_specks_are_drawn_again(monkeypatch):
    changes = iter([1, 2, 3, 4, 5])

    def draw(rng, image, earlier):
        after = image.copy()
        after[0, : next(changes)] = 200
        return after

    monkeypatch.setitem(synthetic._DRAW, "cutpaste", draw)
    _, masks = synthesise("cutpaste", constant(0, 128), 0)
    assert masks.sum() == 4  # 4 / 128^2 = 2.4e-4 is the first above 2e-4


def test_no_images():
    results, masks = synthesise("perlin", noise(0, 32), 0)
    assert (results.shape, masks.shape) == ((0, 32, 32, 3), (0, 32, 32))


def test_wrong_kind():
    with pytest.raises(InputError) as error:
        synthesise("confeti", noise(1, 32), 0)
    assert str(error.value) == (
        "no synthetic anomaly is called confeti: did you mean confetti? "
        "There are: confetti, cutpaste, perlin"
    )


def test_recolour():
    pixels = noise(1, 16)[0]
    same = {"turn": 1.0, "saturation": 1.0, "contrast": 1.0, "brightness": 0.0}
    assert (recolour(pixels, **same) == pixels).all()
    turned = recolour(pixels, **same | {"turn": 1 / 3})
    assert (turned == pixels[..., [2, 0, 1]]).all()  # red becomes green
    grey = np.repeat(pixels[..., :1], 3, -1)
    changed = recolour(grey, turn=0.3, saturation=1.5, contrast=-0.7, brightness=40.0)
    expected = grey[..., 0].mean() - 0.7 * (grey[..., 0] - grey[..., 0].mean()) + 40
    assert np.abs(changed - expected.clip(0, 255)[..., None]).max() <= 0.5 + 1e-9
    faded = recolour(pixels, **same | {"saturation": 0.0})
    assert np.abs(faded - pixels.mean(-1, keepdims=True)).max() <= 0.5 + 1e-9


def test_confetti_numbers_and_ranges():
    rng = np.random.default_rng(0)
    draws = [confetti.draw_rectangles(rng, 448) for _ in range(3000)]
    assert min(map(len, draws)) == 1
    rectangles = [rectangle for draw in draws for rectangle in draw]
    dark = np.array([(rectangle.colour == -255).all() for rectangle in rectangles])
    # Poisson's mean among those draws that are not empty; four standard errors are 0.07.
    coloured_mean, dark_mean = 1.8e-5 * 224**2, 1.2e-5 * 224**2
    not_empty = 1 - math.exp(-coloured_mean - dark_mean)
    assert (~dark).sum() / 3000 == pytest.approx(coloured_mean / not_empty, abs=0.07)
    assert dark.sum() / 3000 == pytest.approx(dark_mean / not_empty, abs=0.07)
    sides = np.array([rectangle.sides for rectangle in rectangles])  # twice those at 224 px
    assert (sides.min(), sides.max()) == pytest.approx((16, 108), abs=0.1)
    assert sides.mean() == pytest.approx(62, abs=1)
    angles = np.rad2deg([rectangle.angle for rectangle in rectangles])
    assert (angles.min(), angles.max()) == pytest.approx((-45, 45), abs=0.1)
    centres = np.array([rectangle.centre for rectangle in rectangles])
    assert (centres.min(), centres.max()) == pytest.approx((0, 448), abs=0.5)
    colours = np.array([rectangle.colour for rectangle in rectangles])[~dark]
    assert (colours.min(), colours.max()) == pytest.approx((0, 255), abs=0.5)


def test_confetti_is_a_rotated_rectangle_under_a_gaussian():
    sides, angle = np.array([54.0, 20.0]), 0.6
    centre, fine, frame = np.array([60.3, 15.0]), 4, 40  # cut by the left edge
    rectangle = confetti.Rectangle(centre, sides, angle, np.array([0.0, 0.0, 0.0]))
    window, shares = confetti.blurred(rectangle, 112)
    ours = np.zeros((112, 112))
    ours[window] = shares
    # Drawn finely, with room around the image, then blurred and averaged over each pixel.
    points = (np.arange((112 + 2 * frame) * fine) + 0.5) / fine - frame
    y, x = points[:, None] - centre[0], points[None, :] - centre[1]
    along = np.cos(angle) * y + np.sin(angle) * x
    across = np.cos(angle) * x - np.sin(angle) * y
    drawn = ((np.abs(along) < 27) & (np.abs(across) < 10)).astype(float)
    drawn = gaussian_filter(drawn, 2.5 * fine, truncate=6)
    drawn = drawn.reshape(112 + 2 * frame, fine, -1, fine).mean((1, 3))[frame:-frame, frame:-frame]
    assert ours.max() == pytest.approx(1, abs=0.001)
    assert np.abs(ours - drawn).max() < 0.003


def test_confetti_covers_the_same_share_at_every_size():
    shares = {}
    for size in (64, 256):
        images = constant(128, size, 200)
        results, masks = synthesise("confetti", images, 0)
        shares[size] = masks.mean((1, 2))
        assert (results[masks].astype(int) > 128).any()
        assert results[masks].min() == 0  # the middle of a dark one, clipped
    # 1.93 rectangles of 31 x 31 px, which the blur widens by about 13 px, some beyond the edge.
    assert shares[256].mean() == pytest.approx(0.071, abs=0.01)
    assert np.abs(shares[64] - shares[256]).max() < 0.01


def test_cutpaste_moves_a_patch_or_a_scar(monkeypatch):
    monkeypatch.setattr(cutpaste, "JITTER", 0.0)
    image = ramp(256)
    areas, aspects, scars = [], [], 0
    for seed in range(300):
        after = cutpaste.draw(np.random.default_rng(seed), image, image[None][:0])
        changed = (after != image).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        shift = (after.astype(int) - image)[changed]
        if changed.sum() <= 25 * 16 + 41:  # its pixels' centres may add half the perimeter
            scars += 1
            assert math.hypot(h, w) <= math.hypot(25, 16) * math.sqrt(2) + 2
        else:
            assert (shift == shift[0]).all()
            areas.append(h * w / 256**2)
            aspects.append(h / w)
    assert 120 <= scars <= 180
    assert (min(areas), max(areas)) == pytest.approx((0.02, 0.15), abs=0.005)
    assert min(aspects) == pytest.approx(0.3, abs=0.05)
    assert max(aspects) == pytest.approx(1 / 0.3, abs=0.3)
    assert np.mean(np.array(aspects) < 1) == pytest.approx(0.5, abs=0.13)


def test_a_piece_is_pasted_where_it_belongs():
    piece = noise(1, 8)[0][:, :4]
    expected = constant(0, 32)[0]
    expected[10:18, 20:24] = piece
    assert (cutpaste._paste(constant(0, 32)[0], piece, (14.0, 22.0), 0.0) == expected).all()
    expected = constant(0, 32)[0]
    expected[12:16, 18:26] = np.rot90(piece)
    turned = cutpaste._paste(constant(0, 32)[0], piece, (14.0, 22.0), math.pi / 2)
    assert (turned == expected).all()


def test_cutpaste_changes_colours_a_little():
    images = constant(100, 64, 100)
    results, masks = synthesise("cutpaste", images, 0)
    values = results[masks].astype(int)
    assert (values.min(), values.max()) == pytest.approx((100 - 25.5, 100 + 25.5), abs=2)
    assert (np.ptp(values, axis=-1) == 0).all()  # grey stays grey


def test_perlin_noise_against_its_definition():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, (5, 7))
    gradients = np.stack([np.cos(angles), np.sin(angles)], -1)
    y, x = rng.uniform(-2, 6, (2, 40, 40))

    def smooth(a, b, t):
        return a + (6 * t**5 - 15 * t**4 + 10 * t**3) * (b - a)

    def at(v, u):
        top, left = math.floor(v), math.floor(u)
        dots = [
            gradients[(top + i) % 5, (left + j) % 7] @ [v - top - i, u - left - j]
            for i in (0, 1)
            for j in (0, 1)
        ]
        upper, lower = smooth(dots[0], dots[1], u - left), smooth(dots[2], dots[3], u - left)
        return math.sqrt(2) * smooth(upper, lower, v - top)

    expected = np.vectorize(at)(y, x)
    assert perlin.perlin_noise(y, x, gradients) == pytest.approx(expected, abs=1e-12)


def test_perlin_noise_is_zero_on_the_lattice_and_bounded():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-3:6, -2:9].astype(float)
    angles = rng.uniform(0, 2 * np.pi, (4, 4))
    gradients = np.stack([np.cos(angles), np.sin(angles)], -1)
    assert (perlin.perlin_noise(rows, columns, gradients) == 0).all()
    # All four gradients of a cell towards its middle: the highest value there is.
    corners = np.array([[[1, 1], [1, -1]], [[-1, 1], [-1, -1]]]) / math.sqrt(2)
    middle = perlin.perlin_noise(np.full((1, 1), 0.5), np.full((1, 1), 0.5), corners)
    assert middle.item() == pytest.approx(1, abs=1e-12)
    values = np.stack([perlin.random_noise(rng, 64) for _ in range(200)])
    assert -1 <= values.min() < -0.8
    assert 0.8 < values.max() <= 1
    assert values.mean() == pytest.approx(0, abs=0.02)


def test_perlin_blends_a_texture(monkeypatch):
    monkeypatch.setattr(perlin, "_texture", lambda rng, image: image)
    (black,), white = constant(0, 64), constant(250, 64)
    values = []
    for seed in range(300):
        after = perlin.draw(np.random.default_rng(seed), black, white)
        levels = set(np.unique(after).tolist()) - {0}
        assert len(levels) <= 1
        values.extend(levels)
    assert len(values) > 250
    # 250 (1 - beta), beta in [0.1, 0.8]
    assert (min(values), max(values)) == pytest.approx((50, 225), abs=3)


def test_texture_is_made_of_shuffled_tiles():
    image = ramp(64)
    shuffled = perlin._shuffle_tiles(np.random.default_rng(0), image)
    tiles = {
        image[y : y + 8, x : x + 8].tobytes() for y in range(0, 64, 8) for x in range(0, 64, 8)
    }
    moved = [
        (y, x)
        for y in range(0, 64, 8)
        for x in range(0, 64, 8)
        if shuffled[y, x, :2].tolist() != [y, x]
    ]
    found = {
        shuffled[y : y + 8, x : x + 8].tobytes() for y in range(0, 64, 8) for x in range(0, 64, 8)
    }
    assert found == tiles
    assert len(moved) > 55
    assert perlin._shuffle_tiles(np.random.default_rng(0), ramp(100)).shape == (100, 100, 3)


def test_importing_needs_no_jax():
    code = (
        "import sys; from adtr_jax.data.synthetic import KINDS;print(*KINDS, 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "confetti cutpaste perlin False"
