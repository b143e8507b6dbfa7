"""P-values, thresholds and what they promise."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import adtr_jax
from adtr_jax.calibration import Calibration
from adtr_jax.calibration.conformal import images_needed, promised_rank
from adtr_jax.config import AdtrSettings
from adtr_jax.data import solar_cells as elpv
from adtr_jax.errors import InputError

# Few distinct values, so that ties are common, and any others.
NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e100, 1e100))
SCORES = st.lists(NUMBERS, min_size=1, max_size=30).map(np.array)
RATES = st.floats(0, 1, exclude_min=True, exclude_max=True)


def calibrated(scores, peaks=None):
    scores = np.asarray(scores, np.float64)
    return Calibration(scores, scores if peaks is None else np.asarray(peaks, np.float64))


def test_p_values_count_the_scores_that_are_as_high():
    calibration = calibrated([3.0, 1.0, 2.0, 2.0])
    scores = np.array([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, np.inf])
    np.testing.assert_array_equal(
        calibration.p_value(scores), [1.0, 1.0, 4 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5]
    )
    assert calibration.p_value(2.0) == 4 / 5
    assert type(calibration.p_value(np.float32(2.0))) is float
    assert calibration.smallest_rate == 1 / 5


@settings(max_examples=500, deadline=None)
@given(SCORES, st.data(), RATES)
def test_anomalous_is_a_p_value_of_at_most_the_rate(scores, data, false_alarms):
    calibration = calibrated(scores)
    decision = calibration.decision(false_alarms, "conformal")
    around = [*scores, *np.nextafter(scores, np.inf), *np.nextafter(scores, -np.inf), np.inf]
    new = np.array([*around, data.draw(NUMBERS)])
    np.testing.assert_array_equal(
        decision.is_anomalous(new), calibration.p_value(new) <= decision.rate
    )
    assert decision.is_anomalous(float(new[0])) is bool(
        calibration.p_value(new)[0] <= decision.rate
    )


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 2000), st.floats(1e-12, 1, exclude_max=True))
@example(99, 0.01)
@example(59, 0.05)
@example(48, 1 / 49)  # whose product with 49 is below 1
@example(1, 1 - 2**-53)
def test_the_rate_is_the_largest_that_can_be_promised(n, asked):
    k = promised_rank(n, asked)
    assert 0 <= k <= n
    assert k / (n + 1) <= asked < (k + 1) / (n + 1)
    needed = images_needed(asked)
    assert 1 / (needed + 1) <= asked
    assert needed == 1 or 1 / needed > asked


@pytest.mark.parametrize(("asked", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1)])
def test_the_images_that_a_rate_needs(asked, needed):
    assert images_needed(asked) == needed
    assert promised_rank(needed, asked) == 1
    assert Fraction(1, needed + 1) == Fraction(asked).limit_denominator(1000)


def test_the_threshold_is_an_order_statistic():
    scores, peaks = np.arange(99.0), np.arange(99.0) ** 2
    calibration = Calibration(scores, peaks)
    decision = calibration.decision(0.05)
    assert (decision.rate, decision.promised, decision.held_out) == (0.05, True, 99)
    assert (decision.threshold, decision.pixel_threshold) == (94.0, 94.0**2)
    assert not decision.is_anomalous(94.0)
    assert decision.is_anomalous(94.5)
    assert (peaks > decision.pixel_threshold).mean() <= 0.05


def test_a_rate_that_cannot_be_promised_is_the_smallest_that_can():
    decision = calibrated(np.arange(12.0)).decision(0.01)
    assert (decision.rate, decision.promised, decision.threshold) == (1 / 13, False, 11.0)
    assert decision.estimate > 11.0


def test_the_estimate_decides_where_it_is_asked_to_and_promises_nothing():
    rng = np.random.default_rng(0)
    calibration = Calibration(rng.gamma(4, size=300), rng.gamma(9, size=300))
    promised = calibration.decision(0.02, "conformal")
    estimated = calibration.decision(0.02, "estimated")
    assert promised.promised and not estimated.promised
    assert estimated.threshold == estimated.estimate == promised.estimate
    assert estimated.rate == promised.rate == 6 / 301
    assert estimated.threshold > promised.threshold
    # What gamma distributions of shape 4 and 9 exceed at 2 %.
    assert estimated.threshold == pytest.approx(9.08, abs=0.5)
    assert estimated.pixel_threshold == pytest.approx(16.2, abs=1.0)


@settings(max_examples=300, deadline=None)
@given(SCORES, RATES)
def test_the_estimate_is_never_below_what_is_promised(scores, false_alarms):
    calibration = calibrated(scores)
    estimated = calibration.decision(false_alarms, "estimated")
    conformal = calibration.decision(false_alarms, "conformal")
    assert estimated.threshold >= conformal.threshold
    assert estimated.pixel_threshold >= conformal.pixel_threshold


@pytest.fixture(scope="module")
def solar_cells() -> tuple[np.ndarray, np.ndarray]:
    """Scores and peaks of real good images, by a model trained on a hundred others."""
    pytest.importorskip("elpv_dataset")
    cells = [sample.image for sample in elpv.read_category("mono").train]
    model = AdtrSettings(
        backbone="pixels", layers=(4,), image_size=64, standardise=True, width=32, heads=4,
        depth=1, hidden=64, max_steps=60, batch_size=8, learning_rate=2e-3, dropout=0.0,
    )  # fmt: skip
    found = list(adtr_jax.fit(cells[:100], model).predict(cells[100:]))
    return np.array([f.raw_score for f in found]), np.array([f.score_map.max() for f in found])


def heavy_tailed() -> tuple[np.ndarray, np.ndarray]:
    scores = np.random.default_rng(0).standard_t(1.5, 400) ** 2
    return scores, np.random.default_rng(1).standard_t(1.5, 400) + scores


@pytest.mark.parametrize("n", [19, 99, 150])
@pytest.mark.parametrize("real", [False, True], ids=["heavy-tailed", "solar cells"])
def test_the_mean_rate_of_false_alarms_is_the_promised_one(n, real, request):
    """1,000 random splits of good images' scores into calibration and new."""
    scores, peaks = request.getfixturevalue("solar_cells") if real else heavy_tailed()
    assert len(scores) >= 370
    rng = np.random.default_rng(n)
    asked = (0.01, 0.05, 0.1)
    rates = np.zeros((1000, 2, len(asked)))
    for i in range(1000):
        order = rng.permutation(len(scores))
        held, new = order[:n], order[n:]
        calibration = Calibration(scores[held].astype(float), peaks[held].astype(float))
        for j, false_alarms in enumerate(asked):
            decision = calibration.decision(false_alarms)
            rates[i, 0, j] = decision.is_anomalous(scores[new]).mean()
            rates[i, 1, j] = (peaks[new] > decision.pixel_threshold).mean()
    errors = 3 * rates.std(axis=0) / np.sqrt(len(rates))
    for found, error in zip(rates.mean(axis=0), errors, strict=True):
        for j, false_alarms in enumerate(asked):
            promised = max(1, promised_rank(n, false_alarms)) / (n + 1)
            assert abs(found[j] - promised) <= error[j]
            if 1 / (n + 1) <= false_alarms:
                assert false_alarms / 2 <= found[j] <= false_alarms + error[j]


