"""The GTrans paper's tables: means against values, equal methods, rows named as the options."""

from typing import get_args

import numpy as np
import pytest

from adtr_jax import paper_gtrans as paper
from adtr_jax.data.mvtec_ad import CATEGORIES
from adtr_jax.metrics import METRICS
from adtr_jax.weighted_map import Coefficient, Fusion

# The mean of Table 1's values, where it is not the printed one.
INCONSISTENT = {
    ("GTrans-R34", "image_auroc"): 0.9942,
    ("GTrans-WR50", "image_auroc"): 0.9858,
}


@pytest.mark.parametrize("key", paper.MVTEC_AD)
def test_printed_means_are_the_means_of_the_printed_values(key):
    row = paper.MVTEC_AD[key]
    assert key == (row.method, row.metric) and row.metric in METRICS
    assert sorted(row.values) == sorted(row.categories) == sorted(CATEGORIES)
    expected = INCONSISTENT.get(key, row.mean)
    assert np.mean(list(row.values.values())) == pytest.approx(expected, abs=0.0006)
    assert (abs(expected - row.mean) > 0.0006) == (key in INCONSISTENT)


def test_rows_are_named_as_the_options():
    assert paper.ABLATIONS["coefficient", "image_auroc"].categories == get_args(Coefficient)
    assert paper.ABLATIONS["fusion", "image_auroc"].categories == get_args(Fusion)


@pytest.mark.parametrize("metric", ["image_auroc", "pixel_auroc"])
def test_rows_that_are_the_same_method_have_the_same_value(metric):
    values = {study: row.values for (study, of), row in paper.ABLATIONS.items() if of == metric}
    whole = paper.MVTEC_AD["GTrans-R34", metric].mean
    assert values["tfm"]["decoder S=2"] == values["coefficient"]["alpha"] == whole
    assert values["fusion"]["P6"] == whole
    assert values["layers"]["1+2+3"] == values["fusion"]["P4"]
