"""Drift: silent where it should be, defects included, and not where the images changed."""

import math

import numpy as np
import pytest
from scipy import stats

from adtr_jax.calibration import Calibration, Drift
from adtr_jax.calibration.drift import at_most
from adtr_jax.errors import InputError

SIZES = (12, 23, 100)


def drift(scores, **options):
    return Drift(Calibration(scores, scores), **options)


def batch(calibration, scores, **options):
    """What is said of a batch at its end."""
    found = drift(calibration, **options)
    for score in scores:
        found.add(float(score))
    return found.message()


@pytest.mark.parametrize(("good", "n", "j"), [(10, 12, 6), (10, 12, 12), (200, 23, 12), (7, 1, 1)])
def test_the_law_is_the_beta_binomial(good, n, j):
    expected = stats.betabinom.cdf(np.arange(good + 1), good, j, n + 1 - j)
    found = [at_most(inside, good, n, j) for inside in range(good + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_law_by_counting_orders():
    # Of 5 scores the 3 new ones are the highest.
    assert at_most(0, 3, 2, 2) == pytest.approx(1 / math.comb(5, 2))
    # Far in the tail, where products of factorials would overflow.
    assert at_most(0, 3000, 500, 250) == pytest.approx(0.0, abs=1e-100)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_one_test_uses_its_level_and_no_more(n, share):
    """The p-value of 30 good images is at most a as often as a, but for its steps."""
    rng = np.random.default_rng(n)
    j, trials = math.ceil(share * n), 20_000
    limits = np.sort(rng.normal(size=(trials, n)), axis=1)[:, j - 1]
    inside = (rng.normal(size=(trials, 30)) <= limits[:, None]).sum(axis=1)
    p = np.array([at_most(count, 30, n, j) for count in range(31)])
    for level in (0.01, 0.05, 0.2):
        exact = p[p <= level].max(initial=0.0)  # its steps are the values it can take
        assert (p[inside] <= level).mean() == pytest.approx(
            exact, abs=4 * math.sqrt(level / trials)
        )


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bad", [0.0, 0.5])
def test_good_images_are_called_drift_at_most_at_the_level(n, bad):
    """Exchangeable images, none or half of them replaced by defects with any scores."""
    rng = np.random.default_rng(n)
    level, trials, said = 0.05, 1000, 0
    for _ in range(trials):
        scores = rng.lognormal(size=n + 40)
        defects = rng.choice([-100.0, 100.0])
        scores[n : n + int(bad * 40)] = defects
        said += batch(scores[:n], rng.permutation(scores[n:]), level=level) is not None
    # Six tests and one look of many share the level, so that it is hardly used up.
    assert said / trials <= level


@pytest.mark.parametrize("n", SIZES)
def test_a_batch_at_the_default_level_says_nothing_of_good_images(n):
    rng = np.random.default_rng(n)
    said = 0
    for _ in range(2000):
        scores = rng.gamma(3, size=n + 25)
        said += batch(scores[:n], scores[n:]) is not None
    assert said <= 2  # 0.3 are expected at most


@pytest.mark.parametrize("n", SIZES)
def test_a_stream_that_is_asked_after_every_image_keeps_the_level(n):
    rng = np.random.default_rng(n)
    level, trials, said = 0.2, 200, 0
    for _ in range(trials):
        found = drift(rng.normal(size=n), level=level)
        for score in rng.normal(size=300):
            found.add(float(score))
            said += found.message() is not None
    assert said / trials <= level


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("shift", "side", "end"),
    [
        (4.0, "higher", "the camera, the light or the product may have changed"),
        (-4.0, "lower", "and defects may go unnoticed"),
    ],
)
def test_images_that_changed_are_found(n, shift, side, end):
    rng = np.random.default_rng(n)
    for _ in range(50):
        message = batch(rng.normal(size=n), rng.normal(size=60) + shift)
        assert message is not None
        assert f"of 60 score {side} than" in message
        assert end in message


def test_what_is_said():
    calibration = np.arange(23.0)
    message = batch(calibration, np.full(60, 30.0))
    assert message == (
        "the images as a whole do not look like the good images that the model was calibrated on: "
        "60 of 60 score higher than all of those did; unless most of them are defective, the "
        "camera, the light or the product may have changed (p < 1e-12, even if half of the images "
        "were defective)"
    )
    message = batch(np.arange(12.0), [*np.full(25, -1.0), 5.0])
    # At most 1 of 13 images is not below the lowest of 12; six tests, the first look of many.
    p = 6 * 2 * stats.betabinom.cdf(1, 13, 12, 1)
    assert "25 of 26 score lower than all of those did; the camera" in message
    assert f"(p = {p:.1g}, even if" in message


def test_half_a_batch_of_defects_is_no_drift():
    rng = np.random.default_rng(0)
    good = rng.normal(size=223)
    assert batch(good[:23], [*good[23:], *np.full(200, 50.0)]) is None
    assert batch(good[:23], [*good[23:53], *np.full(370, 50.0)]) is not None


def test_nineteen_images_are_too_few_and_it_is_said_once():
    found = drift(np.arange(50.0))
    for _ in range(19):
        found.add(99.0)
    assert found.message() is None
    found.add(99.0)
    assert "20 of 20 score higher than all" in found.message()
    for _ in range(100):
        found.add(99.0)
    assert found.message() is None


def test_it_looks_when_there_is_a_quarter_more():
    found = drift(np.arange(50.0))
    said_at = None
    for i in range(1, 400):
        found.add(i * 21.0 % 50 if i <= 80 else 99.0)
        if found.message():
            said_at = i
    # Looks: 20, 40, 60, 80, 107, 143, 191, 255. At 191 the 111 are not yet far above the half.
    assert said_at == 255


def test_equal_scores_are_no_drift():
    assert batch(np.ones(100), np.ones(1000)) is None


def test_a_window_shows_what_a_long_stream_hides():
    rng = np.random.default_rng(0)
    stream = [*rng.normal(size=2000), *(rng.normal(size=200) + 6)]
    calibration = rng.normal(size=50)
    for window, expected in ((None, False), (100, True)):
        found = drift(calibration, window=window)
        messages = []
        for score in stream:
            found.add(float(score))
            messages.append(found.message())
        assert any(messages[2000:]) is expected
        assert not any(messages[:2000])


def test_one_calibration_image_can_hardly_show_drift():
    assert batch(np.ones(1), np.full(60, 5.0)) is None


def test_bad_input_is_an_error():
    with pytest.raises(InputError, match="a window of 19 images shows no drift; give at least 20"):
        drift(np.ones(3), window=19)
    with pytest.raises(InputError, match="the score of an image is NaN"):
        drift(np.ones(3)).add(float("nan"))