def test_tied_scores_give_fewer_false_alarms_than_promised():
    rng = np.random.default_rng(3)
    rates = []
    for _ in range(1000):
        scores = rng.integers(0, 4, 120).astype(np.float64)
        rates.append(calibrated(scores[:60]).decision(0.3).is_anomalous(scores[60:]).mean())
    assert 0.15 < np.mean(rates) < 0.25


def test_readable_scores_by_hand():
    calibration = calibrated(np.arange(1.0, 5.0))  # quartiles 1 and 3
    assert calibration.spread == pytest.approx(2 / 1.349)
    spread = calibration.spread
    raw = 4.0 + spread * np.array([-9.0, -1.0, 0.0, 1.0, 9.0, 99.0])
    np.testing.assert_allclose(
        calibration.readable(raw, 4.0), [0.05, 0.25, 0.5, 0.75, 0.95, 0.995], rtol=1e-12
    )
    assert type(calibration.readable(4.0, 4.0)) is float


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=20),
    st.data(),
)
def test_readable_scores_agree_with_the_threshold_and_rise(scores, raw, data):
    threshold = data.draw(st.sampled_from(scores))
    raw = np.sort([*raw, threshold, math.nextafter(threshold, math.inf)])
    readable = calibrated(scores).readable(raw, threshold)
    assert ((readable >= 0) & (readable <= 1)).all()
    assert (np.diff(readable) >= 0).all()
    np.testing.assert_array_equal(readable > 0.5, raw > threshold)
    assert (readable[raw == threshold] == 0.5).all()


