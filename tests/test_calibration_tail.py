"""The fitted tail: against SciPy's distribution, against known ones, and its limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from adtr_jax.calibration.conformal import promised_rank
from adtr_jax.calibration.tail import fit_excesses, generalised_pareto_quantile, tail_quantile

NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
SCORES = st.lists(NUMBERS, min_size=1, max_size=80).map(np.array)
RATES = st.floats(1e-12, 1, exclude_max=True)


@pytest.mark.parametrize("xi", [-0.7, -0.1, 0.0, 1e-12, 0.2, 0.8])
def test_the_quantile_is_that_of_scipys_distribution(xi):
    for rate in (1.0, 0.4, 1e-3, 1e-9):
        expected = stats.genpareto.isf(rate, xi, scale=3.0)
        assert generalised_pareto_quantile(rate, xi, 3.0) == pytest.approx(expected, rel=1e-9)


def test_the_fit_by_hand():
    # l_1 = 3; the mean difference of two of 6, 2 and 1 is (4 + 5 + 1) / 3, half of it is l_2 = 5/3.
    xi, sigma = fit_excesses(np.array([6.0, 2.0, 1.0]))
    assert xi == pytest.approx((3 * (2 - 3 / (5 / 3)) + 20 * 0.2) / 23)
    assert sigma == pytest.approx(3 * (1 - xi))
    assert fit_excesses(np.array([2.0])) == (0.2, 1.6)
    # Equal excesses: as a uniform distribution, xi = -1, before the prior.
    assert fit_excesses(np.full(5, 2.0))[0] == pytest.approx((5 * -1 + 4) / 25)


@pytest.mark.parametrize("xi", [-0.5, 0.01, 0.3])
def test_many_excesses_outweigh_the_prior(xi):
    sample = stats.genpareto.rvs(xi, scale=2.0, size=50_000, random_state=0)
    found = fit_excesses(np.sort(sample)[::-1])
    assert found == pytest.approx((xi, 2.0), abs=0.05)


@pytest.mark.parametrize("n", [500, 5000])
def test_rates_within_the_data_agree_with_the_data(n):
    scores = np.random.default_rng(1).lognormal(size=n)
    descending = np.sort(scores)[::-1]
    for rate in (0.3, 0.5, 0.9):
        assert tail_quantile(scores, rate) == descending[int(rate * (n + 1)) - 1]
    for rate in (0.02, 0.05, 0.1):  # by the fit, or a little above it
        expected = np.quantile(scores, 1 - rate, method="weibull")
        assert tail_quantile(scores, rate) == pytest.approx(expected, rel=0.15)


@settings(max_examples=300, deadline=None)
@given(SCORES, st.lists(RATES, min_size=2, max_size=10))
def test_it_falls_with_the_rate_and_is_never_below_the_evidence(scores, rates):
    rates = sorted([*rates, *(k / (len(scores) + 1) for k in range(1, len(scores) + 1))])
    values = np.array([tail_quantile(scores, rate) for rate in rates])
    assert np.isfinite(values).all()
    assert (np.diff(values) <= 0).all()
    descending = np.sort(scores)[::-1]
    for rate, value in zip(rates, values, strict=True):
        assert value >= descending[max(1, promised_rank(len(scores), rate)) - 1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 80), RATES)
def test_it_moves_with_the_unit_and_not_with_the_order(seed, n, rate):
    rng = np.random.default_rng(seed)
    scores = rng.gamma(2, size=n)
    value = tail_quantile(scores, rate)
    assert tail_quantile(rng.permutation(scores), rate) == value
    assert tail_quantile(8 * scores, rate) == pytest.approx(8 * value, rel=1e-12)
    assert tail_quantile(scores + 5, rate) == pytest.approx(value + 5, rel=1e-6)


@pytest.mark.parametrize("scores", [[2.0], [2.0] * 40, [1.0] + [2.0] * 30])
def test_without_a_tail_it_is_the_largest_score(scores):
    assert tail_quantile(np.array(scores), 0.001) == 2.0


def test_two_scores_give_a_tail():
    # u = 1 is exceeded at 2/3; one excess of 1: xi = 0.2, sigma = 0.8.
    expected = 1 + 0.8 * ((0.01 * 1.5) ** -0.2 - 1) / 0.2
    assert tail_quantile(np.array([1.0, 2.0]), 0.01) == pytest.approx(expected)


DISTRIBUTIONS = {
    "normal": stats.norm(),
    "gumbel": stats.gumbel_r(),
    "gamma": stats.gamma(2),
    "student": stats.t(4),
    "lognormal": stats.lognorm(0.5),
    "heavy lognormal": stats.lognorm(1),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("n", "low", "high"), [(12, 0.005, 0.034), (23, 0.005, 0.025), (60, 0.007, 0.0155)]
)
def test_the_rate_is_about_the_one_asked_for(name, n, low, high):
    distribution = DISTRIBUTIONS[name]
    samples = distribution.rvs((1000, n), random_state=5)
    exceeded = distribution.sf([tail_quantile(scores, 0.01) for scores in samples])
    assert low < exceeded.mean() < high
