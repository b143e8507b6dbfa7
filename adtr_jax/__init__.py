"""Feature-reconstruction anomaly detection in JAX and Flax.

    model = adtr_jax.fit("photos")  # a folder of good images; or adtr_jax.load("bolt.adtr")
    result = model.predict("new.png")
    print(result.anomalous, result.score, result.p_value)

What is imported here is imported when it is used: JAX is loaded only once something is computed.
The folders follow the flow of the data: image (`data`) -> features (`backbones`) -> tokens and
reconstruction (`models`) -> score map (`detectors`) -> threshold (`calibration`), metrics and
pictures (`evaluation`). `run` trains and evaluates one category, as the experiments do.
"""

from typing import TYPE_CHECKING

from adtr_jax.version import __version__

if TYPE_CHECKING:
    from adtr_jax.api.fit import fit
    from adtr_jax.api.model import Model, load
    from adtr_jax.api.prediction import Prediction
    from adtr_jax.errors import InputError

__all__ = ["InputError", "Model", "Prediction", "__version__", "fit", "load"]

_PLACES = {
    "fit": "adtr_jax.api.fit",
    "load": "adtr_jax.api.model",
    "Model": "adtr_jax.api.model",
    "Prediction": "adtr_jax.api.prediction",
    "InputError": "adtr_jax.errors",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'adtr_jax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
