"""State, step and loop: a pure step over cached features, an epoch as one compiled scan."""

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
from optax.contrib import MuonDimensionNumbers, muon

from adtr_jax.config import Settings
from adtr_jax.devices import hosts, memory
from adtr_jax.devices.loader import EpochPart, Loader, Shard, take_batch
from adtr_jax.devices.sharding import AXIS, per_device, place, replicated, split
from adtr_jax.errors import InputError, Stopped
from adtr_jax.interrupt import Deferral
from adtr_jax.nn.dropout import seeds
from adtr_jax.training.early_stopping import Best
from adtr_jax.training.sampling import Sampling

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.'s
SAVE_SECONDS = 60  # at most this much work, or one epoch, is lost when a run is killed

Params = Any
Rest = Any  # all else that a model learns: BatchNorm's running statistics, a standardisation
Data = Any  # arrays with one example per image: features, and labels if anomalies are known


class TrainingData(NamedTuple):
    """The precomputed training data.

    Attributes:
        examples: of the images, normal ones first.
        normal: number of normal images; if others follow, half of each batch is normal.
        held_out: normal images that are not trained on; their loss is logged.
    """

    examples: Shard
    normal: int
    held_out: Shard | None = None

    def sampling(self, settings: Settings) -> Sampling:
        """Returns the batches of every epoch."""
        anomalous = self.examples.total - self.normal
        return Sampling(self.normal, anomalous, settings.batch_size, settings.seed)


class Batch(NamedTuple):
    """One device's part of a batch.

    Attributes:
        seeds: of the dropout, one per image; None: no dropout, as nothing is trained.
        weight: 1, or 0 for padding; None: nothing is trained, and BatchNorm uses its running
            statistics.
    """

    examples: Data
    seeds: UInt32[Array, "b"] | None
    weight: Float[Array, "b"] | None


