"""What a paper's tables and figures are made of: parts, and the jobs of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adtr_jax.data import cifar
from adtr_jax.errors import InputError, unknown
from experiments.reproduction.handed_on import HandedOn

Paper = Literal["adtr", "gtrans"]
ANOMALIES = "confetti"  # ADTR+'s on MVTec-AD
CIFAR100 = "cifar100"


@dataclass(frozen=True)
class Part:
    """A table or a figure of a paper, or several that the same experiments make.

    Attributes:
        name: chooses it, and is its folder in OUT.
        shows: the tables and figures.
        module: the experiment, a module of `experiments`.
        runs: the options of every command line of a job, which are run one after the other.
        names: the categories or classes, of a job each.
        together: another job draws a figure of all categories, by the first command line.
        once: the first seed is enough, for it is a figure.
    """

    name: str
    shows: str
    module: str
    runs: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    together: bool = False
    once: bool = False

    def folder(self, out: Path, seed: int) -> Path:
        """Returns where the jobs of a seed have their results."""
        return out / self.name / f"seed-{seed}"

    def seeds(self, count: int) -> range:
        """Returns the seeds of which it has jobs, where `count` are asked for."""
        return range(1 if self.once else count)

    def jobs(self, count: int) -> "list[Job]":
        """Returns the jobs of `count` seeds."""
        jobs: list[Job] = []
        for seed in self.seeds(count):
            each = [Job(self, seed, (name,)) for name in self.names]
            jobs += each
            if self.together and seed == 0 and len(each) > 1:
                jobs.append(Job(self, seed, self.names, needs=tuple(job.key for job in each)))
        return jobs


@dataclass(frozen=True)
class Places:
    """Where images, weights and results are; None: what an experiment's own default is."""

    out: Path
    weights: Path
    data: Path | None = None
    cifar10: Path | None = None


@dataclass(frozen=True)
class Job:
    """One category or class of a part, with one seed; or all, of a figure that shows them all.

    Attributes:
        categories: one, or all.
        needs: keys of the jobs that must have been done.
    """

    part: Part
    seed: int
    categories: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.categories[0] if len(self.categories) == 1 else "all"

    @property
    def key(self) -> str:
        """Names the job, and the files in OUT that it notes its end and its output in."""
        return f"{self.part.name}/seed-{self.seed}/{self.name}"

    def commands(self, places: Places, handed_on: HandedOn) -> list[list[str]]:
        """Returns the command lines, as `python -m` takes them."""
        part = self.part
        out = part.folder(places.out, self.seed)
        if part.module == "ablation":  # writes a table of its categories into OUT/STUDY
            out /= self.name
        classes = part.module == "cifar10"
        data = places.cifar10 if classes else places.data
        common = [f"--seed={self.seed}", f"--out={out}", f"--weights={places.weights}"]
        common += [] if data is None else [f"--data={data}"]
        what = f"--{'class' if classes else 'category'}={','.join(self.categories)}"
        words = handed_on.of(part.module)
        runs = part.runs if len(self.categories) == 1 else part.runs[:1]
        return [[f"experiments.{part.module}", what, *run, *common, *words] for run in runs]


def parts_of(
    paper: Paper, categories: Sequence[str], cifar100: Path | None = None
) -> dict[str, Part]:
    """Returns the parts of a paper by name.

    Args:
        categories: of MVTec-AD, or of another data set in its layout.
        cifar100: the images that ADTR+ learns from on CIFAR-10; None: CIFAR-100 by TFDS.
    """
    names = tuple(categories)
    parts = _adtr(names, cifar100) if paper == "adtr" else _gtrans(names)
    return {part.name: part for part in parts}


def _adtr(names: tuple[str, ...], cifar100: Path | None) -> list[Part]:
    network = "--backbone=efficientnet-b4"
    irrelevant = f"--anomalies={CIFAR100 if cifar100 is None else cifar100}"
    one = "grid" if "grid" in names else names[0]
    studies = {"attention": "4a", "target": "4b", "backbone": "4c", "scales": "4d"}
    return [
        Part(
            "mvtec",
            "Tables 1 and 2, Figs. 5 and A1 to A15",
            "mvtec",
            ((network, "--tsne"), (network, f"--anomalies={ANOMALIES}")),
            names,
            together=True,
        ),
        Part(
            "cifar10",
            "Table 3, Figs. A16 to A25",
            "cifar10",
            ((network,), (network, irrelevant)),
            cifar.CLASSES,
        ),
        *(_study(study, f"Table {table}", names, network) for study, table in studies.items()),
        Part(
            "identical_mapping",
            "Section 3.2, why attention with a query",
            "identical_mapping",
            ((network,),),
            (one,),
            once=True,
        ),
    ]


def _gtrans(names: tuple[str, ...]) -> list[Part]:
    method = "--method=gtrans"
    studies = {
        "layers": "Table 3",
        "tfm": "Tables 4 and 5",
        "coefficient": "Table 6",
        "fusion": "Table 7",
    }
    return [
        *(
            Part(
                network,
                "Tables 1 and 2, Fig. 4",
                "mvtec",
                ((method, f"--backbone={network}", "--layer_maps"),),
                names,
            )
            for network in ("resnet-34", "wide-resnet-50-2")
        ),
        *(
            _study(study, table, names, method, "--backbone=resnet-34")
            for study, table in studies.items()
        ),
    ]


def _study(name: str, shows: str, names: tuple[str, ...], *options: str) -> Part:
    # Of each row of a study the numbers are wanted; pictures of all would take gigabytes.
    run = (f"--study={name}", *options, "--pictures=0", "--no_report")
    return Part(name, shows, "ablation", (run,), names)


def chosen(parts: dict[str, Part], words: str | None) -> list[Part]:
    """Returns the parts that a word names, several with commas between; None: all of them.

    Raises:
        InputError: there is no such part.
    """
    if words is None:
        return list(parts.values())
    names = words.split(",")
    for name in names:
        if name not in parts:
            raise unknown("no part of the paper", name, parts)
    return [part for name, part in parts.items() if name in names]


def jobs_of(parts: Sequence[Part], seeds: int) -> list[Job]:
    """Returns the jobs of all parts, in their order.

    Raises:
        InputError: no seed is asked for.
    """
    if seeds < 1:
        raise InputError(f"--seeds={seeds} must be at least 1")
    return [job for part in parts for job in part.jobs(seeds)]
