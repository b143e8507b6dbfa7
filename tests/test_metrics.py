"""The metrics against slow oracles that share no code with them, and against scikit-learn."""

import dataclasses
import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from adtr_jax.errors import InputError
from adtr_jax.evaluation import curve as curve_module
from adtr_jax.evaluation.curve import Curve
from adtr_jax.evaluation.metrics import (
    IMAGE_METRICS,
    METRICS,
    aupro,
    auroc,
    average_precision,
    evaluate,
    f1_max,
)

LIMITS = (0.05, 0.3, 0.77, 1.0)


def auroc_oracle(scores, labels):
    """Every anomalous sample against every normal one."""
    wins = 0.0
    for a in scores[labels]:
        for b in scores[~labels]:
            wins += 1.0 if a > b else 0.5 if a == b else 0.0
    return wins / (labels.sum() * (~labels).sum())


def ap_and_f1_oracle(scores, labels):
    """Every distinct score as a threshold, the counts taken afresh at each."""
    ap, recall_before, f1 = 0.0, 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        predicted = scores >= threshold
        tp = int((predicted & labels).sum())
        precision, recall = tp / int(predicted.sum()), tp / int(labels.sum())
        ap += (recall - recall_before) * precision
        recall_before = recall
        if tp:
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return ap, f1


def fpr_at_f1_max_oracle(scores, labels):
    """Of the thresholds with the largest F1, the highest one."""
    found = []
    for threshold in set(scores.tolist()):
        predicted = scores >= threshold
        tp, fp = int((predicted & labels).sum()), int((predicted & ~labels).sum())
        found.append((2 * tp / (tp + fp + int(labels.sum())), threshold, fp))
    best = max(f1 for f1, _, _ in found)
    _, fp = max((t, fp) for f1, t, fp in found if abs(f1 - best) < 1e-12)
    return fp / int((~labels).sum())


