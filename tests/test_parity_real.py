"""The lite networks with their published weights on photographs, against the PyTorch package."""

from importlib.resources import files

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import conversion
from adtr_jax import backbones

torch = pytest.importorskip("torch")

# ImageNet's index of what the photograph shows to the network.
PHOTOGRAPHS = {"china.jpg": "palace", "flower.jpg": "flower"}
