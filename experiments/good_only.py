"""A category without anomalous test images: a model with a threshold, and nothing to measure."""

from pathlib import Path
from typing import TYPE_CHECKING

from adtr_jax.errors import InputError
from experiments.options import Options

if TYPE_CHECKING:  # JAX is imported only after the command line is validated
    from adtr_jax.data.samples import Category


def run(category: "Category", options: Options) -> None:
    """Trains, calibrates on held-out training images, and predicts the test images if any.

    Writes a complete model to OUT/CATEGORY/, and predictions to OUT/CATEGORY/predictions/. A
    finished run is not trained again.

    Raises:
        InputError: options that `fit` does not have, or as `fit`.
        Stopped: on Ctrl-C, after saving.
    """
    for flag in ("anomalies", "tsne", "layer_maps", "hosts", "memory", "keep_checkpoints"):
        if getattr(options, flag):
            raise InputError(
                f"{category.name}: {category.unmeasurable}, and --{flag} needs some: leave it out"
            )

    from adtr_jax.api.fit import fit
    from adtr_jax.api.model import load
    from adtr_jax.commands import predict
    from adtr_jax.files import run_folder
    from adtr_jax.html_report import page
    from adtr_jax.run import Task

    directory = options.out / category.name
    task = Task.read(category, options.settings, options.devices)
    claim = task.fingerprint(options.weights)
    run_folder.claim(directory, claim, retrain=options.retrain)
    file = directory / run_folder.MODEL
    if not file.exists():
        fit(
            [sample.image for sample in category.train if isinstance(sample.image, Path)],
            options.settings,
            out=file,
            weights=options.weights,
            devices=options.devices,
            say=print,
        )
    model = load(file)
    assert model.decision is not None
    print(model.decision.describe())
    print(f"{category.name}: {category.unmeasurable}, so there is nothing to measure.")
    if category.test:
        images = tuple(str(sample.image) for sample in category.test)
        out = directory / "predictions"
        predict.run(predict.Predict(model=file, inputs=images, out=out))
        if options.report:
            print(page.write(directory))
    print(f"For other images: adtr-jax predict {directory} NEW_PHOTOS --out=results\n")
