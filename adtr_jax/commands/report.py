"""`adtr-jax report RUN_OR_PREDICTIONS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.command_line import parse

PROG = "adtr-jax report"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write results as one HTML file, to be opened in a browser; it needs no network."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_PREDICTIONS")]
    """A folder that adtr-jax predict, adtr-jax evaluate or an experiment has written."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file. Default: report.html in the folder."""


def main(words: Sequence[str]) -> int:
    """Parses the command line and writes the report; returns the exit status."""
    from adtr_jax.errors import InputError
    from adtr_jax.html_report import page

    options = parse(Report, words, prog=PROG)
    if options.out is not None and options.out.is_dir():
        raise InputError(f"--out={options.out} is a folder: name the report's file")
    print(page.write(options.folder, options.out))
    return 0
