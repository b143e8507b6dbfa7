"""The benchmarks at tiny sizes: both libraries compute the same, and every measurement has rows."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from adtr_jax.evaluation import metrics
from benchmarks import (
    cpu_forms,
    device,
    features,
    jax_pipeline,
    job,
    memory,
    peaks,
    scoring_metrics,
    startup,
    torch_pipeline,
    train_step,
    training,
)
from benchmarks.__main__ import ALL, Benchmarks, run
from benchmarks.images import random_images
from benchmarks.profiling import longest, record
from benchmarks.rows import HEADER, Row, table
from benchmarks.sizes import QUICK, Sizes

TINY = dataclasses.replace(
    QUICK,
    image_size=32,
    feature_batches=(1,),
    train_steps=((4, 2),),
    images=2,
    epochs=1,
    depth=1,
    compiled=False,
)


@pytest.fixture(scope="module", autouse=True)
def unoptimised():
    """Compiling is what takes the time here."""
    jax.config.update("jax_disable_most_optimizations", True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # PyTorch's threads spin, which hurts where the cores are busy
    yield
    torch.set_num_threads(threads)
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, unoptimised):
    """What a job of its own reads: sizes, the same weights for both, image files."""
    path = tmp_path_factory.mktemp("job")
    job.prepare(path, TINY)
    return path


def complete(rows: list[Row]) -> bool:
    """Whether all rows have a time of ours and of PyTorch's."""
    return bool(rows) and all(row.jax > 0 and np.isfinite(row.ratio) for row in rows)


def test_features_are_pytorchs(folder):
    ours, theirs = job.detector(folder), job.pipeline(folder)
    images = random_images(1, TINY.image_size)
    found = np.asarray(jax_pipeline.extractor(ours).compute_own(images)[0])
    for module in (theirs.features, torch_pipeline.channels_last(theirs.features)):
        with torch.inference_mode():
            expected = module(torch.from_numpy(images)).permute(0, 2, 3, 1).numpy()
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    # The image still counts at the end: calibrated weights do not let it die out.
    assert 0.1 < expected[..., -320:].std() < 10


def test_scores_of_the_files_are_pytorchs(folder):
    expected = job.of_torch("first", folder)
    assert job.of_jax("first", folder) == pytest.approx(expected, rel=1e-4)


def test_a_job_of_its_own_reports_its_result_and_its_memory(tmp_path):
    TINY.save(tmp_path / job.SIZES)
    torch.save(torch_pipeline.pipeline(TINY).state_dict(), tmp_path / job.PIPELINE)
    found = job.run("torch", "train", tmp_path)
    assert found["result"] == TINY.images
    assert 50 < found["peak_mib"] < 5000


def test_features_and_train_step_have_rows():
    rows = [*features.measure(TINY), *train_step.measure(TINY)]
    assert complete(rows)
    assert [row.what for row in rows] == [
        "features, efficientnet-b0, 32 px, batch 1",
        "train step, n = 4, b = 2",
    ]
    assert {row.torch["compiled"] for row in rows} == {"not run"}


def test_the_training_step_learns_in_both():
    call, steps, flops = device.train_step(TINY, 4, 2, device.Device(quick=True))
    detector = jax_pipeline.untrained(TINY.step_settings(4, 2))
    f = jax_pipeline.random_features(detector, 2)
    size = np.sum(f**2, axis=-1).mean()
    for losses in (np.asarray(call()), np.asarray(train_step.torch_way(f, TINY)())):
        assert losses.shape == (steps,) == (train_step.STEPS,)
        assert losses[1] < losses[0] < 2 * size
    # A product of two FLOPs for each of the eight tokens, forward and twice backward, in the
    # projections from and to the 512 channels and in the two networks of 1,024 hidden units.
    assert 1 < flops / (8 * 2 * 3 * (2 * 512 * 256 + 4 * 256 * 1024)) < 3


def test_whole_trainings_have_rows(monkeypatch):
    # Ours is trained in `test_device_has_rows`; here compiling it again would take too long.
    monkeypatch.setattr(training, "training", lambda detector, images: None)
    cached, recomputed = sorted(training.measure(TINY), key=lambda row: row.what)
    assert complete([cached, recomputed])
    assert cached.target == 1.2
    assert recomputed.target == 3.0


def test_jobs_have_rows(monkeypatch):
    seconds = {"jax": 300.0, "torch": 450.0}
    monkeypatch.setattr(job, "prepare", lambda folder, sizes: None)
    monkeypatch.setattr(job, "run", lambda library, *_: {"peak_mib": seconds[library]})
    monkeypatch.setattr(job, "predict_first", lambda *_: None)
    assert [row.ratio for row in memory.measure(TINY)] == [1.5, 1.5]
    assert complete(list(startup.measure(TINY)))


