"""All tables and figures of a paper, one after the other, and a page that shows them.

python -m experiments.reproduce --paper=adtr --dry_run
python -m experiments.reproduce --paper=adtr --data=DIR --seeds=3
python -m experiments.reproduce --paper=gtrans --parts=resnet-34,fusion
python -m experiments.reproduce --paper=adtr --data=DIR -- --preset=fast
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.command_line import guarded, parse
from adtr_jax.errors import InputError
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.bucket import address_of
from adtr_jax.files.lock import locked
from conversion import weights_folder
from experiments.addresses import local
from experiments.reproduction import estimate, page, work
from experiments.reproduction.devices import Devices, find
from experiments.reproduction.downloads import CifarName, Needed
from experiments.reproduction.handed_on import HandedOn
from experiments.reproduction.plan import Job, Paper, Part, Places, chosen, jobs_of, parts_of
from experiments.reproduction.runner import Runner, seconds_of
from experiments.reproduction.work import Training

PROG = "python -m experiments.reproduce"
CLAIM = "reproduction.json"


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run all experiments of a paper, and show its tables and figures beside ours.

    One category a device at a time. The same command goes on where it was stopped, and does not
    run again what is done. What follows `--` is handed on to every experiment.
    """

    paper: Paper
    """adtr: You et al., with EfficientNet-B4. gtrans: Yan et al., with ResNet-34 and
    Wide-ResNet-50-2."""
    parts: Annotated[str | None, tyro.conf.arg(metavar="NAME,NAME")] = None
    """Some of the tables and figures; --dry_run lists them. Default: all."""
    seeds: int = 1
    """How many times everything is trained, with the seeds 0, 1, ...: the page has the means and
    the standard deviations."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A folder in MVTec-AD's layout. Default: MVTec-AD, downloaded and prepared by TFDS."""
    cifar10: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """CIFAR-10, as for `experiments.cifar10 --data`. Default: prepared by TFDS."""
    cifar100: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """CIFAR-100, which ADTR+ learns from on CIFAR-10. Default: prepared by TFDS."""
    out: Path | None = None
    """Results go to OUT, the page is OUT/README.md. Default: runs/reproduce_PAPER."""
    weights: Path = field(default_factory=weights_folder)
    """The folder of converted backbone weights; missing ones are converted into it."""
    dry_run: bool = False
    """Only say what would be run and downloaded, and how long it would take: times a few steps."""


@dataclass(frozen=True)
class _Plan:
    """What is to be run: command lines and trainings of every job, checked."""

    options: Reproduce
    handed_on: HandedOn
    parts: Sequence[Part]
    places: Places
    commands: Mapping[Job, Sequence[Sequence[str]]]
    trainings: Mapping[Job, Sequence[Training]]

    @classmethod
    def of(cls, options: Reproduce, words: Sequence[str]) -> "_Plan":
        """Raises InputError for anything that an experiment would refuse before it trains."""
        from adtr_jax.data import folders, mvtec_ad_archive

        data = options.data
        known = mvtec_ad_archive.CATEGORIES if data is None else folders.categories(data)
        parts = chosen(parts_of(options.paper, known, options.cifar100), options.parts)
        handed_on = HandedOn.read(words)
        handed_on.check(part.module for part in parts)
        out = options.out or Path(f"runs/reproduce_{options.paper}")
        places = Places(out, options.weights, data, options.cifar10)
        jobs = jobs_of(parts, options.seeds)
        commands = {job: job.commands(places, handed_on) for job in jobs}
        # The jobs of a part differ in the category and the seed alone.
        of_part = {
            part: [each for words in commands[part.jobs(1)[0]] for each in _trainings(words)]
            for part in parts
        }
        trainings = {job: [] if job.needs else of_part[job.part] for job in jobs}
        return cls(options, handed_on, parts, places, commands, trainings)

    def needed(self, jobs: Sequence[Job]) -> Needed:
        """Returns what some of the jobs may have to download."""
        options = self.options
        firsts = {job.part: self.commands[job] for job in jobs}
        networks = [
            name for lines in firsts.values() for words in lines for name in _networks(words)
        ]
        cifar: list[CifarName] = []
        if any(_is_cifar(job) for job in jobs):
            cifar += ["cifar10"] if options.cifar10 is None else []
            cifar += ["cifar100"] if options.cifar100 is None else []
        names = [name for job in jobs if not _is_cifar(job) for name in job.categories]
        return Needed(
            tuple(dict.fromkeys(networks)),
            options.weights,
            tuple(dict.fromkeys(names)) if options.data is None else (),
            cifar,
        )

    def images(self, job: Job) -> int:
        return work.images_of(job, self.places)

    def work(self, job: Job) -> int:
        """Returns the steps of a job; a figure of what others have trained takes next to none."""
        if not self.trainings[job]:
            return 1
        return sum(training.steps(self.images(job)) for training in self.trainings[job])


