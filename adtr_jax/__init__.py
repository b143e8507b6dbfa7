"""Feature-reconstruction anomaly detection in JAX and Flax.

The files follow the flow of the data:
image (`data`) -> features (`backbones`, `features`) -> tokens and reconstruction (`models`) ->
score map (`scoring`) -> metrics (`metrics`), pictures (`figures`) and report (`report`).
"""

__version__ = "0.1.0"
