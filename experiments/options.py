"""The options that the experiments share, and how their command lines are read."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from adtr_jax.command_line import guarded, parse, peek, value_of
from adtr_jax.config import (
    PICTURES,
    PLUS_PRESETS,
    Pictures,
    Plus,
    Preset,
    Settings,
)
from adtr_jax.detectors.methods import METHODS, PRESETS, Presets
from conversion import weights_folder
from experiments import INTERRUPTED
from experiments.addresses import local


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that every experiment has."""

    settings: tyro.conf.OmitArgPrefixes[Settings]
    method: str = "adtr"
    """adtr: the features are reconstructed (You et al.). gtrans: a second network imitates the
    frozen one (Yan et al.). Installed packages may add others. Each has settings of its own."""
    preset: Preset = "paper"
    """Where the settings below start from: `paper`; `fast`, the best found for minutes on a CPU; or
    `best`, four times as long. Single settings override it."""
    out: Path
    """Results go to OUT/CATEGORY/. A method that is not the default has an OUT of its own. As may
    all folders that are read, it may be in a bucket: gs://NAME/FOLDER, s3://NAME/FOLDER."""
    weights: Path = field(default_factory=weights_folder)
    """The folder of converted backbone weights; missing ones are converted into it."""
    devices: int | None = None
    """How many of each machine's devices to train on. Default: all of them; one, of a CPU's."""
    hosts: Annotated[str | None, tyro.conf.arg(metavar="auto|ADDRESS:PORT,INDEX/COUNT")] = None
    """Several machines: start the same command on all of them. auto on TPU VMs and under SLURM;
    else the first one's address, and which this one is: 10.0.0.1:1234,0/2."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="GB")] = None
    """What cached features may take, of the main memory as of each device: two fifths of what is
    free, if it is not given. Larger ones go to files in OUT/.features."""
    retrain: bool = False
    """Train again, even if the folder holds a finished run or part of one."""
    keep_checkpoints: bool = False
    """Keep the training's checkpoints once the model is written; they are eight times as large."""
    pictures: Pictures = PICTURES
    """How many pictures are drawn: of the test images that are judged worst and best, and of those
    next to the threshold. all: of every one."""
    report: bool = True
    """Write report.html, to be opened in a browser."""
    unified: bool = False
    """One model for all the categories, in OUT/unified: it is trained on the normal images of all.
    Each category's results are in OUT/unified/CATEGORY."""
    anomalies: str | None = None
    """ADTR+: go on from the normal-only model with anomalies; results go to OUT/CATEGORY+NAME.
    confetti, cutpaste or perlin make them; a folder holds your own, with or without masks."""
    tsne: bool = False
    """ADTR: draw the feature differences as in its Fig. 5 (tsne.png), those of several categories
    together, too, in OUT; needs masks."""
    layer_maps: bool = False
    """GTrans: draw the maps of its layers beside the fused one as in its Fig. 4 (layers.png)."""
    plus: Plus = field(default_factory=Plus)
    """How ADTR+ goes on."""

    @property
    def memory_limit(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else int(1e9 * self.memory)


C = TypeVar("C", bound=Options)


def main(
    run: Callable[[C], bool],
    defaults: Callable[[Settings], C],
    *,
    presets: Presets = PRESETS,
    method: str = "adtr",
    preset: Preset,
    prog: str,
) -> int:
    """Parses the command line and runs an experiment.

    Args:
        run: the experiment; returns whether all of it succeeded.
        defaults: the command's defaults, given the preset's settings.
        presets: the settings that each preset stands for, of each method that is to be had.
        method, preset: those in force where the command line names none.
        prog: the command as the user types it.

    Returns:
        The exit status: 0; 1 if a category failed; 2 for bad input, with one line on stderr;
        130 if it was stopped by Ctrl-C.
    """
    words = sys.argv[1:]

    def action() -> int:
        # These two choose the defaults of all other options. tyro lets subcommands do so, but not
        # options (`overridable_config_cli` refuses `--preset=fast`). It says below what is wrong
        # with a value that does not exist.
        _ = METHODS[value_of(words, "method") or method]
        chosen = peek(words, "method", presets) or method
        named = peek(words, "preset", presets[chosen]) or preset
        default = defaults(presets[chosen][named])
        default = dataclasses.replace(
            default,
            method=chosen,
            preset=named,
            plus=PLUS_PRESETS[named],
            out=default.out if chosen == method else Path(f"{default.out}_{chosen}"),
        )
        options = parse(type(default), words, prog=prog, default=default)
        from adtr_jax.devices.sharding import one_device_a_core, require_devices

        def work() -> bool:
            with local(options) as here:
                return run(here)

        if options.hosts is not None:
            from adtr_jax.devices import hosts

            hosts.join(options.hosts)
            require_devices()
            return 0 if hosts.until_one_fails(work) else 1
        from adtr_jax.devices.compile_cache import keep_compiled_programs

        one_device_a_core()
        require_devices()
        keep_compiled_programs()
        return 0 if work() else 1

    return guarded(action, INTERRUPTED)
