"""What each of `adtr_jax.nn.cpu`'s forms gains over the plain form it stands beside, on this CPU.

python -m benchmarks.cpu_forms [--quick]

Forward alone, as in features and predictions, and with all gradients inside a compiled loop, as in
a training step. Both forms are timed in turn in one run; the median counts.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adtr_jax.command_line import guarded, parse
from adtr_jax.devices.sharding import compiler_options
from adtr_jax.nn import attention, convolution, layers
from benchmarks import machine
from benchmarks.rows import show
from benchmarks.timing import Way, interleaved

PROG = "python -m benchmarks.cpu_forms"
HEADER = ("form", "arrays", "forward, plain", "gain", "gradients, plain", "gain")
STEPS = 2  # of the loop in which gradients are computed


@dataclass(frozen=True)
class CpuForms:
    """Print a table of the plain forms' times, and by what factor the CPU's are faster."""

    repeats: int = 5
    """How often each is timed, in turn."""
    quick: bool = False
    """One image and one repeat: whether everything runs, not how fast."""


@dataclass(frozen=True)
class Case:
    """A decorated function, how it is called, and the shapes of its arrays for so many images."""

    function: Any
    shapes: Callable[[int], Sequence[tuple[int, ...]]]
    static: dict[str, Any]
    extra: tuple[Any, ...] = ()  # arguments without a gradient

    def form(self, name: str) -> Callable[..., jax.Array]:
        """The form `plain` or `cpu`."""
        chosen = functools.partial(getattr(self.function, name), **self.static)
        return lambda *arrays: chosen(*arrays, *self.extra)


CASES = {
    "dense": Case(layers.dense, lambda b: [(b, 256, 256), (256, 1024), (1024,)], {}),
    "layer_norm": Case(
        layers.layer_norm, lambda b: [(b, 256, 256), (256,), (256,)], {"epsilon": 1e-5}
    ),
    "attend": Case(
        attention.attend, lambda b: [(b, 8, 256, 32)] * 3, {"rate": 0.0, "site": 0}, (None,)
    ),
    "product": Case(layers.product, lambda b: [(b, 32, 32, 96), (96, 24)], {}),
    "global_mean": Case(layers.global_mean, lambda b: [(b, 32, 32, 192)], {}),
    "swish": Case(layers.swish, lambda b: [(b, 32, 32, 192)], {}),
    "convolution, depthwise 5x5": Case(
        convolution.convolution,
        lambda b: [(b, 16, 16, 192), (5, 5, 1, 192)],
        {"stride": 1, "padding": (2, 2), "groups": 192},
    ),
    "convolution, 3x3": Case(
        convolution.convolution,
        lambda b: [(b, 16, 16, 64), (3, 3, 64, 64)],
        {"stride": 1, "padding": (1, 1), "groups": 1},
    ),
}


def measure(command: CpuForms) -> Iterator[tuple[str, ...]]:
    """The table's rows."""
    batch, repeats = (1, 1) if command.quick else (8, command.repeats)
    for name, case in CASES.items():
        rng = np.random.default_rng(0)
        arrays = [
            jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in case.shapes(batch)
        ]
        cells = [name, ", ".join("x".join(map(str, array.shape)) for array in arrays)]
        for make in (_forward, _gradients):
            ways = {form: make(case.form(form), arrays) for form in ("plain", "cpu")}
            seconds = interleaved(ways, repeats)
            gain = seconds["plain"] / seconds["cpu"]
            cells += [f"{1e3 * seconds['plain']:.3g} ms", f"{gain:.2f}"]
        yield tuple(cells)


def _compiled(function: Callable[..., Any], arrays: Sequence[jax.Array]) -> Way:
    program = jax.jit(function, compiler_options=compiler_options(jax.default_backend()))
    return lambda: jax.block_until_ready(program(*arrays))


def _forward(form: Callable[..., jax.Array], arrays: Sequence[jax.Array]) -> Way:
    return _compiled(form, arrays)


def _gradients(form: Callable[..., jax.Array], arrays: Sequence[jax.Array]) -> Way:
    """Some steps of gradient descent on all arrays."""
    shape = jax.eval_shape(form, *arrays).shape
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)

    def loss(arrays: Sequence[jax.Array], weight: jax.Array) -> jax.Array:
        return jnp.vdot(form(*arrays), weight)

    def steps(weight: jax.Array, *arrays: jax.Array) -> Any:
        def step(arrays: Any, _: None) -> tuple[Any, None]:
            gradients = jax.grad(loss)(arrays, weight)
            return jax.tree.map(lambda x, dx: x - 1e-6 * dx, arrays, gradients), None

        return jax.lax.scan(step, arrays, None, STEPS)[0]

    return _compiled(steps, [weight, *arrays])


def run(command: CpuForms) -> int:
    """Measures and prints the table; returns the exit status."""
    words = " ".join([PROG, *sys.argv[1:]])
    print(f"`{words}`: {machine.describe()}\n")
    table = show(HEADER, measure(command))
    print(f"\n{table}", end="")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(CpuForms, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
