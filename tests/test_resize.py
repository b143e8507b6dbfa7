"""The align_corners resize against PyTorch's, up, down, to one sample and from one."""

import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax.detectors.resize import resize, spread


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(((128, 128), (16, 16)), ((8, 8), (256, 256)), ((7, 13), (13, 7)), ((9, 9), (9, 9))),
        *(((5, 4), (1, 1)), ((1, 1), (6, 5)), ((2, 3), (64, 1)), ((33, 65), (32, 64))),
    ],
)
def test_equals_torch(source, target):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, *source, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), target, mode="bilinear", align_corners=True
    )
    ours = np.asarray(resize(jnp.asarray(x), *target))
    assert ours.shape == (2, *target, 3)
    assert np.abs(ours - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-5


def test_corners_land_on_corners():
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    y = np.asarray(resize(x, 7, 9))[0, :, :, 0]
    assert [y[0, 0], y[0, -1], y[-1, 0], y[-1, -1]] == [0, 3, 8, 11]


def test_spread_puts_samples_at_their_pixels():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 1)), jnp.float32)
    y = np.asarray(spread(x, 40, 8.0, 3.0))
    assert y.shape == (2, 40, 40, 1)
    assert y[:, 3::8, 3::8] == pytest.approx(np.asarray(x), abs=1e-6)
    assert y[:, 7, 3] == pytest.approx(np.asarray(x[:, :2, 0]).mean(axis=1), abs=1e-6)
    assert np.array_equal(y[:, 39], y[:, 35]) and np.array_equal(y[:, 0], y[:, 3])
