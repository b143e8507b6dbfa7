"""`adtr-jax predict MODEL INPUTS --out=results`."""

import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from adtr_jax.calibration.drift import Drift
from adtr_jax.command_line import parse
from adtr_jax.commands.model_options import ModelOptions
from adtr_jax.data.inputs import Decoded, decoded, expand
from adtr_jax.data.watch import watch
from adtr_jax.errors import InputError
from adtr_jax.evaluation.preview import Preview
from adtr_jax.evaluation.results import PredictionRow, Results
from adtr_jax.files import results_folder
from adtr_jax.interrupt import Deferral

if TYPE_CHECKING:
    from PIL import Image

    from adtr_jax.api.model import Model
    from adtr_jax.api.prediction import Prediction

PROG = "adtr-jax predict"
WINDOW = 400  # the latest images, in which drift is looked for while watching


@dataclass(frozen=True, kw_only=True)
class Predict(ModelOptions):
    """Score images: a row each in predictions.csv, and a picture of what was found."""

    inputs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="INPUT")]
    """Images and folders of images; - reads a list of them from standard input."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results")
    """Gets predictions.csv, predictions.jsonl (with the regions), overlays/ and previews/ (for
    adtr-jax report). The same command goes on where it was stopped."""
    watch: bool = False
    """Score what arrives in the one folder given, until Ctrl-C."""
    overlays: bool = True
    """Write a picture of every image."""
    fail_on: Literal["anomalous"] | None = None
    """For scripts: end with status 1 if there was an anomalous image."""


def main(words: Sequence[str]) -> int:
    """Parses the command line and predicts; returns the exit status."""
    return run(parse(Predict, words, prog=PROG))


def run(options: Predict) -> int:
    """Predicts, and says how many are anomalous.

    Returns:
        0: all images could be read; 1: `--fail_on` has found what it looks for; 3: some images
        could not be read.

    Raises:
        InputError: no images, no model, or results of another one.
    """
    if not options.inputs:
        raise InputError("there is nothing to predict: name images or folders after the model")
    if not options.model.exists():
        raise InputError(f"{options.model} does not exist: make a model with adtr-jax fit")
    if options.watch and not (len(options.inputs) == 1 and Path(options.inputs[0]).is_dir()):
        raise InputError("--watch needs one folder, in which images arrive")
    # Checked before the model is loaded, which takes seconds.
    paths = iter(()) if options.watch else expand(options.inputs, sys.stdin)
    model = _model(options)
    with Results(options.out, _run(model)) as results:
        if not (options.out / results_folder.CARD).exists():  # else the run goes on
            options.card(model).write(options.out)
        tally = Tally(model, endless=options.watch)
        if options.watch:
            print(f"watching {options.inputs[0]}; Ctrl-C ends it", flush=True)
            paths = _until_interrupted(Path(options.inputs[0]), results.done)
        pending = (path for path in paths if str(path) not in results.done)
        kept = len(results.done)
        for found in _bar(_predictions(model, pending, one_by_one=options.watch)):
            pictures = _pictures(found) if options.overlays and found.error is None else ()
            results.add(_row(found), *pictures)
            tally.add(found)
        print(tally.end(options.out, kept))
        some = results.anomalous
    if options.fail_on == "anomalous" and some:
        return 1
    return 3 if tally.errors else 0


class Tally:
    """Counts what is found, and warns, once each, of what makes it doubtful.

    Args:
        model: the model that predicts.
        endless: whether images go on arriving: then drift is looked for all the time.
    """

    def __init__(self, model: "Model", *, endless: bool):
        self.images = self.anomalous = self.errors = 0
        self._model, self._endless, self._odd_size = model, endless, False
        self._drift = {
            name: Drift(each.calibration, window=WINDOW if endless else None)
            for name, each in (model.products or {model.product: model}).items()
            if each.calibration is not None
        }

    def add(self, found: "Prediction") -> None:
        """Counts a prediction."""
        self.images += 1
        if found.error is not None or found.raw_score is None:
            self.errors += 1
            _warn(found.error or "")
            return
        self.anomalous += bool(found.anomalous)
        model = self._model.products.get(found.product, self._model)
        if found.image is not None and not self._odd_size and model.sizes:
            self._odd_size = _is_odd(found, model.sizes)
        if found.product in self._drift:
            self._drift[found.product].add(found.raw_score)
            if self._endless:
                self._say_drift()

    def end(self, out: Path, kept: int) -> str:
        """Returns what has been found, and where it is."""
        self._say_drift()
        words = [f"{self.images} image" + "s" * (self.images != 1)]
        if self._drift:
            normal = self.images - self.errors - self.anomalous
            words.append(f"{self.anomalous} anomalous, {normal} normal")
        if self.errors:
            words.append(f"{self.errors} could not be read")
        if kept:
            words.append(f"{kept} were scored before")
        return f"{'; '.join(words)}\n{out / 'predictions.csv'}"

    def _say_drift(self) -> None:
        for name, drift in self._drift.items():
            message = drift.message()
            if message is not None:
                _warn(f"{name}: " * bool(self._model.products) + message)


def _is_odd(found: "Prediction", sizes: list[tuple[int, int]]) -> bool:
    """Whether the image has none of the good images' sizes, which is said."""
    assert found.image is not None
    if found.image.size in sizes:
        return False
    (wide, high), (width, height) = found.image.size, sizes[0]
    _warn(
        f"{found.path} is {wide} x {high} pixels, and the good images were {width} x {height}: "
        "it is scored, but images of another size or shape may score higher"
    )
    return True


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _model(options: Predict) -> "Model":
    model = options.load()
    if model.decision is None and not model.products:
        print(
            "the model is not calibrated: there are raw scores and no verdicts; adtr-jax fit makes "
            "a model with a threshold",
            file=sys.stderr,
        )
    return model


def _run(model: "Model") -> dict[str, Any]:
    """What the rows depend on."""
    run = {"model": model.digest, "false_alarms": model.false_alarms, "threshold": model.kind}
    if model.products or model.product:
        run["product"] = model.product or "recognised"
    return run


def _predictions(
    model: "Model", paths: Iterable[Path], *, one_by_one: bool
) -> "Iterator[Prediction]":
    settings = model.settings
    groups: Iterable[Iterable[Path]] = ([path] for path in paths) if one_by_one else [paths]
    for group in groups:
        images: Iterator[Decoded] = decoded(
            group, settings.image_size, settings.crop, bits=settings.bits
        )
        yield from model.predict_decoded(images)


def _pictures(found: "Prediction") -> "tuple[Image.Image, Preview]":
    assert found.image is not None and found.score_map is not None
    preview = Preview.of(found.image, found.score_map, found.scale, found.crop)
    return found.overlay(), preview


def _until_interrupted(folder: Path, done: Container[str]) -> Iterator[Path]:
    """What arrives, until Ctrl-C, after which the image in hand is finished; a second ends it."""
    with Deferral("") as interrupt:
        yield from watch(folder, done, stopped=lambda: interrupt.asked)


def _bar(found: "Iterator[Prediction]") -> "Iterator[Prediction]":
    from tqdm.auto import tqdm

    return iter(tqdm(found, desc="predict", unit="image", leave=False, disable=None))


def _row(found: "Prediction") -> PredictionRow:
    return PredictionRow(
        found.path,
        found.anomalous,
        found.score,
        found.p_value,
        found.raw_score,
        found.threshold,
        found.regions,
        found.error,
        None if found.image is None else found.image.size,
        found.product,
    )
