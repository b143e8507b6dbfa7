"""A comparison, and the table of all comparisons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HEADER = ("what", "JAX", "PyTorch eager", "PyTorch compiled", "ratio", "target")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        jax: our value, in `unit`.
        torch: PyTorch's values by way, `eager` or `compiled`, each with an optional remark after a
            comma; or why there is none.
        target: the target ratio, if any.
        unit: of the values; lower is better.
    """

    what: str
    jax: float
    torch: Mapping[str, float | str]
    target: float | None = None
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """PyTorch's best value over ours; above 1, ours is better."""
        return min(value for value in self.torch.values() if not isinstance(value, str)) / self.jax

    def cells(self) -> tuple[str, ...]:
        """Returns the table's cells, in the order of `HEADER`."""
        target = "" if self.target is None else f"{self.target:g}"
        eager, compiled = self._cell("eager"), self._cell("compiled")
        return self.what, self._number(self.jax), eager, compiled, f"{self.ratio:.2f}", target

    def _cell(self, way: str) -> str:
        """Returns the best value of the ways that start with `way`, and its remark."""
        ways = {name: value for name, value in self.torch.items() if name.split(",")[0] == way}
        numbers = {name: value for name, value in ways.items() if not isinstance(value, str)}
        if not numbers:
            return str(next(iter(ways.values()), ""))
        best = min(numbers, key=numbers.__getitem__)
        remark = best.removeprefix(way).strip(", ")
        return self._number(numbers[best]) + (f" ({remark})" if remark else "")

    def _number(self, value: float) -> str:
        return f"{value:.0f} MiB" if self.unit == "MiB" else f"{value:.3g} {self.unit}"


def show(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Prints each row as it comes; returns the table of all."""
    kept = []
    for row in rows:
        kept.append(row)
        print(" | ".join(row), flush=True)
    return markdown(header, kept)


def table(rows: Sequence[Row]) -> str:
    return markdown(HEADER, [row.cells() for row in rows])


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
