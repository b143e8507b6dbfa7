"""What a reader is: sound inputs, how they are damaged, and what is made of them."""

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.fuzz.mutations import Mutation, generic

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """One of the project's readers.

    Attributes:
        sound: Makes the sound inputs: by name, the files of one. Those whose names are alike up to
            a colon may stand in for each other.
        read: Reads the files in a folder; returns a digest of the result.
        files: Which of the files are damaged, as patterns.
        mutations: By file name's ending, what its format can suffer; each is taken as often as
            all generic damage together.
        checked: Whether the format has a digest of all that the result depends on, so that any
            other result than the sound one is wrong, and one that stands in for it has to be told.
    """

    sound: Callable[[], Mapping[str, Files]]
    read: Callable[[Path], str]
    files: tuple[str, ...] = ("*",)
    mutations: Mapping[str, tuple[Mutation, ...]] = field(default_factory=dict)
    checked: bool = False

    def damaged(self, inputs: Mapping[str, Files], rng: random.Random) -> tuple[str, Files, str]:
        """Returns the name of a sound input, its files with one damaged, and that one's name."""
        name = rng.choice(sorted(name for name, files in inputs.items() if files))
        files = dict(inputs[name])
        victims = [
            file
            for file, content in sorted(files.items())
            if content and any(Path(file).match(pattern) for pattern in self.files)
        ]
        victim = rng.choice(victims)
        ways: list[Mutation] = [generic]
        for ending, more in self.mutations.items():
            ways.extend(more if victim.endswith(ending) else ())
        files[victim] = rng.choice(ways)(files[victim], rng)
        return name, files, victim


def digest(*parts: object) -> str:
    """A digest of arrays and of anything that is told by its `repr`."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(repr((part.dtype, part.shape)).encode())
            found.update(np.ascontiguousarray(part).tobytes())
        else:
            found.update(repr(part).encode())
    return found.hexdigest()[:16]
