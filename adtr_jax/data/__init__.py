"""Readers of images and masks: `folders`, `mvtec_ad`, `solar_cells`, `cifar`, `labelled`.

A reader returns a `Category` of `Sample`s, which name files and hold no pixels; `images` turns
samples into arrays. Nothing here imports JAX; TFDS is imported on use.
"""

from adtr_jax.data.images import load_images
from adtr_jax.data.masks import load_masks
from adtr_jax.data.samples import Category, File, Sample

__all__ = ["Category", "File", "Sample", "load_images", "load_masks"]
