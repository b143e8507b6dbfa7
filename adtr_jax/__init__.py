"""Feature-reconstruction anomaly detection in JAX and Flax.

The files follow the flow of the data:
image (`data`) -> features (`backbones`, `features`) -> tokens and reconstruction (`models`) ->
score map (`scoring`, `weighted_map`) -> metrics (`metrics`), pictures (`figures`) and report
(`report`). A method (`detectors`) is the chain from image to score map, and how it is trained.
"""

__version__ = "0.2.0"
