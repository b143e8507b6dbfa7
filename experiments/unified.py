"""One model of several categories: trained on the normal images of all, evaluated on each."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adtr_jax.config import at_most
from experiments.options import Options

if TYPE_CHECKING:  # JAX is imported only after the command line is validated
    from adtr_jax.data.samples import Category
    from adtr_jax.run import Result, Task, Trained

NAME = "unified"  # of the model's folder in OUT; each category's results are in a folder in it


class Unified(NamedTuple):
    """The model, and by category the test images."""

    model: "Trained"
    tasks: "Mapping[str, Task]"

    def evaluate(self, name: str, options: Options) -> "tuple[Task, Result, Path]":
        """Returns a category's test images, its results, and the folder that they are in."""
        from adtr_jax import run

        task, directory = self.tasks[name], options.out / NAME / name
        pictures = at_most(options.pictures)
        result = run.evaluate(
            self.model, task, directory, retrain=options.retrain, pictures=pictures
        )
        return task, result, directory


@contextmanager
def trained(
    names: Sequence[str],
    read: "Callable[[str], Category]",
    options: Options,
    out: Path | None,
) -> Iterator[Unified]:
    """Trains the model, goes on with it, or reads it; its folder is locked until the end.

    Args:
        out: where the model's folder is; None: with the results.

    Raises:
        InputError: any category has a bad image or nothing to measure; or as `run.train`.
    """
    from adtr_jax import run
    from adtr_jax.data import bit_depth
    from adtr_jax.data.samples import united
    from adtr_jax.devices import hosts
    from adtr_jax.files import run_folder
    from adtr_jax.files.lock import locked

    directory = (out or options.out) / NAME
    with ExitStack() as stack:
        with hosts.together():
            categories = [read(name).measurable() for name in names]
            if hosts.first():
                stack.enter_context(locked(directory))
        whole = united(NAME, categories)
        files = [s.name for s in whole.train + sum((c.test for c in categories), ())]
        hosts.agree("their images' names", files)
        task = run.Task.read(whole, options.settings, options.devices)
        tasks = dict[str, run.Task]()
        for category in categories:
            tested = dataclasses.replace(category, train=())
            tasks[category.name] = run.Task.read(tested, task.settings, options.devices)
            if options.tsne:
                _ = tasks[category.name].required_masks
        print(f"{NAME}: {len(task.images)} normal images of {len(names)} categories")
        if task.settings.bits is not None:
            print(f"{NAME}: {bit_depth.describe(task.settings.bits)}")
        model = run.train(
            task,
            options.weights,
            directory,
            retrain=options.retrain,
            memory_limit=options.memory_limit,
            keep_checkpoints=options.keep_checkpoints,
        )
        if model.timings:  # it was not trained before
            print(f"{NAME}: {run_folder.timings_line(model.timings)}; model in {directory}\n")
        yield Unified(model, tasks)