def _is_cifar(job: Job) -> bool:
    return job.part.module == "cifar10"


def _trainings(words: Sequence[str]) -> list[Training]:
    return work.trainings(work.read(words))


def _networks(words: Sequence[str]) -> list[str]:
    return work.networks(work.read(words))


def dry_run(plan: _Plan) -> int:
    """Prints what would be run and downloaded, and how long it would take."""
    devices, out = find(), plan.places.out
    done = {job: seconds_of(job, out) is not None for job in plan.commands}
    left = [job for job in plan.commands if not done[job]]
    print(f"{len(plan.commands)} jobs, {sum(done.values())} of them done, on {devices}\n")
    for part in plan.parts:
        own = [job for job in plan.commands if job.part == part]
        print(f"{part.name}: {part.shows}; {len(own)} jobs, such as")
        for words in plan.commands[own[0]]:
            print(f"  python -m {' '.join(words)}")
    print("\ndownloads that are missing")
    for what, size in list(plan.needed(left).missing()) or [("none", "")]:
        print(f"  {what}  {size}".rstrip())
    print("\ntime")
    total = estimate.steps_of((plan.trainings[j], plan.images(j)) for j in left if not j.needs)
    for line in estimate.lines(total, devices.count):
        print(line)
    return 0


def run(plan: _Plan) -> int:
    """Runs what is not done, and writes the page; returns the exit status."""
    out = plan.places.out
    with locked(out):
        _claim(plan)
        devices = find()
        left = [job for job in plan.commands if seconds_of(job, out) is None]
        plan.needed(left).fetch()

        def write() -> None:
            page.write(_shown(plan, devices), plan.parts)

        work_of = {job: plan.work(job) for job in plan.commands}
        runner = Runner(plan.commands, work_of, out, devices, write)
        write()
        done = len(plan.commands) - len(left)
        print(f"{done} of {len(plan.commands)} jobs are done; the others run on {devices}")
        runner.run()
        print(out / page.NAME)
        return 1 if runner.failed else 0


def _shown(plan: _Plan, devices: Devices) -> page.Shown:
    options = plan.options
    return page.Shown(
        options.paper, options.seeds, plan.handed_on.words, str(devices), plan.places.out
    )


def _claim(plan: _Plan) -> None:
    """Makes OUT this reproduction's own; of more parts or seeds it may be later."""
    file = plan.places.out / CLAIM
    options = plan.options
    sources = {name: getattr(options, name) for name in ("data", "cifar10", "cifar100")}
    claim = {"paper": options.paper, "handed on": plan.handed_on.words} | {
        name: None if path is None else str(path.resolve()) for name, path in sources.items()
    }
    if file.exists():
        try:
            held = json.loads(file.read_bytes())
        except ValueError:
            held = None
        if held != claim:
            raise InputError(
                f"{plan.places.out} holds another paper's results, or of other images or options "
                "after --: choose another folder with --out=DIR"
            )
    write_atomically(file, json.dumps(claim, indent=2) + "\n")


def main() -> int:
    """Parses the command line and runs the experiments; returns the exit status.

    That is 0; 1 if a job failed; 2 for bad input, with one line on stderr; 130 after Ctrl-C.
    """
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)

    def action() -> int:
        options = parse(Reproduce, words[:end], prog=PROG)
        address = options.out and address_of(options.out)
        if address:
            raise InputError(f"--out={address} is in a bucket: give a folder of this machine")
        with local(options) as here:  # once, and not in every job
            plan = _Plan.of(here, words[end + 1 :])
            return dry_run(plan) if here.dry_run else run(plan)

    return guarded(action, "interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
