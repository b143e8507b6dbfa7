"""What a folder of results keeps of the model that made it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from adtr_jax.calibration.calibration import Calibration
from adtr_jax.calibration.decision import Decision
from adtr_jax.config import Settings
from adtr_jax.errors import InputError, one_line
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.results_folder import CARD
from adtr_jax.version import __version__


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the report says about the model, in `model_card.json` beside the results.

    Attributes:
        model: the name of its file or run.
        sha256: of all that was learned.
        version: of adtr_jax, that made the results.
        written: when the results were begun, in ISO 8601 with the zone.
        settings: how the model was trained and how it scores.
        licence: of the backbone's weights, SPDX; "" where it is not known.
        threshold: the raw score above which an image is anomalous; None: there is no calibration.
        promise: what the threshold promises, in words.
        calibration: the scores of good images that were not trained on, the lowest first.
        score: which score the report shows, and the threshold is of: the raw one; of a model of
            several products, whose raw scores differ, the one whose threshold is 0.5 for all.
    """

    model: str = ""
    sha256: str = ""
    version: str = __version__
    written: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    licence: str = ""
    threshold: float | None = None
    promise: str = ""
    calibration: list[float] = dataclasses.field(default_factory=list)
    score: Literal["raw_score", "score"] = "raw_score"

    @classmethod
    def of(
        cls,
        model: str,
        sha256: str,
        settings: Settings,
        *,
        licence: str = "",
        calibration: Calibration | None = None,
        decision: Decision | None = None,
        products: Mapping[str, tuple[Calibration, Decision]] | None = None,
    ) -> "ModelCard":
        """Describes a model that is about to be used.

        Args:
            model: its name.
            sha256: of what it has learned.
            settings: its own.
            licence: of its backbone's weights.
            calibration: the good images' scores.
            decision: the threshold, from them.
            products: both of each of several products by name, in place of these two.
        """
        if products:
            made = cls.of(model, sha256, settings, licence=licence)
            return dataclasses.replace(made, score="score", **_of_products(products))
        scores = [] if calibration is None else sorted(map(float, calibration.scores))
        return cls(
            model=model,
            sha256=sha256,
            written=datetime.now().astimezone().isoformat(timespec="seconds"),
            settings={"method": settings.method, **dataclasses.asdict(settings)},
            licence=licence,
            threshold=None if decision is None else decision.threshold,
            promise="" if decision is None else decision.describe(),
            calibration=scores,
        )

    def write(self, directory: Path) -> None:
        """Writes the card atomically."""
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)
        write_atomically(directory / CARD, text + "\n")

    @classmethod
    def read(cls, directory: Path) -> "ModelCard":
        """Reads the card of a folder; an empty one, where there is none.

        Raises:
            InputError: the file is damaged.
        """
        file = directory / CARD
        if not file.exists():
            return cls(version="")
        try:
            return cls(**json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            reason = one_line(error)
            raise InputError(f"{file} is damaged ({reason}): make the results again") from None


def _of_products(products: Mapping[str, tuple[Calibration, Decision]]) -> dict[str, Any]:
    """What the card says of the thresholds and calibrations of several products."""
    promises, scores = [], []
    for name, (calibration, decision) in products.items():
        promises.append(f"{name}: {decision.describe()}")
        scores += calibration.readable(calibration.scores, decision.threshold).tolist()
    return {"threshold": 0.5, "promise": " ".join(promises), "calibration": sorted(scores)}
