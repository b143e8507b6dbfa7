"""Options that name folders in buckets: they get the folders of copies on this machine."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from adtr_jax.files.bucket import Bucket, address_of

C = TypeVar("C")


@contextmanager
def local(options: C) -> Iterator[C]:
    """The options with a local path for each address; what is written to `out` goes to its bucket.

    Weights that the bucket lacks are converted into the copy alone.

    Raises:
        InputError: an address cannot be reached, or holds nothing; or, at the end, the results
            cannot be written there.
    """
    with ExitStack() as stack:
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(options):  # type: ignore[arg-type]
            value = getattr(options, field.name)
            word = field.name == "anomalies"  # a folder, or the name of a kind
            address = (
                address_of(Path(value)) if isinstance(value, Path) or (value and word) else None
            )
            if address is None:
                continue
            if field.name == "out":
                changes["out"] = _followed(address, stack)
            else:
                copy = Bucket(address).fetch(empty=field.name == "weights")
                changes[field.name] = str(copy) if word else copy
        yield dataclasses.replace(options, **changes) if changes else options  # type: ignore[type-var]
    if "out" in changes:
        print(f"results are in {address_of(options.out)}")  # type: ignore[attr-defined]


def _followed(address: str, stack: ExitStack) -> Path:
    """The folder whose changes are written to the address, by the first process alone."""
    from adtr_jax.devices import hosts
    from adtr_jax.files.mirror import mirrored

    return stack.enter_context(mirrored(address)) if hosts.first() else Bucket(address).copy
