"""Which images are held out, and an epoch's batches: every image once, half anomalous for ADTR+."""

import numpy as np
import pytest

from adtr_jax.training.sampling import Sampling, split


@pytest.mark.parametrize(
    ("total", "share", "held_out"),
    [(60, 0.05, 3), (8, 0.25, 2), (16, 0.05, 1), (9, 0.05, 0), (1, 0.9, 0), (3, 0.99, 2)],
)
def test_a_share_of_the_images_is_held_out(total, share, held_out):
    kept, out = split(total, share, seed=1)
    assert len(out) == held_out
    assert sorted([*kept, *out]) == list(range(total))
    assert kept.tolist() == sorted(kept) and out.tolist() == sorted(out)
    assert all(map(np.array_equal, split(total, share, seed=1), (kept, out)))
    if total == 60:
        assert not np.array_equal(split(total, share, seed=2)[1], out)


@pytest.mark.parametrize(
    ("count", "batch", "devices"), [(20, 6, 8), (48, 16, 1), (7, 7, 2), (3, 16, 1)]
)
def test_an_epoch_holds_every_image_once(count, batch, devices):
    sampling = Sampling(count, 0, batch, seed=0)
    order, weight = sampling.epoch(3, devices)
    assert order.shape == weight.shape
    assert order.shape[0] == sampling.steps == -(-count // batch)
    assert order.shape[1] % devices == 0
    assert sorted(order[weight == 1]) == list(range(count))
    assert weight.sum(axis=1).tolist()[:-1] == [batch] * (order.shape[0] - 1)
    assert np.array_equal(order, sampling.epoch(3, devices)[0])
    if count > 3:
        assert not np.array_equal(order, sampling.epoch(4, devices)[0])


@pytest.mark.parametrize("anomalous", [1, 10, 20, 23, 160])
@pytest.mark.parametrize(("batch", "devices"), [(6, 8), (16, 1), (100, 2)])
def test_half_of_every_batch_is_anomalous(anomalous, batch, devices):
    normal = 20
    sampling = Sampling(normal, anomalous, batch, seed=0)
    seen = np.zeros(anomalous, int)
    for epoch in range(1, 6):
        order, weight = sampling.epoch(epoch, devices)
        assert order.shape == (sampling.steps, order.shape[1])
        assert order.shape[1] % devices == 0
        assert sampling.images == weight.sum() == 2 * normal
        assert sorted(order[(weight == 1) & (order < normal)]) == list(range(normal))
        for images, counted in zip(order, weight, strict=True):
            shown = images[counted == 1]
            assert (shown < normal).sum() == (shown >= normal).sum() <= batch // 2
        now = np.bincount(order[order >= normal] - normal, minlength=anomalous)
        assert now.max() - now.min() <= 1
        seen += now
    if anomalous == 160:  # fresh ones every epoch
        assert (seen > 0).sum() > 60
