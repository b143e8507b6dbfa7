"""ADTR's train step against PyTorch on this machine: forward, backward and AdamW.

python -m benchmarks.train_step [--repeats 7]
"""

import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro
from flax import nnx

from adtr_jax import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.rows import Part
from adtr_jax.sharding import device_mesh, place
from adtr_jax.train import TrainState, compile_steps
from benchmarks.timing import interleaved
from benchmarks.torch_adtr import TorchADTR

CHANNELS = 720  # EfficientNet-B4's five layers
STEPS = 2  # in one compiled scan; an epoch has more


@dataclass(frozen=True)
class TrainStep:
    """Print the seconds of one step in JAX and in PyTorch, and their ratio."""

    repeats: int = 7
    """How often each is timed, in turn; the median counts."""


def jax_step(tokens: int, batch: int, rate: float):
    """One call trains `STEPS` steps."""
    model = ADTR(CHANNELS, tokens, rate=rate, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)

    def loss(params, statistics, batch):
        f_hat = nnx.merge(graph, params)(batch.rows, batch.seeds)
        return losses.normal(batch.rows, f_hat), statistics

    optimiser = optax.adamw(1e-4, weight_decay=1e-4)
    mesh = device_mesh()
    epoch = compile_steps(loss, optimiser, 0, mesh)
    side = int(tokens**0.5)
    features = jax.random.normal(jax.random.key(0), (batch, side, side, CHANNELS))
    order = np.tile(np.arange(batch, dtype=np.int32), (STEPS, 1))
    weight = np.ones((STEPS, batch), np.float32)
    state = TrainState(params, None, optimiser.init(params), jnp.int32(0))
    state, features = place((state, features), mesh)

    def call() -> None:
        nonlocal state
        state, values = epoch(state, Part(features, order, weight))
        jax.block_until_ready((state, values))

    return call


def torch_step(tokens: int, batch: int, rate: float):
    """The same in PyTorch."""
    model = TorchADTR(CHANNELS, tokens, rate).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    side = int(tokens**0.5)
    f = torch.from_numpy(np.random.default_rng(0).normal(size=(batch, CHANNELS, side, side)))
    f = f.float()

    def call() -> None:
        for _ in range(STEPS):
            optimiser.zero_grad()
            ((f - model(f)) ** 2).sum(1).mean().backward()
            optimiser.step()

    return call


def main(arguments: TrainStep) -> None:
    """Times and prints."""
    print(f"jax {jax.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, float32")
    print(f"{'tokens':>6} {'batch':>5} {'dropout':>7} {'jax s':>8} {'torch s':>8} {'ratio':>6}")
    for tokens, batch in ((256, 16), (64, 128), (64, 16)):
        for rate in (0.1, 0.0):
            ways = {"jax": jax_step(tokens, batch, rate), "torch": torch_step(tokens, batch, rate)}
            seconds = interleaved(ways, arguments.repeats)
            ours, theirs = seconds["jax"] / STEPS, seconds["torch"] / STEPS
            ratio = theirs / ours
            print(f"{tokens:6} {batch:5} {rate:7} {ours:8.3f} {theirs:8.3f} {ratio:6.2f}")


if __name__ == "__main__":
    main(tyro.cli(TrainStep))