# -> one loss per image, and the new `rest`, the same on all devices.
Loss = Callable[[Params, Rest, Batch], tuple[Float[Array, "b"], Rest]]


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        params: trained by gradients.
        rest: all else that the model learns.
        step: number of steps done.
    """

    params: Params
    rest: Rest
    opt_state: optax.OptState
    step: Int32[Array, ""]


class Pace(NamedTuple):
    """What of a training a compiled epoch does not depend on: another one needs no compilation.

    Attributes:
        rates: the learning rate of every step of an epoch.
        seed: of the dropout and the jitter.
    """

    rates: Float[Array, "steps"]
    seed: UInt32[Array, ""]

    @classmethod
    def of(cls, rates: Float[np.ndarray, "steps"], seed: int) -> "Pace":
        """Returns the pace of an epoch with these rates."""
        return cls(jnp.asarray(rates), jnp.uint32(seed))


def learning_rates(
    settings: Settings, epochs: int, steps: int
) -> Float[np.ndarray, "epochs steps"]:
    """Returns the learning rate at every step of `epochs` epochs of `steps` steps each."""
    schedule = learning_rate(settings, epochs, steps)
    return np.asarray(jax.jit(schedule)(jnp.arange(epochs * steps))).reshape(epochs, steps)


def learning_rate(settings: Settings, epochs: int, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the number of steps done.

    `step` is ADTR's: x0.1 after the fraction `drop_after` of the epochs. `exponential` is GTrans's:
    a decay to 0.9 of the initial value. `cosine` warms up over the first twentieth and decays to
    zero.
    """
    total = epochs * steps
    if settings.schedule == "step":
        boundary = round(settings.drop_after * epochs) * steps
        return optax.piecewise_constant_schedule(settings.learning_rate, {boundary: 0.1})
    if settings.schedule == "exponential":
        return optax.exponential_decay(settings.learning_rate, total, 0.9)
    warmup = min(max(1, total // 20), total - 1)  # none for a single step
    return optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, total)


def make_optimiser(settings: Settings) -> optax.GradientTransformation:
    """Returns AdamW, Muon, or Adam with the weight decay added to the gradient, as in PyTorch's.

    Its updates are those of a learning rate of 1, in proportion to which all others' are.
    Muon (Jordan et al. 2024) is for the kernels of dense layers and convolutions; embeddings,
    biases and normalisations, which are no linear maps, are AdamW's. With `clip` the gradient's
    norm, over all parameters, is bounded first.
    """
    optimiser = _unclipped(settings)
    if settings.clip is None:
        return optimiser
    return optax.chain(optax.clip_by_global_norm(settings.clip), optimiser)


def _unclipped(settings: Settings) -> optax.GradientTransformation:
    decay = settings.weight_decay
    if settings.optimiser == "adamw":
        return optax.adamw(1.0, weight_decay=decay)
    if settings.optimiser == "adam":
        return optax.chain(optax.add_decayed_weights(decay), optax.adam(1.0))
    return muon(
        1.0,
        ns_coeffs=(NEWTON_SCHULZ,) * 5,  # one for each iteration: a loop, compiled in less time
        weight_decay=decay,
        adam_weight_decay=decay,
        muon_weight_dimension_numbers=_matrices,
    )


def _matrices(params: Params) -> Any:
    """Returns which axes of a kernel are inputs and outputs of a matrix; None: it is none.

    A depthwise convolution, with one input a channel, has no matrix.
    """

    def axes(path: tuple, leaf: Array) -> MuonDimensionNumbers | None:
        *inputs, _ = range(leaf.ndim)
        named = any(getattr(key, "key", None) == "kernel" for key in path)
        if not named or leaf.ndim < 2 or leaf.shape[-2] == 1:
            return None
        return MuonDimensionNumbers(reduction_axis=tuple(inputs), output_axis=leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def compile_steps(
    loss: Loss, optimiser: optax.GradientTransformation, mesh: Mesh
) -> jax.stages.Wrapped:
    """Compiles the steps of an epoch, or of a part of it, into one program over all devices.

    The program takes the state, which is donated, the epoch's `Pace`, and what `placed` returns for
    the steps; it returns the new state and the loss of every step. The result does not depend on
    the number of devices, dropout included.

    Args:
        loss: one value per image, and the new `rest`.
        optimiser: its updates are those of a learning rate of 1.
        mesh: all devices.
    """

    def one_step(
        state: TrainState, pace: Pace, data: Data, order: Array, weight: Array
    ) -> tuple[TrainState, Array]:
        position = jax.lax.axis_index(AXIS) * len(weight) + jnp.arange(len(weight))
        batch = Batch(take_batch(data, order), seeds(pace.seed, state.step, position), weight)

        def batch_loss(params: Params) -> tuple[Array, Rest]:
            # The mean over the global batch: its gradient is that of all devices together.
            values, rest = loss(params, state.rest, batch)
            total = jax.lax.psum(jnp.sum(values * weight), AXIS)
            return total / jax.lax.psum(jnp.sum(weight), AXIS), rest

        gradient = jax.value_and_grad(batch_loss, has_aux=True)
        (value, rest), gradients = gradient(state.params)
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        rate = pace.rates[state.step % len(pace.rates)]
        updates = jax.tree.map(lambda update: rate * update, updates)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, rest, opt_state, state.step + 1), value

    def steps(
        state: TrainState, pace: Pace, data: Data, order: Int32[Array, "part b"], weight: Array
    ) -> tuple[TrainState, Float[Array, "part"]]:
        return jax.lax.scan(
            lambda state, batch: one_step(state, pace, data, *batch), state, (order, weight)
        )

    specs = (replicated, replicated, *_PLACED)
    return per_device(steps, mesh, specs, (replicated, replicated), donate=(0,))


def compile_validation(
    loss: Loss, held_out: Shard, batch_size: int, mesh: Mesh, limit: int | None = None
) -> Callable[[TrainState], float]:
    """Returns the mean loss of the held-out images as a compiled function of the state."""
    loader = Loader(held_out, mesh, limit)
    order, weight = Sampling(held_out.total, 0, batch_size, seed=0).epoch(0, mesh.size)

    def steps(state: TrainState, data: Data, order: Array, weight: Array) -> Array:
        def one(total: Array, batch: tuple[Array, Array]) -> tuple[Array, None]:
            order, weight = batch
            values, _ = loss(state.params, state.rest, Batch(take_batch(data, order), None, None))
            return total + jax.lax.psum(jnp.sum(values * weight), AXIS), None

        return jax.lax.scan(one, jnp.zeros(()), (order, weight))[0]

    compiled = per_device(steps, mesh, (replicated, *_PLACED), replicated)

    def validate(state: TrainState) -> float:
        parts = loader.parts(order, weight)
        return sum(float(compiled(state, *placed(part, mesh))) for part in parts) / held_out.total

    return validate


# Examples, order and weight.
_PLACED = (split(), replicated, split(1))


def placed(part: EpochPart, mesh: Mesh) -> tuple[Data, Array, Array]:
    """Places a part of an epoch on the devices: examples, order and weight."""
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

    That is after the last epoch or, with `settings.patience`, after the epoch where the loss of the
    held-out images was lowest.

    Args:
        loss: one value per image, and the new `rest`.
        start: the initial `params` and `rest`.
        data: with held-out images, if `settings.patience` is given.
        settings: epochs, patience, batch size, optimiser, learning rate, schedule, weight decay and
            seed.
        directory: for `checkpoints/`, `log.jsonl` and `tensorboard/`, from the first process.
        label: of the progress bar.
        limit: bytes of each device that the data may take; None: as `memory` says.

    Raises:
        Stopped: on Ctrl-C or SIGTERM in any process, after saving.
        InputError: a damaged checkpoint; `settings.patience` without held-out images; a step that
            needs more memory than there is.
    """
    # Imported here: Orbax and TensorBoard take a second, and prediction does not need them.
    from adtr_jax.training.checkpoint import Checkpoints
    from adtr_jax.training.log import TrainingLog

    sampling = data.sampling(settings)
    epochs = settings.epochs_of(sampling.steps)
    rates = learning_rates(settings, epochs, sampling.steps)
    optimiser = make_optimiser(settings)
    params, rest = jax.tree.map(jnp.copy, start)  # the steps overwrite their buffers
    state = TrainState(params, rest, optimiser.init(params), jnp.int32(0))
    _require_held_out(data, settings)
    best = None if settings.patience is None else Best.before(params, rest)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        done, (state, best) = checkpoints.last((state, best))
        state, best = place((state, best), mesh)
        if _over(done, epochs, best, settings.patience):
            return _learned(state, best)
        run = compile_steps(loss, optimiser, mesh)
        loader = Loader(data.examples, mesh, limit)
        validate = None
        if data.held_out is not None:
            validate = compile_validation(loss, data.held_out, settings.batch_size, mesh, limit)
        log = TrainingLog(directory, epochs, done, sampling.images, label)
        notice = "stopping after this epoch; once more to stop at once"
        with log, Deferral(notice) as interrupt:
            saved = time.monotonic()
            for number in range(done + 1, epochs + 1):
                order, weight = sampling.epoch(number, mesh.size)
                pace = place(Pace.of(rates[number - 1], settings.seed), mesh)
                losses: list[Array] = []
                for part in loader.parts(order, weight):
                    arguments = state, pace, *placed(part, mesh)
                    if number == done + 1 and not losses:  # compiled once: the call finds it
                        compiled = run.lower(*arguments).compile()
                        memory.require_room(compiled, settings.batch_size, mesh)
                    state, values = run(*arguments)
                    # At most two parts are on the devices, which otherwise fall behind.
                    jax.block_until_ready(losses[-1:])
                    losses.append(values)
                held_out_loss = validate and validate(state)
                last = float(rates[number - 1, -1])
                log.epoch(number, _mean(losses, weight), last, held_out_loss)
                if best is not None and held_out_loss is not None:
                    best = best.after(number, held_out_loss, state.params, state.rest)
                stop = hosts.largest(interrupt.asked)
                over = _over(number, epochs, best, settings.patience)
                if over or stop or time.monotonic() - saved >= SAVE_SECONDS:
                    checkpoints.save(number, (state, best))
                    saved = time.monotonic()
                if stop:
                    raise Stopped(
                        f"stopped after epoch {number} of {epochs} and saved in "
                        f"{checkpoints.directory}; the same command goes on"
                    )
                if over:
                    break
    return _learned(state, best)


def _require_held_out(data: TrainingData, settings: Settings) -> None:
    """Raises InputError where the training would stop by the loss of images that are not there."""
    if settings.patience is not None and data.held_out is None:
        raise InputError(
            f"--patience={settings.patience} is of the loss of held-out images, and "
            f"--held_out={settings.held_out} of {data.normal} images is none: give a larger share, "
            "or more images"
        )


def _over(epoch: int, epochs: int, best: Best | None, patience: int | None) -> bool:
    """Returns whether the training ends after this epoch."""
    waited = best is not None and patience is not None and epoch - int(best.epoch) >= patience
    return waited or epoch == epochs


def _learned(state: TrainState, best: Best | None) -> tuple[Params, Rest]:
    """Returns what is kept of the training, as this process's own arrays."""
    kept = best or state
    return hosts.local((kept.params, kept.rest))


def _mean(losses: list[Array], weight: np.ndarray) -> float:
    """Returns the mean loss of an epoch's images, the last batch weighted by its size."""
    values = np.concatenate([np.asarray(part, np.float64) for part in losses])
    return float(np.average(values, weights=weight.sum(axis=1)))
