"""`adtr-jax fit | predict | evaluate | report | export`: from good images to decisions."""

import sys
from collections.abc import Callable, Sequence

from adtr_jax import interrupt

USAGE = """usage: adtr-jax COMMAND ... (adtr-jax COMMAND --help lists its options)

  fit PHOTOS --out=MODEL        train on a folder of good images, and find the threshold
  predict MODEL NEW_PHOTOS      score new images: results/predictions.csv and a picture of each
  evaluate MODEL --good=DIR --defects=DIR     measure false alarms and misses
  report RESULTS                write what predict, evaluate or an experiment found as an HTML page
  export MODEL --format=onnx    write it as a file that runs without JAX, and prove that it is equal

The papers' experiments: python -m experiments.mvtec --help
"""


def _fit(words: Sequence[str]) -> int:
    from adtr_jax.commands import fit

    return fit.main(words)


def _predict(words: Sequence[str]) -> int:
    from adtr_jax.commands import predict

    return predict.main(words)


def _evaluate(words: Sequence[str]) -> int:
    from adtr_jax.commands import evaluate

    return evaluate.main(words)


def _report(words: Sequence[str]) -> int:
    from adtr_jax.commands import report

    return report.main(words)


def _export(words: Sequence[str]) -> int:
    from adtr_jax.commands import export

    return export.main(words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "fit": _fit,
    "predict": _predict,
    "evaluate": _evaluate,
    "report": _report,
    "export": _export,
}


def main() -> int:
    """Runs the command that the first word names; returns the exit status."""
    interrupted = "interrupted; the same command goes on"
    interrupt.take_over(interrupted)
    from adtr_jax.command_line import guarded
    from adtr_jax.errors import unknown

    words = sys.argv[1:]

    def action() -> int:
        if not words or words[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0 if words else 2
        if words[0] == "--version":
            from adtr_jax.version import __version__

            print(__version__)
            return 0
        if words[0] not in COMMANDS:
            raise unknown("no command of adtr-jax", words[0], COMMANDS)
        return COMMANDS[words[0]](words[1:])

    return guarded(action, interrupted)


if __name__ == "__main__":
    sys.exit(main())