def test_plain_metrics_equal_ours():
    maps, masks = scoring_metrics.test_set(6, 64)
    maps = np.round(maps, 2)  # with ties
    scores, labels = maps.max(axis=(1, 2)), np.arange(6) % 2 == 0
    assert labels.tolist() == masks.any(axis=(1, 2)).tolist()
    ours = metrics.evaluate(scores, labels, maps, masks)
    expected = [ours[name] for name in ("image_auroc", "pixel_auroc", "aupro")]
    assert scoring_metrics.plain(scores, labels, maps, masks) == pytest.approx(expected, abs=1e-9)
    assert 0.5 < ours["pixel_auroc"] < 1


def test_the_command_writes_a_table(tmp_path, capsys):
    out = tmp_path / "speed.md"
    only = ("scoring_metrics",)
    assert run(Benchmarks(only=only, quick=True, compiled=False, repeats=2, out=out)) == 0
    text = out.read_text()
    assert "AUROC and AUPRO, 6 maps of 64 px" in text
    assert f"jax {jax.__version__}" in text
    assert text.split("\n\n", 1)[1].strip() in capsys.readouterr().out


def test_every_measurement_is_a_module():
    for name in ALL:
        assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_table_has_the_faster_of_each():
    torch_seconds = {"eager": 3.0, "eager, channels_last": 2.0, "compiled": "failed: no compiler"}
    rows = [Row("a", 1.0, torch_seconds, 1.8), Row("b", 100.0, {"eager": 50.0}, 1.0, "MiB")]
    assert table(rows).splitlines() == [
        f"| {' | '.join(HEADER)} |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a | 1 s | 2 s (channels_last) | failed: no compiler | 2.00 | 1.8 |",
        "| b | 100 MiB | 50 MiB |  | 0.50 | 1 |",
    ]


def test_what_cannot_be_compiled_says_why():
    def fails():
        raise RuntimeError("no C++ compiler\nfound | sorry")

    tried = torch_pipeline.compiled(lambda: fails, Sizes())
    assert tried == "failed: RuntimeError: no C++ compiler found / sorry"


def test_device_has_rows(monkeypatch):
    # No network, so that little is compiled: the pixels are features too.
    sizes = dataclasses.replace(TINY, backbone="pixels")
    monkeypatch.setattr(device.Device, "sizes", lambda self, dtype: sizes)
    monkeypatch.setattr(device, "train_step", lambda *_: (lambda: jnp.ones(2), 2, 1e6))
    rows = [row for row, _ in device.measure(device.Device(quick=True), "float32")]
    assert [row.what for row in rows] == [
        "features, pixels, 32 px",
        "prediction, pixels, 32 px",
        "train step, n = 4",
        "features, compilation and 1 epochs of 2 images",
    ]
    assert all(row.seconds > 0 for row in rows)
    assert all(row.flops is not None and row.flops > 0 for row in rows[:3])


def test_throughput_against_the_peak():
    row = device.Throughput("prediction", "bfloat16", 64, 0.01, 64, 4.945e11, "NVIDIA H200")
    assert row.cells()[3:7] == ("10 ms", "6,400", "49.5", "5.0%")
    assert peaks.peak("NVIDIA H100 PCIe", "float32") == 51
    assert peaks.peak("TPU v5 lite", "bfloat16") == 197
    assert peaks.peak("TPU v4", "float32") is None
    assert peaks.peak("cpu", "float32") is None


def test_a_cpus_forms_have_rows(monkeypatch):
    few = {name: cpu_forms.CASES[name] for name in ("swish", "layer_norm")}
    monkeypatch.setattr(cpu_forms, "CASES", few)
    rows = list(cpu_forms.measure(cpu_forms.CpuForms(quick=True)))
    assert [row[0] for row in rows] == ["swish", "layer_norm"]
    assert all(len(row) == len(cpu_forms.HEADER) and float(row[3]) > 0 for row in rows)


def test_flops_are_the_programs():
    a, b = jnp.ones((8, 32)), jnp.ones((32, 16))
    assert device.flops(jax.jit(jnp.matmul), a, b) == 2 * 8 * 32 * 16


def test_profile_names_what_takes_longest(tmp_path):
    x = jnp.ones((300, 300))
    way = jax.jit(lambda: jnp.tanh(x @ x).sum())
    way()
    operations = longest(record(way, tmp_path), 3)
    assert 1 <= len(operations) <= 3
    assert sum(share for _, share in operations) <= 1 + 1e-9


def test_sizes_survive_their_file(tmp_path):
    Sizes().save(tmp_path / "sizes.json")
    assert json.loads((tmp_path / "sizes.json").read_text())["maps"] == 160
    assert Sizes.load(tmp_path / "sizes.json") == Sizes()
