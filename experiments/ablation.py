"""The ablation studies of the ADTR paper (Table 4), each on one category or on all.

python -m experiments.ablation --study=attention --category=grid
python -m experiments.ablation --study=scales --category=all --data=DIR
"""

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from adtr_jax.config import PRESETS, Settings
from experiments.command import Results, failure, main, measure
from experiments.mvtec import Mvtec, source

Study = Literal["attention", "target", "backbone", "scales"]


@dataclass(frozen=True, kw_only=True)
class Ablation(Mvtec):
    """Train ADTR and what is left of it without one of its parts, all with the same settings."""

    study: Study
    """attention: the attention layers and the query. target: pixels or features. backbone: four
    networks. scales: the last layer or several."""


def rows(study: Study, settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings that each row of a study changes, by the row's name in `paper.ABLATIONS`."""
    patches = round(math.log2(settings.token_stride))  # the layer whose patches are the tokens
    studies: dict[Study, dict[str, dict[str, Any]]] = {
        "attention": {
            "CNN": {"model": "cnn"},
            "w/o Attn": {"model": "no_attention"},
            "w/o Query": {"model": "no_query"},
            "full": {},
        },
        "target": {"pixels": {"backbone": "pixels", "layers": (patches,)}, "features": {}},
        "backbone": {
            name: {"backbone": name}
            for name in ("resnet-18", "resnet-34", "efficientnet-b0", "efficientnet-b4")
        },
        "scales": {"last layer": {"layers": settings.layers[-1:]}, "multi-scale": {}},
    }
    return studies[study]


def run(command: Ablation) -> bool:
    """Runs a study; a row that fails does not keep the others from running."""
    from adtr_jax import paper, plots, report

    names, read = source(command)
    results: Results = {}
    folder = command.out / command.study
    for row, changed in rows(command.study, command.settings).items():
        settings = dataclasses.replace(command.settings, **changed)
        out = folder / row.replace("/", "").replace(" ", "_")
        try:
            _, measured = measure(
                names, read, dataclasses.replace(command, settings=settings, out=out)
            )
        except Exception as error:  # whatever it is, the other rows are not to blame
            results[row] = failure(error)
            print(f"{row}: {results[row]}", file=sys.stderr)
        else:
            results[row] = report.mean(measured)
    printed = paper.ABLATIONS[command.study]
    print(report.table(results, printed, what=command.study))
    done = {name: result for name, result in results.items() if not isinstance(result, str)}
    metric = printed.metric if all(printed.metric in r for r in done.values()) else "image_auroc"
    if done:
        values = [result[metric] for result in done.values()]
        beside = [printed.values[name] for name in done] if metric == printed.metric else None
        label = " ".join(report.HEADINGS[metric])
        plots.save_bars(folder / "bars.png", list(done), values, beside, label)
        print(folder / "bars.png")
    return len(done) == len(results)


def defaults(settings: Settings) -> Ablation:
    """The command's defaults."""
    return Ablation(
        study=tyro.MISSING,
        category=tyro.MISSING,
        settings=settings,
        preset="paper",
        out=Path("runs/ablation"),
    )


if __name__ == "__main__":
    prog = "python -m experiments.ablation"
    sys.exit(main(run, defaults, PRESETS, preset="paper", prog=prog))
