"""The products of a model, as its file keeps them: tensors, and what the header says of each."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from adtr_jax.api.prediction import Scale
from adtr_jax.calibration.calibration import Calibration
from adtr_jax.calibration.recogniser import Recogniser
from adtr_jax.errors import InputError, one_line


@dataclass(frozen=True, eq=False)
class Product:
    """What is a product's own in a model of several.

    Attributes:
        name: of the product.
        calibration: the scores of its held-out normal images.
        scale: the raw scores of the first and the last colour of its pictures.
        sizes: width and height of its good images, the most frequent first.
    """

    name: str
    calibration: Calibration
    scale: Scale
    sizes: list[list[int]]


class Entry(TypedDict):
    """What the header says of a product."""

    name: str
    calibrated: int  # how many of the calibration's rows are its own; they follow one another
    scale: tuple[float, float]
    sizes: list[list[int]]


def describe_products(
    products: Sequence[Product], recogniser: Recogniser
) -> tuple[dict[str, np.ndarray], list[Entry]]:
    """Returns the tensors of all products, by name, and what the header says of them."""
    each = [product.calibration.arrays() for product in products]
    arrays = {name: np.concatenate([some[name] for some in each]) for name in each[0]}
    arrays["means"] = recogniser.means.astype(np.float32)
    arrays["spread"] = recogniser.spread.astype(np.float32)
    entries: list[Entry] = [
        {
            "name": product.name,
            "calibrated": len(product.calibration.scores),
            "scale": product.scale,
            "sizes": product.sizes,
        }
        for product in products
    ]
    return arrays, entries


def read_products(
    entries: Any, arrays: Mapping[str, np.ndarray], path: Path
) -> tuple[list[Product], Recogniser]:
    """Returns the products of a model's file.

    Args:
        entries: what the header says of them.
        arrays: the tensors, by name.
        path: the file, for the message.

    Raises:
        InputError: the header is damaged.
    """
    try:
        found = _checked(entries, len(arrays["scores"]))
        recogniser = Recogniser(
            tuple(entry["name"] for entry in found), arrays["means"], arrays["spread"]
        )
    except (TypeCheckError, ValueError, LookupError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"{path} has a damaged header ({reason}): fit the model again") from None
    products, end = [], 0
    for entry in found:
        own = slice(end, end := end + entry["calibrated"])
        calibration = Calibration(arrays["scores"][own], arrays["peaks"][own])
        products.append(Product(entry["name"], calibration, entry["scale"], entry["sizes"]))
    return products, recogniser


def _checked(entries: Any, calibrated: int) -> Sequence[Entry]:
    """The entries, with tuples for JSON's lists.

    Raises:
        TypeCheckError, ValueError: they are none, or do not fit the calibration.
    """
    everything = CollectionCheckStrategy.ALL_ITEMS
    check = functools.partial(check_type, collection_check_strategy=everything)
    listed = check(entries, list[dict[str, Any]])
    tuples = [entry | {"scale": tuple(check(entry.get("scale"), list[float]))} for entry in listed]
    found = check(tuples, list[Entry])
    if len({entry["name"] for entry in found}) < len(found):
        raise ValueError("products of the same name")
    counts = [entry["calibrated"] for entry in found]
    if min(counts, default=0) < 1 or sum(counts) != calibrated:
        raise ValueError(f"calibrated on {counts} images, and the file has {calibrated}")
    return found
