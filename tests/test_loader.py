"""Training data on the devices, wholly or a part of an epoch at a time."""

import json
import os
import subprocess

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from stripes import ROOT, script

from adtr_jax.config import AdtrSettings
from adtr_jax.devices.loader import Loader, Shard
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.models import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.training import train
from adtr_jax.training.sampling import Sampling

FEATURES = np.random.default_rng(0).normal(size=(20, 4, 4, 12)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 20),
    anomalous=st.integers(0, 9),
    half=st.integers(1, 6),
    fits=st.integers(0, 40),
)
def test_parts_show_every_step_its_images(images, anomalous, half, fits):
    """However little fits, the rows of an epoch are those of the sampling, in its order."""
    total = images + anomalous
    data = np.arange(total, dtype=np.float32)[:, None], np.arange(total) % 3 == 0
    loader = Loader(Shard(data, total), device_mesh(), limit=5 * fits)  # a row has 5 bytes
    order, weight = Sampling(images, anomalous, 2 * half, seed=0).epoch(1, devices=1)
    shown, weights, largest = [], [], 0
    for part in loader.parts(order, weight):
        values, labels = (np.asarray(array) for array in part.examples)
        np.testing.assert_array_equal(labels[part.order], values[part.order, 0] % 3 == 0)
        shown.append(values[part.order, 0])
        weights.append(part.weight)
        largest = max(largest, len(values))
    np.testing.assert_array_equal(np.concatenate(shown), order)
    np.testing.assert_array_equal(np.concatenate(weights), weight)
    assert largest <= max(fits, order.shape[1])  # one step is the least


def test_training_in_parts_ends_with_the_same_parameters(tmp_path):
    graph, params = nnx.split(ADTR(12, 16, depth=1, rngs=nnx.Rngs(0)))

    def loss(params, rest, batch):
        f_hat = nnx.merge(graph, params)(batch.examples, batch.seeds)
        return losses.normal(batch.examples, f_hat), rest

    def fit(name: str, limit: int | None) -> np.ndarray:
        learned = train.fit(
            loss,
            (params, None),
            train.TrainingData(Shard(FEATURES, 20), 17, Shard(FEATURES[:5], 5)),
            settings=AdtrSettings(epochs=2, batch_size=4),
            mesh=device_mesh(),
            directory=tmp_path / name,
            label="test",
            limit=limit,
        )
        return np.asarray(learned[0]["project_out"]["kernel"][...])

    whole = fit("whole", None)
    row = FEATURES[0].nbytes
    assert np.array_equal(fit("parts", 16 * row), whole)  # two steps of 4 at once, twice
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "parts")]
    keys = ("loss", "validation_loss")
    lines = [[json.loads(line) for line in log.splitlines()] for log in logs]
    for a, b in zip(*lines, strict=True):
        assert [a[key] for key in keys] == pytest.approx([b[key] for key in keys], rel=1e-6)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc: the peak memory")
def test_training_in_parts_does_not_run_ahead_of_the_devices(tmp_path):
    """Of 400 MiB in parts of 16, four parts are there at a time; and what the compiler takes."""
    words = script("memory_run.py", str(tmp_path), "6400", str(2**25))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250 * 2**20
