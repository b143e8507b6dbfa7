"""Training: devices, batches, kill and resume, interrupt, finished runs, damaged checkpoints."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optax
import pytest
from stripes import ROOT, call, script

from adtr_jax.config import AdtrSettings, GtransSettings, Plus
from adtr_jax.devices import memory
from adtr_jax.devices.loader import EpochPart, Shard
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.errors import InputError
from adtr_jax.files import temporary
from adtr_jax.training import log, train
from adtr_jax.training.curves import Curves


def _start(directory: Path, *, devices: int = 1, epochs: int = 4, save_seconds: float = 60):
    """Starts a small real training run in a process of its own."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        script("training_run.py", str(directory), str(epochs), str(save_seconds)),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _call(
    directory: Path, *, epochs: int, save_seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Does the same in this process, which takes no time to import JAX."""
    return call(str(directory), str(epochs), str(save_seconds), module="training_run")


def _finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def _log(directory: Path) -> list[dict]:
    path = directory / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """The directory of a run of 12 epochs that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    _finish(_start(directory, epochs=12))
    return directory


def test_loss_falls_and_every_epoch_is_logged(whole_run):
    log = _log(whole_run)
    assert [line["epoch"] for line in log] == list(range(1, 13))
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert [line["learning_rate"] for line in log] == pytest.approx([1e-4] * 10 + [1e-5] * 2)
    assert all(line["images_per_second"] > 0 for line in log)
    assert log[-1]["seconds_left"] == 0
    assert len(list((whole_run / "tensorboard").iterdir())) == 1


