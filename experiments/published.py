"""What the experiments on published data sets share: a description of one, and the command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adtr_jax.config import Settings
from adtr_jax.errors import InputError
from experiments.categories import chosen, run_categories
from experiments.options import Options, main

if TYPE_CHECKING:
    from adtr_jax.data.archive import Archive
    from adtr_jax.data.published import Names
    from adtr_jax.data.samples import Category


@dataclass(frozen=True)
class DataSet:
    """A data set as its authors publish it.

    Attributes:
        title: its name.
        homepage: where it is to be had by hand.
        categories: the names of its folders, one a model.
        names: where a category's images and masks lie, in the terms of MVTec-AD's layout: which
            folder stands for which, or a function for what folders do not say.
        archive: what is downloaded where no folder is given; None: no address is known to last.
    """

    title: str
    homepage: str
    categories: Sequence[str]
    names: "Mapping[str, str] | Names"
    archive: "Archive | None" = None

    def reader(self, data: Path | None) -> "Callable[[str], Category]":
        """Returns the reader of its categories in the folder that its archive unpacks to."""
        from adtr_jax.data import archive, published

        if data is None and self.archive is not None:
            data = archive.unpacked(self.archive, self.title, self.homepage)
        if data is None:
            raise InputError(
                f"--data is missing: unpack {self.title}, which is to be had from {self.homepage}, "
                "and give the folder"
            )
        root = published.root(data, self.categories, self.title, self.homepage)
        return lambda name: published.read_category(root, name, self.title, self.names)


@dataclass(frozen=True, kw_only=True)
class Published(Options):
    """Train on a category's normal images and find the defects in its test images."""

    category: str
    """A category's name, several with commas between, or `all`."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder that the data set's archive unpacks to. Default: the archive is downloaded once,
    checked, and unpacked in the user's cache folder."""


def command(data_set: DataSet, module: str) -> int:
    """Parses the command line and runs the experiment; returns the exit status.

    Args:
        data_set: what to train and evaluate on.
        module: the experiment's name: "visa".
    """

    def run(options: Published) -> bool:
        from adtr_jax.devices import hosts

        with hosts.together():
            names = chosen(options.category, data_set.categories)
            read = data_set.reader(options.data)
        return run_categories(names, read, options)

    def defaults(settings: Settings) -> Published:
        return Published(category=tyro.MISSING, settings=settings, out=Path(f"runs/{module}"))

    return main(run, defaults, preset="paper", prog=f"python -m experiments.{module}")