def test_readable_scores_of_usual_sizes_rise_strictly():
    calibration = calibrated(np.random.default_rng(0).gamma(4, size=23))
    raw = np.concatenate([np.linspace(0, 100, 10_001), np.geomspace(101, 1e6, 1000)])
    readable = calibration.readable(raw, calibration.decision(0.05).threshold)
    assert (np.diff(readable) > 0).all()


@pytest.mark.parametrize(
    ("scores", "spread"),
    [([5.0] * 9, 5.0), ([-2.0], 2.0), ([0.0, 0.0], 1.0), ([1.0] * 8 + [3.0], 2.0)],
)
def test_scores_without_spread(scores, spread):
    calibration = calibrated(scores)
    assert calibration.spread == spread
    high = max(scores) + spread
    assert calibration.readable(high, max(scores)) == 0.75
    decision = calibration.decision(0.01)
    assert decision.threshold == max(scores)
    assert decision.is_anomalous(high)


GAMMA = np.random.default_rng(0).gamma(4, size=23)


def test_the_summary_of_a_promise_that_cannot_be_kept():
    assert calibrated(GAMMA).decision(0.01).describe() == (
        "A good image is called anomalous, at a score above 6.895, in at most 1 of 24 (4.2 %): 23 "
        "held-out good images cannot promise the 1 % asked for; hold out at least 99 to promise "
        "it. Estimated from the tail of their scores, 1 % is at a score of 9.751 "
        "(--threshold=estimated)."
    )


def test_the_summary_of_a_promise_that_is_kept():
    text = "in at most 12 of 24 (50 %): 23 held-out good images can promise the 52 % asked for."
    assert calibrated(GAMMA).decision(0.52).describe().endswith(text)


def test_the_summary_of_an_estimate():
    assert calibrated(GAMMA).decision(0.01, "estimated").describe() == (
        "A good image is called anomalous, at a score above 9.751, in about 1 %: an estimate from "
        "the tail of the scores of 23 held-out good images, not a promise. Promised is at most 1 "
        "of 24 (4.2 %)."
    )


def test_one_image_promises_a_half_and_estimates_nothing():
    text = calibrated([2.0]).decision(0.01).describe()
    assert "at most 1 of 2 (50 %): 1 held-out good image cannot promise the 1 %" in text
    assert "Estimated" not in text


@pytest.mark.parametrize("false_alarms", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_rate_out_of_range_is_an_error_that_names_the_flag(false_alarms):
    with pytest.raises(InputError, match=f"--false_alarms={false_alarms} is no share .* 0 and 1"):
        calibrated([1.0]).decision(false_alarms)


@pytest.mark.parametrize(
    ("scores", "peaks", "text"),
    [
        ([], [], "no good image was held out; hold out at least one"),
        ([1.0, 2.0], [1.0], "2 scores but 1 peaks of score maps; give both"),
        ([1.0, np.nan, np.inf], [1.0] * 3, "2 of 3 scores are NaN or infinite; .* learning rate"),
        ([1.0], [-np.inf], "1 of 1 peaks of score maps are NaN or infinite"),
    ],
)
def test_scores_that_cannot_calibrate_are_an_error(scores, peaks, text):
    with pytest.raises(InputError, match=f"calibration: {text}"):
        calibrated(scores, peaks)


def test_the_score_of_an_image_that_is_nan_is_an_error():
    calibration = calibrated([1.0, 2.0])
    nan = float("nan")
    calls = (
        lambda: calibration.p_value(nan),
        lambda: calibration.p_value(np.array([1.0, nan])),
        lambda: calibration.decision(0.1).is_anomalous(nan),
        lambda: calibration.readable(nan, 1.0),
    )
    for call in calls:
        with pytest.raises(InputError, match="the score of an image is NaN"):
            call()


def test_float32_scores_are_compared_in_float64():
    score = np.float32(0.1)  # a little above 0.1
    decision = calibrated([0.1]).decision(0.5)
    assert decision.is_anomalous(score)
    assert decision.is_anomalous(np.array([score])).tolist() == [True]
    assert calibrated([0.1]).p_value(score) == 0.5


def test_importing_the_package_imports_neither_jax_nor_matplotlib():
    code = (
        "import sys, adtr_jax.calibration\n"
        "print([m for m in ('jax', 'matplotlib', 'scipy.stats') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