@pytest.fixture(scope="module")
def curves() -> dict[str, tuple[list[float], list[float]]]:
    """Losses and final statistics of `devices_run.py`, by method, dtype and number of devices."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "JAX_NUM_CPU_DEVICES": "8",
    }
    result = subprocess.run(
        script("devices_run.py"),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("method", ["adtr", "gtrans", "depthwise"])
def test_eight_devices_give_the_loss_curve_of_one(method, curves):
    """Batches of 6 on 8 devices: padding, dropout and the smaller last batch are all in play.

    BatchNorm, in GTrans, takes the statistics of the global batch. In float64 the curves agree to
    rounding over all epochs.
    """
    one, one_rest = curves[f"{method} float64 1"]
    eight, eight_rest = curves[f"{method} float64 8"]
    assert len(one) == 24
    assert one[-1] < one[0]
    assert eight == pytest.approx(one, rel=1e-9)
    assert len(one_rest) == {"adtr": 0, "gtrans": 2 * 3 + 1, "depthwise": 2}[method]
    assert eight_rest == pytest.approx(one_rest, rel=1e-9)


def test_eight_devices_give_the_same_losses_where_not_all_images_fit(curves):
    whole, parts = (curves[f"depthwise float64 8{how}"] for how in ("", ", a step at a time"))
    assert parts[0] == pytest.approx(whole[0], rel=1e-12)
    assert parts[1] == pytest.approx(whole[1], rel=1e-12)


def test_eight_devices_give_the_first_losses_of_one_in_float32(curves):
    """Later AdamW, whose first steps follow the mere sign of a gradient, amplifies rounding."""
    eight, one = (curves[f"depthwise float32 {devices}"][0] for devices in (8, 1))
    assert eight[:8] == pytest.approx(one[:8], rel=1e-5)


def test_killed_run_resumes_bit_identically(whole_run, tmp_path):
    process = _start(tmp_path, epochs=12, save_seconds=0)
    while len(_log(tmp_path)) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 5 <= len(_log(tmp_path)) < 12
    assert not (tmp_path / "params.npy").exists()
    _finish(_start(tmp_path, epochs=12, save_seconds=0))
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert kept == [10, 11, 12]
    whole, resumed = (np.load(d / "params.npy") for d in (whole_run, tmp_path))
    assert np.array_equal(whole, resumed)
    assert [line["loss"] for line in _log(tmp_path)] == [line["loss"] for line in _log(whole_run)]


def test_interrupted_run_saves_says_so_and_goes_on(whole_run, tmp_path):
    process = _start(tmp_path, epochs=12)
    while len(_log(tmp_path)) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    epoch = len(_log(tmp_path))
    assert 2 <= epoch < 12
    assert f"stopped after epoch {epoch} of 12 and saved" in err
    assert "the same command goes on" in err
    assert _call(tmp_path, epochs=12).returncode == 0
    assert np.array_equal(np.load(whole_run / "params.npy"), np.load(tmp_path / "params.npy"))


def test_finished_run_is_not_trained_again(whole_run):
    before = (whole_run / "log.jsonl").read_text()
    params = np.load(whole_run / "params.npy")
    assert _call(whole_run, epochs=12).returncode == 0
    assert (whole_run / "log.jsonl").read_text() == before
    assert np.array_equal(np.load(whole_run / "params.npy"), params)


@pytest.fixture
def trained(tmp_path) -> Path:
    """The directory of a run of four epochs, with the checkpoints of the last three."""
    assert _call(tmp_path, epochs=4, save_seconds=0).returncode == 0
    return tmp_path


def _flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_damaged_checkpoints_are_passed_over(trained):
    """One with a flipped bit; then all without digests, after which the run begins anew."""
    before = np.load(trained / "params.npy")
    checkpoints = trained / "checkpoints"
    largest = max((checkpoints / "4").rglob("*"), key=lambda file: file.stat().st_size)
    _flip(largest, largest.stat().st_size // 2)
    (trained / "params.npy").unlink()
    result = _call(trained, epochs=4, save_seconds=0)
    assert result.returncode == 0
    assert result.stderr == (
        f"warning: {checkpoints}/4 is damaged ({largest.relative_to(checkpoints / '4')} is not "
        "what was written): the run goes on from the checkpoint before\n"
    )
    assert np.array_equal(np.load(trained / "params.npy"), before)
    for number in (2, 3, 4):
        (checkpoints / str(number) / "sha256.json").unlink()
    result = _call(trained, epochs=4, save_seconds=0)
    assert result.stderr.count("is damaged (its digests cannot be read") == 3
    assert np.array_equal(np.load(trained / "params.npy"), before)
    assert [line["epoch"] for line in _log(trained)] == [1, 2, 3, 4]
    assert sorted(path.name for path in checkpoints.iterdir()) == ["2", "3", "4"]


def test_a_damaged_log_is_no_error(trained):
    """What is sound of it is kept; a folder in its place is said once."""
    lines = (trained / "log.jsonl").read_bytes().splitlines()
    damaged = [lines[0], b"\xff" + lines[1], b"null", b'{"epoch": 3}', lines[3][:20]]
    (trained / "log.jsonl").write_bytes(b"\n".join(damaged))
    assert log.read(trained) == [json.loads(lines[0])]
    assert list(Curves.read(trained).epochs) == [1]
    assert _call(trained, epochs=6, save_seconds=0).returncode == 0
    assert [line["epoch"] for line in _log(trained)] == [1, 5, 6]
    (trained / "log.jsonl").unlink()
    (trained / "log.jsonl").mkdir()
    result = _call(trained, epochs=8, save_seconds=0)
    assert result.returncode == 0
    assert result.stderr.count("warning: the log is not written: [Errno 21]") == 1
    assert len(Curves.read(trained).epochs) == 0
    assert Curves.read(trained).remark(8, "--epochs") == ""


def test_a_full_disc_is_one_line_and_the_same_command_goes_on(whole_run, tmp_path):
    """No file may be larger than 100 KiB, which those of a checkpoint are."""
    words = script("training_run.py", str(tmp_path), "12", "0")
    limited = ["sh", "-c", 'ulimit -f 200 && exec "$@"', "sh", *words]
    result = subprocess.run(
        limited,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {tmp_path}/checkpoints/1: the checkpoint cannot be written (File too large); make "
        "room, and the same command goes on from the one before\n"
    )
    assert list((tmp_path / "checkpoints").iterdir()) == []
    _finish(_start(tmp_path, epochs=12))
    assert np.array_equal(np.load(whole_run / "params.npy"), np.load(tmp_path / "params.npy"))


@pytest.mark.skipif(sys.platform != "linux", reason="its file names must be Unicode")
def test_a_folder_whose_name_is_no_text_is_resumed(trained, tmp_path):
    odd = tmp_path / os.fsdecode(b"odd\xff")
    assert _call(odd, epochs=3, save_seconds=0).returncode == 0
    assert _call(odd, epochs=4, save_seconds=0).returncode == 0
    assert [line["epoch"] for line in _log(odd)] == [1, 2, 3, 4]
    assert sorted(path.name for path in (odd / "checkpoints").iterdir()) == ["2", "3", "4"]


def test_what_killed_processes_left_is_removed(trained):
    """The parts of a checkpoint too, but not those of a process that lives."""
    left = trained / "checkpoints" / f".4-killed{temporary.SUFFIX}"
    (left / "4").mkdir(parents=True)
    (left / "4" / "half").write_bytes(b"half")
    with temporary.folder(trained / "checkpoints", "alive") as alive:
        assert _call(trained, epochs=5, save_seconds=0).returncode == 0
        names = sorted(path.name for path in (trained / "checkpoints").iterdir())
        assert names == [alive.name, "3", "4", "5"]


def test_max_steps_bounds_the_epochs():
    fast = AdtrSettings(epochs=150, max_steps=450)
    assert [fast.epochs_of(steps) for steps in (3, 30, 38, 1, 625)] == [150, 15, 12, 150, 1]
    assert AdtrSettings().epochs_of(38) == 500


def test_learning_rate_schedules():
    paper = train.learning_rate(AdtrSettings(), 500, 3)
    assert float(paper(400 * 3 - 1)) == pytest.approx(1e-4)
    assert float(paper(400 * 3)) == pytest.approx(1e-5)
    plus = train.learning_rate(Plus().settings(AdtrSettings()), 300, 3)
    assert [float(plus(epoch * 3)) for epoch in (199, 200)] == pytest.approx([1e-4, 1e-5])
    single = train.learning_rate(AdtrSettings(schedule="cosine"), 1, 1)
    assert float(single(0)) == pytest.approx(1e-4)
    gtrans = train.learning_rate(GtransSettings(), 300, 8)
    assert [float(gtrans(i)) for i in (0, 1200, 2400)] == pytest.approx(
        [1e-3, 9.487e-4, 9e-4], 1e-3
    )
    cosine = train.learning_rate(AdtrSettings(schedule="cosine"), 10, 10)
    assert [float(cosine(i)) for i in (0, 5, 100)] == pytest.approx([0, 1e-4, 0], abs=1e-9)


def test_one_step_is_adamw_on_equation_1(tmp_path):
    """The compiled, sharded step against optax applied by hand to the mean loss."""
    import jax
    import jax.numpy as jnp

    features = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 3)), jnp.float32)
    params = {"w": jnp.full((3,), 0.5)}

    def loss(params, rest, batch):
        f = batch.examples
        return jnp.mean(jnp.sum((f - f * params["w"]) ** 2, -1), (1, 2)), rest + 1

    def mean_loss(params):
        return loss(params, 0, train.Batch(features[:3], None, None))[0].mean()

    optimiser = optax.adamw(1e-2, weight_decay=1e-4)
    gradient = jax.grad(mean_loss)(params)
    updates, _ = optimiser.update(gradient, optimiser.init(params), params)
    expected = optax.apply_updates(params, updates)["w"]
    run = train.compile_steps(loss, optax.adamw(1.0, weight_decay=1e-4), device_mesh())
    state = train.TrainState(params, jnp.int32(0), optimiser.init(params), jnp.int32(0))
    order, weight = np.array([[2, 0, 1, 3]], np.int32), np.array([[1, 1, 1, 0]], np.float32)
    part = EpochPart(features, order, weight)
    pace = train.Pace.of(np.float32([1e-2]), 0)
    state, losses = run(state, pace, *train.placed(part, device_mesh()))
    assert np.asarray(state.params["w"]) == pytest.approx(np.asarray(expected), rel=1e-6)
    assert float(losses[0]) == pytest.approx(float(mean_loss({"w": jnp.full(3, 0.5)})), rel=1e-6)
    assert int(state.rest) == 1
    assert int(state.step) == 1


def test_a_batch_that_does_not_fit_is_said_before_training(tmp_path, monkeypatch):
    """What fits is said, too, and does."""
    import jax.numpy as jnp

    def loss(params, rest, batch):
        hidden = jnp.tanh(batch.examples[:, None] * params["w"])  # 4 MB an image, kept
        return jnp.sum(jnp.cos(hidden) * hidden, 1), rest

    data = train.TrainingData(Shard(np.arange(16, dtype=np.float32), 16), 16)

    def fit(batch_size):
        settings = AdtrSettings(epochs=1, batch_size=batch_size)
        directory = tmp_path / str(batch_size)
        start = {"w": jnp.full(2**20, 0.5)}, jnp.int32(0)
        where = {"mesh": device_mesh(), "directory": directory, "label": "test"}
        return train.fit(loss, start, data, settings=settings, **where)

    monkeypatch.setattr(memory, "free", lambda mesh: 50_000_000)
    with pytest.raises(InputError) as caught:
        fit(16)
    found = re.fullmatch(
        r"a training step of 16 images needs 0\.(\d) GB of memory, and 0\.1 GB are free: "
        r"take --batch_size=(\d+)",
        str(caught.value),
    )
    assert found and 1 <= int(found[1]) <= 4 and 2 <= int(found[2]) < 16
    fit(int(found[2]))
    monkeypatch.setattr(memory, "free", lambda mesh: 1_000_000)
    with pytest.raises(InputError, match=r"0.0 GB are free: take a smaller --image_size$"):
        fit(1)


def test_adam_is_pytorchs_with_the_weight_decay_in_the_gradient():
    import jax.numpy as jnp

    torch = pytest.importorskip("torch")
    start, gradient = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    reference = torch.optim.Adam([theirs], lr=1e-2, weight_decay=0.1)
    optimiser = train.make_optimiser(GtransSettings(weight_decay=0.1))
    ours = jnp.asarray(start)
    state = optimiser.init(ours)
    for step in range(20):
        theirs.grad = torch.from_numpy(gradient * np.float32(np.cos(step)))
        reference.step()
        updates, state = optimiser.update(jnp.asarray(theirs.grad.numpy()), state, ours)
        ours = optax.apply_updates(ours, 1e-2 * updates)
    assert np.asarray(ours) == pytest.approx(theirs.detach().numpy(), rel=1e-5)


def test_muon_moves_matrices_by_orthogonal_steps_and_all_else_by_adamw():
    """Newton and Schulz's five iterations bring singular values near 1, not to it."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    rng = np.random.default_rng(0)
    shapes = {
        "dense": {"kernel": (8, 12), "bias": (12,)},
        "convolution": {"kernel": (3, 3, 4, 8)},
        "depthwise": {"kernel": (3, 3, 1, 8)},
        "query": (4, 8),
    }
    params = jax.tree.map(
        lambda shape: nnx.Param(jnp.asarray(rng.normal(size=shape), jnp.float32)),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    params, gradients = nnx.State(params), jax.tree.map(jnp.sin, nnx.State(params))
    settings = AdtrSettings(optimiser="muon", weight_decay=0.1)
    optimiser = train.make_optimiser(settings)
    updates, _ = optimiser.update(gradients, optimiser.init(params), params)
    for name in ("dense", "convolution"):
        decay = 0.1 * params[name]["kernel"][...]
        step = np.asarray(-updates[name]["kernel"][...] - decay)
        wide = step.shape[-1] / np.prod(step.shape[:-1])
        matrix = step.reshape(-1, step.shape[-1]) / max(1, wide) ** 0.5
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values.min() > 0.6 and values.max() < 1.3, name
    adamw = optax.nadamw(1.0, weight_decay=0.1)
    expected, _ = adamw.update(gradients, adamw.init(params), params)
    for path in (("dense", "bias"), ("depthwise", "kernel"), ("query",)):
        ours, theirs = updates, expected
        for key in path:
            ours, theirs = ours[key], theirs[key]
        assert np.asarray(ours[...]) == pytest.approx(np.asarray(theirs[...]), rel=1e-5), path


def test_held_out_loss_is_the_mean_of_every_image():
    """Five images in batches of three: the last batch is filled up, which must not count."""
    import jax.numpy as jnp

    rows = Shard(np.arange(5, dtype=np.float32), 5)

    def loss(params, rest, batch):
        assert batch.seeds is None and batch.weight is None
        return params * batch.examples**2, rest

    validate = train.compile_validation(loss, rows, 3, device_mesh())
    state = train.TrainState(jnp.float32(2), None, None, jnp.int32(0))
    assert validate(state) == pytest.approx(2 * (0 + 1 + 4 + 9 + 16) / 5)


def test_corrupt_settings_are_refused():
    with pytest.raises(InputError, match=r"--layers 3 2 must be numbers from 1 to 5, rising"):
        AdtrSettings(layers=(3, 2))
    with pytest.raises(InputError, match=r"--image_size=250 must be .* multiple"):
        AdtrSettings(image_size=250)
    with pytest.raises(InputError, match="--epochs=0 must be greater than 0"):
        AdtrSettings(epochs=0)
    with pytest.raises(InputError, match="did you mean efficientnet-b4"):
        AdtrSettings(backbone="eficientnet-b4")
    with pytest.raises(InputError, match="--batch_size=15 must be even: half of each batch"):
        Plus().settings(AdtrSettings(batch_size=15))
    with pytest.raises(InputError, match=r"--plus.variants=0 must be greater than 0"):
        Plus(variants=0)
