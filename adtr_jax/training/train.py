"""State, step and loop: a pure step over cached features, an epoch as one compiled scan."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, UInt32

from adtr_jax.config import Settings
from adtr_jax.devices import hosts
from adtr_jax.devices.loader import EpochPart, Loader, Shard, take_batch
from adtr_jax.devices.sharding import AXIS, per_device, place, replicated, split
from adtr_jax.errors import Stopped
from adtr_jax.nn.dropout import seeds
from adtr_jax.training.sampling import Sampling

SAVE_SECONDS = 60  # at most this much work, or one epoch, is lost when a run is killed

Params = Any
Rest = Any  # what else a model learns: BatchNorm's running statistics, a standardisation
Data = Any  # arrays with one example an image: features, and labels where anomalies are known


class TrainingData(NamedTuple):
    """What is trained on, computed once.

    Attributes:
        examples: the images, the normal ones first.
        normal: how many are normal; where others follow them, each batch is half of these.
        held_out: normal images that are not trained on; their loss is logged.
    """

    examples: Shard
    normal: int
    held_out: Shard | None = None


class Batch(NamedTuple):
    """One device's part of a batch.

    Attributes:
        examples: of the data.
        seeds: of the dropout, one an image; None: there is none, for nothing is trained.
        weight: 1, or 0 for an image that only fills the batch up; None: nothing is trained, and
            BatchNorm uses its running statistics.
    """

    examples: Data
    seeds: UInt32[Array, "b"] | None
    weight: Float[Array, "b"] | None


# -> one loss an image, and the new `rest`, the same on all devices.
Loss = Callable[[Params, Rest, Batch], tuple[Float[Array, "b"], Rest]]


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        params: what is trained by gradients.
        rest: all else that the model learns.
        opt_state: the optimiser's.
        step: steps done.
    """

    params: Params
    rest: Rest
    opt_state: optax.OptState
    step: Int32[Array, ""]


def learning_rate(settings: Settings, epochs: int, steps: int) -> optax.Schedule:
    """The learning rate at every step of `epochs` epochs of `steps` steps each.

    `step` is ADTR's: x0.1 after the settings' share of the epochs. `exponential` is GTrans's: it
    falls to 0.9 of its value. `cosine` warms up over the first twentieth and falls to zero.
    """
    total = epochs * steps
    if settings.schedule == "step":
        boundary = round(settings.drop_after * epochs) * steps
        return optax.piecewise_constant_schedule(settings.learning_rate, {boundary: 0.1})
    if settings.schedule == "exponential":
        return optax.exponential_decay(settings.learning_rate, total, 0.9)
    warmup = min(max(1, total // 20), total - 1)  # of a single step, none
    return optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, total)


def make_optimiser(settings: Settings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW; or Adam with the weight decay added to the gradient, as PyTorch's Adam takes it."""
    if settings.optimiser == "adamw":
        return optax.adamw(schedule, weight_decay=settings.weight_decay)
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), optax.adam(schedule))


def compile_steps(
    loss: Loss, optimiser: optax.GradientTransformation, seed: int, mesh: Mesh
) -> Callable[..., tuple[TrainState, Float[Array, "steps"]]]:
    """The steps of an epoch, or of a part of it, as one compiled program over all devices.

    The program takes the state and what `placed` makes of the steps' examples, and returns the new
    state (the old one is donated) and the loss of every step. The result does not depend on the
    number of devices, dropout included.
    """

    def one_step(
        state: TrainState, data: Data, order: Array, weight: Array
    ) -> tuple[TrainState, Array]:
        position = jax.lax.axis_index(AXIS) * len(weight) + jnp.arange(len(weight))
        batch = Batch(take_batch(data, order), seeds(seed, state.step, position), weight)

        def batch_loss(params: Params) -> tuple[Array, Rest]:
            # The mean over the global batch: its gradient is that of all devices together.
            values, rest = loss(params, state.rest, batch)
            total = jax.lax.psum(jnp.sum(values * weight), AXIS)
            return total / jax.lax.psum(jnp.sum(weight), AXIS), rest

        gradient = jax.value_and_grad(batch_loss, has_aux=True)
        (value, rest), gradients = gradient(state.params)
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, rest, opt_state, state.step + 1), value

    def steps(
        state: TrainState, data: Data, order: Int32[Array, "steps b"], weight: Array
    ) -> tuple[TrainState, Float[Array, "steps"]]:
        return jax.lax.scan(
            lambda state, batch: one_step(state, data, *batch), state, (order, weight)
        )

    return per_device(steps, mesh, _SPECS, (replicated, replicated), donate=(0,))


