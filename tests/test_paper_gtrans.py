"""The GTrans paper's tables: means against values, equal methods, rows named as the options."""

import numpy as np
import pytest

from adtr_jax.config import ADTR_PRESETS, GTRANS_PRESETS
from adtr_jax.data.mvtec_ad_archive import CATEGORIES, GROUPS
from adtr_jax.evaluation.metrics import METRICS
from experiments import ablation
from experiments.papers import adtr as paper_adtr
from experiments.papers import gtrans as paper

# The mean of Table 1's values, where it is not the printed one.
INCONSISTENT = {
    ("GTrans-R34", "image_auroc", "all"): 0.9942,
    ("GTrans-R34", "image_auroc", "objects"): 0.9932,
    ("GTrans-WR50", "image_auroc", "all"): 0.9858,
    ("GTrans-WR50", "image_auroc", "textures"): 0.9968,
}
# Of Table 3's means those that are not what its means of textures and objects give.
INCONSISTENT_ROWS = {
    *(("image_auroc", "1+2+3"), ("image_auroc", "2+3")),
    *(("pixel_auroc", "1+2+3+4"), ("pixel_auroc", "2+3+4")),
}

ROWS = [row for rows in paper.MVTEC_AD.values() for row in rows]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.method}-{row.metric}" for row in ROWS])
def test_printed_means_are_the_means_of_the_printed_values(row):
    assert row in paper.MVTEC_AD[row.method] and row.metric in METRICS
    assert sorted(row.values) == sorted(row.categories) == sorted(CATEGORIES)
    means = {**row.group_means, "all": row.mean}
    assert list(means) == ["textures", "objects", "all"]
    for over, printed in means.items():
        key = row.method, row.metric, over
        expected = INCONSISTENT.get(key, printed)
        values = [row.values[name] for name in GROUPS.get(over, CATEGORIES)]
        assert np.mean(values) == pytest.approx(expected, abs=0.0006)
        assert (abs(expected - printed) > 0.0006) == (key in INCONSISTENT)


@pytest.mark.parametrize("study", paper.ABLATIONS)
def test_a_studys_means_are_those_of_its_textures_and_objects(study):
    by_group = (paper.GROUP_ABLATIONS[group][study] for group in ("textures", "objects"))
    for whole, textures, objects in zip(paper.ABLATIONS[study], *by_group, strict=True):
        assert whole.metric == textures.metric == objects.metric
        assert whole.categories == textures.categories == objects.categories
        for name in whole.categories:
            mean = (textures.values[name] + 2 * objects.values[name]) / 3
            far = (whole.metric, name) in INCONSISTENT_ROWS
            assert (abs(mean - whole.values[name]) > 0.00105) == far


def test_a_studys_rows_have_the_means_of_textures_and_of_objects():
    aurocs = {"tile": 0.5, "wood": 1.0, "cable": 0.25, "pill": 0.75}
    row = {name: {"image_auroc": value} for name, value in aurocs.items()}
    failed = row | {"pill": "killed"}
    assert ablation.by_group({"P1": row, "P2": failed}) == {
        "textures": {"P1": {"image_auroc": 0.75}, "P2": {"image_auroc": 0.75}},
        "objects": {"P1": {"image_auroc": 0.5}, "P2": "pill failed"},
    }
    assert ablation.by_group({"P1": row | {"solar": {"image_auroc": 1.0}}}) == {}


def test_rows_are_named_as_the_experiment_names_them():
    for study, printed in paper.ABLATIONS.items():
        for row in printed:
            assert row.categories == tuple(ablation.variants(study, GTRANS_PRESETS["paper"]))
    for study, printed in paper_adtr.ABLATIONS.items():
        for row in printed:
            assert row.categories == tuple(ablation.variants(study, ADTR_PRESETS["paper"]))


@pytest.mark.parametrize("metric", ["image_auroc", "pixel_auroc"])
def test_rows_that_are_the_same_method_have_the_same_value(metric):
    def values(study):
        return next(row.values for row in paper.ABLATIONS[study] if row.metric == metric)

    whole = next(row.mean for row in paper.MVTEC_AD["GTrans-R34"] if row.metric == metric)
    assert values("tfm")["decoder S=2"] == values("coefficient")["alpha"] == whole
    assert values("fusion")["P6"] == whole
    assert values("layers")["1+2+3"] == values("fusion")["P4"]
