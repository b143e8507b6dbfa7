"""The benchmarks on images of categories, and against other methods, at tiny sizes."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
from stripes import call, save, write_category

from adtr_jax.config import ADTR_PRESETS
from adtr_jax.data import cifar
from benchmarks import many_images, memory_bank, peers, real, time_to_auroc
from benchmarks.time_to_auroc import TimeToAuroc

pytestmark = pytest.mark.usefixtures("soon_compiled")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_category(root / "stripes", wide=8)
    return root


def test_the_nearest_patch_is_that_of_all_distances():
    rng = np.random.default_rng(0)
    f, bank = rng.normal(3, 1, (2, 3, 3, 8)), rng.normal(3, 1, (50, 8))
    distances = np.linalg.norm(f[..., None, :] - bank, axis=-1)
    expected = bank[distances.argmin(axis=-1)]
    found = memory_bank.nearest(f.astype(np.float32), bank.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    kept = memory_bank.nearest(bank[None, None].astype(np.float32), bank.astype(np.float32))
    np.testing.assert_allclose(kept[0, 0], bank, rtol=1e-6)


def test_the_memory_bank_has_a_row(data):
    said = call(
        *("--category=stripes", f"--data={data}", "--backbone=pixels"),
        module="benchmarks.memory_bank",
    )
    assert said.returncode == 0, said.stderr
    row = said.stdout.splitlines()[-1].split(" | ")
    assert row[0] == "| stripes"
    assert row[1:3] == ["pixels, 160 px, layers 2, 3, 4", "1.000 (1.000 to 1.000)"]
    assert float(row[3].split()[0]) > 0.95  # pixel AUROC


def test_the_memory_bank_depends_on_the_drawn_patches(data, monkeypatch):
    monkeypatch.setattr(memory_bank, "PATCHES", 20)
    command = memory_bank.MemoryBank(category="stripes", data=data, backbone="pixels")
    task = real.read(command.category, command.data, command.settings)
    found = memory_bank.measure(task, real.network(task.settings))
    assert len({metrics["pixel_auroc"] for metrics in found}) == len(memory_bank.SEEDS) == 3


def test_an_unknown_category_is_named(data):
    said = call("--category=strip", f"--data={data}", module="benchmarks.memory_bank")
    assert said.returncode == 2
    assert said.stderr.startswith("error: no category is called strip: did you mean stripes?")
    said = call("--category=all", f"--data={data}", module="benchmarks.memory_bank")
    assert said.stderr.startswith(f"error: no category in {data} is called all: There are: stripes")


def test_cifar10_has_the_tokens_of_its_experiment(tmp_path):
    for part in ("train", "test"):
        for name in cifar.CLASSES:
            for i in range(2):
                save(tmp_path / part / name / f"{i}.png", np.full((32, 32, 3), 60 * i, np.uint8))
    task = real.read("cat", tmp_path, ADTR_PRESETS["fast"])
    assert task.images.shape == (2, 128, 128, 3)
    assert task.settings.tokens_per_side == 8
    assert sorted(sample.label for sample in task.category.test) == [0, 0, 1, 1]


def test_trainings_double_until_each_preset_is_there(data, monkeypatch):
    aurocs = iter([0.5, 0.9, 0.6, 0.7])  # before, fast; then before alone
    monkeypatch.setattr(time_to_auroc, "measured", lambda *_: {"image_auroc": next(aurocs)})
    monkeypatch.setattr(time_to_auroc, "trained", lambda *_: Scorer)
    monkeypatch.setattr(time_to_auroc, "LONGEST", 200)
    rows = list(time_to_auroc.measure(TimeToAuroc("stripes", 0.8, data, quick=True)))
    assert [(row[1], row[2], *row[4:]) for row in rows] == [
        ("before", "50", "0.500", "0.8"),
        ("fast", "50", "0.900", "0.8 reached"),
        ("before", "100", "0.600", "0.8"),
        ("before", "200", "0.700", "0.8"),
    ]


class Scorer:
    """A detector that finds nothing."""

    @staticmethod
    def score(images, mesh):
        return np.zeros(images.shape[:3]), np.zeros(len(images))


def test_a_training_is_timed(data, monkeypatch):
    monkeypatch.setattr(time_to_auroc, "FIRST", 4)
    monkeypatch.setattr(time_to_auroc, "LONGEST", 4)
    monkeypatch.setattr(time_to_auroc, "PRESETS", {"before": time_to_auroc.OLD})
    (row,) = time_to_auroc.measure(TimeToAuroc("stripes", 0.01, data, quick=True))
    assert row[:3] == ("stripes", "before", "4")
    assert float(row[3].removesuffix(" s")) > 0
    assert 0.01 <= float(row[4]) <= 1 and row[5] == "0.01 reached"


def test_steps_are_whole_epochs(data):
    task = real.read("stripes", data, ADTR_PRESETS["paper"])
    task = time_to_auroc.longer(task, 50)
    assert time_to_auroc.total_steps(task) == 50  # of one step each: 16 images
    many = dataclasses.replace(task, images=np.repeat(task.images, 3, axis=0)[:40])
    assert time_to_auroc.total_steps(many) == 51


def test_a_target_is_an_auroc():
    said = call("--category=mono", "--auroc=93", module="benchmarks.time_to_auroc")
    assert said.returncode == 2
    assert "error: --auroc=93.0 must be above 0 and at most 1" in said.stderr


def test_a_method_has_a_time_for_each_batch_and_source():
    ((name, *times),) = peers.measure(["ADTR, small"], repeats=1)
    assert name == "ADTR, small" and len(times) == len(peers.HEADER) - 1 == 4
    assert all(float(time.removesuffix(" ms")) > 0 for time in times)


@pytest.mark.skipif(find_spec("anomalib") is not None, reason="anomalib is installed")
def test_without_anomalib_there_is_one_line():
    said = call("--quick", module="benchmarks.peers")
    assert said.returncode == 2
    assert said.stderr.startswith(
        "error: anomalib is not installed: make an environment of its own"
    )


def test_what_many_images_take_is_measured_from_outside():
    said = call("--quick", module="benchmarks.many_images")
    assert said.returncode == 0, said.stderr
    cells = said.stdout.splitlines()[-1].strip("| ").split(" | ")
    row = dict(zip(many_images.HEADER, cells, strict=True))
    assert row["images"] == "8"
    own, resident = (float(row[name].split()[0]) for name in ("peak memory", "with file pages"))
    assert 0.1 < own < resident < 4
    assert float(row["processor time"].removesuffix(" s")) > 1
