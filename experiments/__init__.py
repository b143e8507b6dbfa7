"""The papers' experiments: a frozen dataclass of settings and a short main each."""

import sys

from adtr_jax import interrupt

INTERRUPTED = "interrupted; the same command, without --retrain, goes on"

if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME` begins; what it imports takes a second
    interrupt.take_over(INTERRUPTED)
