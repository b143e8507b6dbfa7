"""Our detector and PyTorch's pipeline with the same random weights."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from flax import nnx
from safetensors.numpy import save_file

from adtr_jax import backbones
from adtr_jax.detectors.adtr import AdtrDetector
from benchmarks.sizes import Sizes
from benchmarks.torch_adtr import flax_name_values, load_into
from benchmarks.torch_pipeline import DEVICE, TorchPipeline, calibrate, pipeline
from conversion.mapping import to_flax


def pair(sizes: Sizes, folder: Path | None = None) -> tuple[AdtrDetector, TorchPipeline]:
    """Returns both, for jobs of this size.

    Args:
        sizes: backbone, image size and dtype.
        folder: for the backbone's weights as `backbones.load` reads them; None: they are not kept.
    """
    torch.manual_seed(0)
    theirs = pipeline(sizes).cpu()
    calibrate(theirs.features.network)
    state = theirs.features.network.state_dict()
    tensors = {key: value.numpy() for key, value in state.items()}
    with TemporaryDirectory() as temporary:
        weights = folder or Path(temporary)
        save_file(to_flax(tensors, sizes.backbone), weights / f"{sizes.backbone}.safetensors")
        backbone = backbones.load(sizes.backbone, weights)
    ours = AdtrDetector.create(backbone, sizes.settings).initialised()
    model = nnx.merge(ours.graph, ours.params)
    load_into(model, flax_name_values(theirs.model))
    return dataclasses.replace(ours, params=nnx.state(model)), theirs.to(DEVICE)