def regions_oracle(mask):
    """The 8-connected regions of one mask by flood fill: a list of lists of (row, column)."""
    waiting = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    regions = []
    while waiting:
        stack, region = [waiting.pop()], []
        while stack:
            r, c = stack.pop()
            region.append((r, c))
            for near in [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in waiting:
                    waiting.remove(near)
                    stack.append(near)
        regions.append(region)
    return regions


def aupro_oracle(maps, masks, limit):
    """The curve point by point, then the trapezoids one by one, the last one cut at the limit."""
    regions = [(i, region) for i, mask in enumerate(masks) for region in regions_oracle(mask)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        predicted = maps >= threshold
        fpr = float((predicted & ~masks).sum() / (~masks).sum())
        overlaps = [sum(predicted[i][p] for p in region) / len(region) for i, region in regions]
        points.append((fpr, float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)  # noqa: PLW2901
            x1 = limit  # noqa: PLW2901
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@st.composite
def samples(draw):
    """Scores, few of them distinct in some draws, and labels that hold both classes."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    scores = (rng.integers(-levels, levels, n) / 7).astype(dtype)
    labels = rng.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    labels[rng.permutation(n)[:2]] = [False, True]
    return scores, labels


@st.composite
def stacks(draw):
    """Tiny score maps with ties, and masks whose regions touch diagonally and at the border."""
    n, side = draw(st.integers(1, 3)), draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    levels = draw(st.sampled_from([1, 3, 10, 1000]))
    maps = (rng.integers(0, levels, (n, side, side)) / 3).astype(dtype)
    masks = rng.random(maps.shape) < draw(st.sampled_from([0.1, 0.3, 0.7]))
    masks.flat[rng.permutation(maps.size)[:2]] = [False, True]
    return maps, masks


@settings(max_examples=300, deadline=None)
@given(samples())
def test_scalar_metrics_equal_the_oracles(case):
    scores, labels = case
    ap, f1 = ap_and_f1_oracle(scores, labels)
    assert auroc(scores, labels) == pytest.approx(auroc_oracle(scores, labels), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(ap, abs=1e-12)
    assert f1_max(scores, labels) == pytest.approx(f1, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(stacks(), st.sampled_from(LIMITS))
def test_aupro_equals_the_oracle(case, limit):
    maps, masks = case
    assert aupro(maps, masks, limit) == pytest.approx(aupro_oracle(maps, masks, limit), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(samples(), stacks())
def test_evaluate_equals_the_oracles(images, stack):
    maps, masks = stack
    image_scores, image_labels = maps.max(axis=(1, 2)), masks.any(axis=(1, 2))
    if image_labels.all() or not image_labels.any():  # one more map of the missing class
        maps = np.concatenate([maps, maps[:1]])
        masks = np.concatenate([masks, np.full_like(masks[:1], not image_labels[0])])
        image_scores, image_labels = maps.max(axis=(1, 2)), masks.any(axis=(1, 2))
    values = evaluate(image_scores, image_labels.astype(np.int64), maps, masks)
    assert tuple(values) == METRICS
    image_ap, image_f1 = ap_and_f1_oracle(image_scores, image_labels)
    pixel_ap, pixel_f1 = ap_and_f1_oracle(maps.ravel(), masks.ravel())
    expected = {
        "image_auroc": auroc_oracle(image_scores, image_labels),
        "pixel_auroc": auroc_oracle(maps.ravel(), masks.ravel()),
        "aupro": aupro_oracle(maps, masks, 0.3),
        "image_ap": image_ap,
        "pixel_ap": pixel_ap,
        "image_f1_max": image_f1,
        "image_f1_max_fpr": fpr_at_f1_max_oracle(image_scores, image_labels),
        "pixel_f1_max": pixel_f1,
    }
    assert values == pytest.approx(expected, abs=1e-12)
    assert tuple(evaluate(*images)) == IMAGE_METRICS


def test_large_input_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.random(300_000) < 0.03
    for decimals in (2, 9):  # with many ties, and with few
        scores = np.round(rng.normal(size=labels.size) + labels, decimals).astype(np.float32)
        assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        sklearn_ap = average_precision_score(labels, scores)
        assert average_precision(scores, labels) == pytest.approx(sklearn_ap, abs=1e-12)


def test_counts_beyond_64_bits_are_exact():
    """Of 10,000 maps of 1024 x 1024, 6 % anomalous: the sum of products exceeds 2^63."""
    thresholds, positives, negatives = 1000, 600_000_000, 9_885_760_000
    tp = np.arange(1, thresholds + 1) * (positives // thresholds)
    fp = np.linspace(0, negatives, thresholds).astype(np.int64)
    none = np.empty(0, np.int32)
    curve = Curve(tp, fp, fp, positives, negatives, none.astype(np.int64), none)
    each = Fraction(positives // thresholds)
    expected = sum(each * (negatives - int(n)) for n in fp) / (positives * negatives)
    assert curve.auroc() == float(expected) == pytest.approx(0.5, abs=1e-3)
    better = dataclasses.replace(curve, fp=fp // 5, fp_above=fp // 5)
    assert better.auroc() == pytest.approx(0.9, abs=1e-3)


def test_parts_change_nothing(monkeypatch):
    """Neither the parts that scores are looked at in, nor the blocks that thresholds are."""
    rng = np.random.default_rng(2)
    masks = ndimage.binary_dilation(rng.random((30, 24, 24)) < 0.01, np.ones((1, 3, 3)))
    maps = (np.round(rng.normal(size=masks.shape), 2) + masks).astype(np.float32)
    labels = masks.any(axis=(1, 2))
    labels[:3], masks[:3] = False, False
    whole = evaluate(maps.max(axis=(1, 2)), labels, maps, masks)
    assert whole["aupro"] == pytest.approx(aupro_oracle(maps, masks, 0.3), abs=1e-12)
    monkeypatch.setattr(curve_module, "PART", 7 * 24 * 24)
    assert evaluate(maps.max(axis=(1, 2)), labels, maps, masks) == whole
    for block in (1, 7, 50):
        monkeypatch.setattr(curve_module, "BLOCK", block)
        found = evaluate(maps.max(axis=(1, 2)), labels, maps, masks)
        assert found == pytest.approx(whole, rel=1e-13)
        assert (found["pixel_auroc"], found["pixel_f1_max"]) == (
            whole["pixel_auroc"],
            whole["pixel_f1_max"],
        )


def test_only_a_part_of_the_pixels_is_held(monkeypatch):
    rng = np.random.default_rng(3)
    maps = rng.random((64, 256, 256), np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[::2, :8, :8] = True
    monkeypatch.setattr(curve_module, "PART", 2**18)
    tracemalloc.start()
    try:
        evaluate(maps[:, 0, 0], masks[:, 0, 0], maps, masks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert maps.nbytes == 16 * 2**20
    assert peak < 4 * 2**20


def test_monotone_transform_changes_nothing():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(3, 20, 20))
    masks = rng.random(maps.shape) < 0.1
    image_scores, image_labels = maps.max(axis=(1, 2)), np.array([0, 1, 1])
    plain = evaluate(image_scores, image_labels, maps, masks)
    assert evaluate(np.exp(image_scores), image_labels, np.exp(maps), masks) == plain


def test_equal_scores_know_nothing():
    scores, labels = np.ones(10, np.float32), np.arange(10) < 3
    assert auroc(scores, labels) == 0.5
    assert average_precision(scores, labels) == pytest.approx(0.3)
    assert f1_max(scores, labels) == pytest.approx(2 * 0.3 / 1.3)
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0, 0] = True
    # The curve is the diagonal from (0, 0) to (1, 1): 0.3 * 0.3 / 2 up to 0.3, over 0.3.
    assert aupro(np.zeros(masks.shape), masks) == pytest.approx(0.15)


def test_auroc_is_never_flipped():
    assert auroc(np.array([3.0, 2.0, 1.0]), np.array([False, False, True])) == 0.0


def test_pixels_that_touch_diagonally_are_one_region():
    masks = np.zeros((1, 3, 3), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 2, 0] = True
    maps = np.zeros(masks.shape)
    maps[0, 0, 0] = 1.0
    # One region, a third of it found before any normal pixel, then all nine pixels tied at 0.
    assert aupro(maps, masks, 0.3) == pytest.approx(1 / 3 + (2 / 3) * 0.3 / 2)


def test_regions_of_neighbouring_images_are_separate():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 1:3, 1:3] = masks[1, 1, 1] = True
    maps = np.where(masks, 1.0, 0.0)
    maps[0, 1:3, 1:3] = -1.0  # the region of four is missed, the region of one found
    assert aupro(maps, masks) == pytest.approx(0.5)


def test_float64_scores_are_not_rounded_to_float32():
    scores = np.array([1.0, 1.0 + 1e-12])
    assert auroc(scores, np.array([False, True])) == 1.0


@pytest.mark.parametrize(
    ("labels", "counts"), [([0, 0], "2 normal and 0"), ([1, 1], "0 normal and 2")]
)
def test_one_class_only_is_an_error_that_names_the_metrics(labels, counts):
    with pytest.raises(
        InputError, match=f"image_auroc, image_ap, image_f1_max, image_f1_max_fpr: .* {counts} anom"
    ):
        evaluate(np.array([0.1, 0.2]), np.array(labels))


def test_masks_without_an_anomalous_pixel_are_an_error():
    maps = np.zeros((2, 2, 2))
    text = "pixel_auroc, aupro, pixel_ap, pixel_f1_max: .* 8 normal and 0 anomalous"
    with pytest.raises(InputError, match=text):
        evaluate(np.array([0.1, 0.2]), np.array([0, 1]), maps, maps > 1)


def test_scores_that_are_not_finite_are_an_error():
    scores = np.array([0.0, np.nan, 1.0, -np.inf], np.float32)
    with pytest.raises(InputError, match=r"images: 2 of 4 scores are NaN or infinite.* index 1;"):
        evaluate(scores, np.array([0, 1, 0, 1]))
    maps = np.zeros((2, 3, 3))
    maps[1, 0, 2] = np.inf
    with pytest.raises(InputError, match=r"pixels: 1 of 18 scores .* first at index \(1, 0, 2\);"):
        evaluate(np.array([0.0, 1.0]), np.array([0, 1]), maps, np.arange(18).reshape(2, 3, 3) > 9)


def test_shapes_that_differ_are_an_error():
    scores, labels = np.array([0.1, 0.2]), np.array([0, 1])
    with pytest.raises(InputError, match=r"images: scores of shape \(2,\) but labels of shape \(3"):
        evaluate(scores, np.array([0, 1, 1]))
    maps = np.zeros((2, 4, 4))
    with pytest.raises(InputError, match=r"shape \(2, 4, 4\) but labels of shape \(2, 4, 5\)"):
        evaluate(scores, labels, maps, np.zeros((2, 4, 5), bool))
    with pytest.raises(InputError, match="1 score maps for 2 image scores"):
        evaluate(scores, labels, maps[:1], maps[:1] > 0)
    with pytest.raises(InputError, match="masks are given without score maps"):
        evaluate(scores, labels, None, maps > 0)
    with pytest.raises(InputError, match=r"masks of shape \(2,\); give a stack"):
        aupro(scores, labels)


def test_labels_other_than_0_and_1_are_an_error():
    with pytest.raises(InputError, match="images: labels other than 0 and 1"):
        evaluate(np.array([0.1, 0.2]), np.array([0, 255]))


@pytest.mark.parametrize("limit", [0.0, 1.5])
def test_a_limit_out_of_range_is_an_error(limit):
    with pytest.raises(InputError, match=f"AUPRO's limit is {limit}"):
        aupro(np.zeros((1, 2, 2)), np.eye(2, dtype=bool)[None], limit)