def compile_validation(
    loss: Loss, held_out: Shard, batch_size: int, mesh: Mesh, limit: int | None = None
) -> Callable[[TrainState], float]:
    """The mean loss of images that are not trained on, as a function of the state."""
    loader = Loader(held_out, mesh, limit)
    order, weight = Sampling(held_out.total, 0, batch_size, seed=0).epoch(0, mesh.size)

    def steps(state: TrainState, data: Data, order: Array, weight: Array) -> Array:
        def one(total: Array, batch: tuple[Array, Array]) -> tuple[Array, None]:
            order, weight = batch
            values, _ = loss(state.params, state.rest, Batch(take_batch(data, order), None, None))
            return total + jax.lax.psum(jnp.sum(values * weight), AXIS), None

        return jax.lax.scan(one, jnp.zeros(()), (order, weight))[0]

    compiled = per_device(steps, mesh, _SPECS, replicated)

    def validate(state: TrainState) -> float:
        parts = loader.parts(order, weight)
        return sum(float(compiled(state, *placed(part, mesh))) for part in parts) / held_out.total

    return validate


# State, examples, order and weight.
_SPECS = (replicated, split(), replicated, split(1))


def placed(part: EpochPart, mesh: Mesh) -> tuple[Data, Array, Array]:
    """A part of an epoch, all of it on the devices."""
    return part.examples, place(part.order, mesh), place(part.weight, mesh, split(1))


def fit(
    loss: Loss,
    start: tuple[Params, Rest],
    data: TrainingData,
    *,
    settings: Settings,
    mesh: Mesh,
    directory: Path,
    label: str,
    limit: int | None = None,
) -> tuple[Params, Rest]:
    """Trains a model on cached data and returns what it has learned; resumes a killed run.

    Args:
        loss: one value an image, and the new `rest`.
        start: the initial `params` and `rest`.
        data: what to train on.
        settings: epochs, batch size, optimiser, learning rate, schedule, weight decay and seed.
        mesh: the devices to train on.
        directory: gets `checkpoints/`, `log.jsonl` and `tensorboard/`, from the first process.
        label: names the progress bar.
        limit: bytes of each device that the data may take; None: what `memory` says.

    Raises:
        Stopped: on Ctrl-C or SIGTERM in any process, after saving.
        InputError: a damaged checkpoint.
    """
    # Here, for whoever only predicts is spared the second that Orbax and TensorBoard take.
    from adtr_jax.training.checkpoint import Checkpoints
    from adtr_jax.training.log import TrainingLog

    anomalous = data.examples.total - data.normal
    sampling = Sampling(data.normal, anomalous, settings.batch_size, settings.seed)
    epochs = settings.epochs_of(sampling.steps)
    schedule = learning_rate(settings, epochs, sampling.steps)
    optimiser = make_optimiser(settings, schedule)
    params, rest = jax.tree.map(jnp.copy, start)  # the steps overwrite their buffers
    state = TrainState(params, rest, optimiser.init(params), jnp.int32(0))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        done, state = checkpoints.last(state)
        state = place(state, mesh)
        if done == epochs:
            return hosts.local((state.params, state.rest))
        run = compile_steps(loss, optimiser, settings.seed, mesh)
        loader = Loader(data.examples, mesh, limit)
        validate = None
        if data.held_out is not None:
            validate = compile_validation(loss, data.held_out, settings.batch_size, mesh, limit)
        log = TrainingLog(directory, epochs, done, sampling.images, label)
        with log, _Interrupt() as interrupt:
            saved = time.monotonic()
            for number in range(done + 1, epochs + 1):
                order, weight = sampling.epoch(number, mesh.size)
                losses = []
                for part in loader.parts(order, weight):
                    state, values = run(state, *placed(part, mesh))
                    losses.append(values)
                rate = float(schedule(number * sampling.steps - 1))
                log.epoch(number, _mean(losses, weight), rate, validate and validate(state))
                stop = hosts.largest(interrupt.asked)
                if number == epochs or stop or time.monotonic() - saved >= SAVE_SECONDS:
                    checkpoints.save(number, state)
                    saved = time.monotonic()
                if stop:
                    raise Stopped(
                        f"stopped after epoch {number} of {epochs} and saved in "
                        f"{checkpoints.directory}; the same command, without --retrain, goes on"
                    )
    return hosts.local((state.params, state.rest))


def _mean(losses: list[Array], weight: np.ndarray) -> float:
    """The mean loss of an epoch's images, the smaller last batch counted as what it is."""
    values = np.concatenate([np.asarray(part, np.float64) for part in losses])
    return float(np.average(values, weights=weight.sum(axis=1)))


class _Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the epoch; the second stops."""

    def __enter__(self) -> "_Interrupt":
        self.asked = False
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not print: a signal handler may run in the middle of another one.
        os.write(2, b"\nstopping after this epoch; once more to stop at once\n")
