"""The options that are handed on to the experiments."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adtr_jax.errors import InputError
from experiments.identical_mapping import IdenticalMapping

# A job's own, or what would make others of them: with --retrain no job would ever go on.
OWN = (
    *("category", "class", "study", "method", "anomalies", "unified"),
    *("seed", "data", "out", "weights", "hosts", "retrain"),
)
_OF_ONE_LAYER = {field.name for field in dataclasses.fields(IdenticalMapping)}


@dataclass(frozen=True)
class HandedOn:
    """Options of the experiments, which each gets as far as it has them.

    Attributes:
        options: each as the words of the command line.
    """

    options: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def read(cls, words: Sequence[str]) -> "HandedOn":
        """Reads what follows `--`.

        Raises:
            InputError: it is no option, or one that the experiments get from their job.
        """
        options: list[list[str]] = []
        for word in words:
            if word.startswith("--"):
                options.append([word])
            elif options:
                options[-1].append(word)
            else:
                raise InputError(f"{word} follows --, which is for options of the experiments")
        for first, *_ in options:
            if _name(first) in OWN:
                raise InputError(f"--{_name(first)} is chosen for every experiment: leave it out")
        return cls(tuple(map(tuple, options)))

    @property
    def words(self) -> list[str]:
        return [word for option in self.options for word in option]

    def of(self, module: str) -> list[str]:
        """Returns the words for an experiment.

        Section 3.2's has some of the others' options alone, and `--steps`, which they lack. What
        else an experiment lacks, it says itself.
        """
        one_layer = module == "identical_mapping"

        def has(name: str) -> bool:
            return name in _OF_ONE_LAYER if one_layer else name != "steps"

        return [word for option in self.options if has(_name(option[0])) for word in option]

    def check(self, modules: Iterable[str]) -> None:
        """Raises InputError for an option that none of the experiments gets."""
        got = {word for module in modules for word in self.of(module)}
        for first, *_ in self.options:
            if first not in got:
                raise InputError(f"{first}: none of these experiments has this option")


def _name(word: str) -> str:
    """`image_size` of `--image-size=64`."""
    return word.removeprefix("--").partition("=")[0].replace("-", "_")
