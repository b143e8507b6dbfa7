"""The papers' ablation studies, each on one category or on all; UniAD's with one model for all.

python -m experiments.ablation --study=attention --category=grid
python -m experiments.ablation --study=scales --category=all --data=DIR
python -m experiments.ablation --study=fusion --category=grid
python -m experiments.ablation --study=unified --category=all
"""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from adtr_jax.command_line import peek
from adtr_jax.config import (
    OF_THE_EVALUATION,
    AdtrSettings,
    Coefficient,
    Fusion,
    Settings,
)
from adtr_jax.errors import InputError
from experiments.categories import Results, failure, measure
from experiments.mvtec import Mvtec, source
from experiments.options import main

AdtrStudy = Literal["attention", "target", "backbone", "scales", "unified"]
GtransStudy = Literal["layers", "tfm", "coefficient", "fusion"]
Study = Literal[AdtrStudy, GtransStudy]
Variants = dict[str, dict[str, Any]]
_UNIAD: Variants = {
    "neighbour mask": {"neighbours": 7},
    "layer-wise query": {"model": "layerwise_query"},
    "jitter": {"jitter": 20.0},
    "clipping": {"clip": 0.1},
}


@dataclass(frozen=True, kw_only=True)
class Ablation(Mvtec):
    """Train a method and what is left of it without one of its parts, with the same settings."""

    study: Study
    """Of ADTR (Table 4): attention: the attention layers and the query. target: pixels or features.
    backbone: four networks. scales: the last layer or several. unified: what UniAD adds, one model
    for all categories. Of GTrans (Tables 3 to 7): layers: which are critical. tfm: its structure
    and depth. coefficient: what weighs the layers' maps. fusion: how they become one."""


def method_of(study: str) -> str:
    return "gtrans" if study in get_args(GtransStudy) else "adtr"


def variants(study: Study, settings: Settings) -> Variants:
    """Returns the settings that each row of a study changes, by its name in the paper's table."""
    if isinstance(settings, AdtrSettings):
        return _adtr_variants(settings)[study]
    return _gtrans_variants()[study]


def _adtr_variants(settings: AdtrSettings) -> dict[str, Variants]:
    patches = round(math.log2(settings.token_stride))  # the layer whose patches are the tokens
    uniad = dict(change for part in _UNIAD.values() for change in part.items())
    return {
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
        "unified": {"ADTR": {}}
        | _UNIAD
        | {"all": uniad, "all of layers 1-4": uniad | {"layers": (1, 2, 3, 4)}},
    }


def _gtrans_variants() -> dict[str, Variants]:
    # As Table 3 has them; the text has 3+4 for its last row. How they are added: `gtrans_map.fuse`.
    layers = {"1+2+3+4": (2, 3, 4, 5), "1+2+3": (2, 3, 4), "2+3+4": (3, 4, 5), "2+3": (3, 4)}
    return {
        "layers": {name: {"layers": taps, "fusion": "P4"} for name, taps in layers.items()},
        "tfm": {"no TFM": {"structure": "none"}}
        | {
            f"{structure} S={blocks}": {"structure": structure, "blocks": blocks}
            for structure in ("encoder", "decoder")
            for blocks in (1, 2, 3)
        },
        "coefficient": {name: {"coefficient": name} for name in get_args(Coefficient)},
        "fusion": {name: {"fusion": name} for name in get_args(Fusion)},
    }


def run(options: Ablation) -> bool:
    """Runs a study; a row that fails does not stop the others."""
    from adtr_jax.devices import hosts
    from adtr_jax.evaluation import plots, report
    from adtr_jax.files.atomic import write_atomically
    from experiments.papers import adtr as adtr_paper
    from experiments.papers import gtrans as gtrans_paper

    study = options.study
    if options.method != method_of(study):
        raise InputError(f"--study={study} is of {method_of(study)}: leave --method out")
    with hosts.together():
        names, read = source(options)
    results: Results = {}
    by_category: dict[str, Results] = {}
    folder, used = options.out / study, set[Path]()
    changes = variants(study, options.settings)
    settings = {  # all of them are checked before anything is trained
        row: dataclasses.replace(options.settings, **changed) for row, changed in changes.items()
    }
    for row, changed in changes.items():
        out = folder / row.replace("/", "").replace(" ", "_")
        # Variants that differ in the evaluation alone share one training.
        shared = changed and changed.keys() <= OF_THE_EVALUATION
        trained = folder / "trained" if shared else out
        retrain = options.retrain and trained not in used
        used.add(trained)
        this = dataclasses.replace(
            options,
            settings=settings[row],
            out=out,
            retrain=retrain,
            unified=options.unified or study == "unified",
        )
        try:
            _, measured, reports = measure(names, read, this, trained=trained)
        except Exception as error:  # of any type: the other variants still run
            if hosts.lost(error):
                raise
            results[row] = failure(error)
            print(f"{row}: {results[row]}", file=sys.stderr)
            continue
        for path in reports:
            print(path)
        by_category[row] = measured
        results[row] = _mean(measured)
    printed = (gtrans_paper if options.method == "gtrans" else adtr_paper).ABLATIONS.get(study, ())
    print(report.table(results, *printed, what=study))
    for group, rows in by_group(by_category).items():
        print(f"\nthe {group} alone")
        theirs_of_group = gtrans_paper.GROUP_ABLATIONS[group].get(study, ())
        print(report.table(rows, *theirs_of_group, what=study))
    done = {name: result for name, result in results.items() if not isinstance(result, str)}
    if not hosts.first():
        return len(done) == len(results)
    write_atomically(folder / "results.json", json.dumps(by_category, indent=2) + "\n")
    common = report.mean(results)  # the metrics that all variants have
    beside = {row.metric: row.values for row in printed if row.metric in common}
    for metric in beside or ({"image_auroc"} & common.keys()):
        values = [result[metric] for result in done.values()]
        theirs = [beside[metric][name] for name in done] if beside else None
        picture = folder / f"{metric}.png"
        plots.save_bars(picture, list(done), values, theirs, " ".join(report.HEADINGS[metric]))
        print(picture)
    return len(done) == len(results)


def by_group(by_category: Mapping[str, Results]) -> dict[str, Results]:
    """Returns the means of the rows' textures, and of their objects, if they have both."""
    from adtr_jax.data.mvtec_ad_archive import GROUPS
    from adtr_jax.evaluation import report

    means: dict[str, Results] = {}
    for row, results in by_category.items():
        for group, part in report.by_group(results, GROUPS).items():
            means.setdefault(group, {})[row] = _mean(part)
    return means


def _mean(results: Mapping[str, Mapping[str, float] | str]) -> Mapping[str, float] | str:
    """Returns the mean of all, or which failed."""
    from adtr_jax.evaluation import report

    failed = [name for name, result in results.items() if isinstance(result, str)]
    return f"{', '.join(failed)} failed" if failed else report.mean(results)


def defaults(settings: Settings) -> Ablation:
    return Ablation(
        study=tyro.MISSING,
        category=tyro.MISSING,
        settings=settings,
        out=Path("runs/ablation"),
    )


if __name__ == "__main__":
    prog = "python -m experiments.ablation"
    method = method_of(peek(sys.argv[1:], "study", get_args(Study)) or "")
    sys.exit(main(run, defaults, method=method, preset="paper", prog=prog))
