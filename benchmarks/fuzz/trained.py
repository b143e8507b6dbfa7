"""PyTorch's checkpoints, converted weights, models, and the checkpoints of a training."""

import dataclasses
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.fuzz.reader import Files, digest

NETWORK = "efficientnet-b0"


def checkpoints() -> dict[str, Files]:
    """PyTorch's, of all element types and of views that are not contiguous."""
    import torch

    torch.manual_seed(0)
    tensors = {f"a.{kind}": torch.ones(2, 3).to(kind) for kind in (torch.float16, torch.bfloat16)}
    tensors |= {"b.weight": torch.rand(4, 3, 3, 3), "b.view": torch.rand(6, 4).T[1:]}
    tensors |= {"c.count": torch.tensor(7), "c.double": torch.rand(5, dtype=torch.float64)}
    made = {}
    for name, is_zip in (("new.pth", True), ("legacy.pth", False)):
        stream = io.BytesIO()
        torch.save(tensors, stream, _use_new_zipfile_serialization=is_zip)
        made[name] = {name: stream.getvalue()}
    return made


def read_checkpoint(folder: Path) -> str:
    from conversion import torch_file

    (path,) = folder.iterdir()
    tensors = torch_file.read(path)
    # A view may repeat its few bytes as often as the file says: whoever copies it checks its shape.
    values = [array if array.size < 2**20 else array.shape for array in tensors.values()]
    return digest(list(tensors), *values)


def weights() -> dict[str, Files]:
    """The smallest EfficientNet's, under a published one's name."""
    import jax
    from flax import nnx

    from adtr_jax import backbones

    with _smallest():
        graph, state = nnx.split(backbones.shapes(NETWORK))
    rng = np.random.default_rng(0)
    # Drawing them in JAX would compile for seconds.
    state = jax.tree.map(lambda leaf: rng.random(leaf.shape).astype(np.float32), state)
    with TemporaryDirectory() as name:
        path = Path(name) / f"{NETWORK}.safetensors"
        backbones.save(nnx.merge(graph, state), path)
        return {path.name: {path.name: path.read_bytes()}}


def read_weights(folder: Path) -> str:
    import jax
    from flax import nnx

    from adtr_jax import backbones

    with _smallest():
        network = backbones.load(NETWORK, folder)
    return digest(*map(np.asarray, jax.tree.leaves(nnx.state(network))))


@contextmanager
def _smallest() -> Iterator[None]:
    """A network of 2 MB under the name of one of 21."""
    from adtr_jax.backbones.scaling import SCALINGS, Scaling

    published = SCALINGS[NETWORK]
    SCALINGS[NETWORK] = Scaling(0.25, 0.2, 32, lite=False)
    try:
        yield
    finally:
        SCALINGS[NETWORK] = published


def models() -> dict[str, Files]:
    import jax

    from adtr_jax import detectors
    from adtr_jax.backbones.pixels import Pixels
    from adtr_jax.config import AdtrSettings
    from adtr_jax.detectors import model_file

    settings = AdtrSettings(
        backbone="pixels", layers=(4,), image_size=32, width=16, heads=2, depth=1, hidden=16
    )
    detector = detectors.create(Pixels(), settings)
    # Initialising it as for a training would compile for seconds.
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), detector.params)
    detector = dataclasses.replace(detector, params=params)
    scores = np.linspace(0, 1, 5, dtype=np.float32)
    with TemporaryDirectory() as name:
        path = Path(name) / "model.adtr"
        calibration = {"scores": scores, "peaks": scores}
        model_file.save(detector, path, complete=True, calibration=calibration)
        return {path.name: {path.name: path.read_bytes()}}


def read_model(folder: Path) -> str:
    import jax
    from flax import nnx

    from adtr_jax.detectors import model_file

    (path,) = folder.iterdir()
    header, detector, calibration = model_file.load(path)
    state = (detector.params, detector.rest, nnx.state(detector.backbone))
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    return digest(header, *arrays, *calibration.values())


def _training_state(epoch: int) -> dict[str, Any]:
    values = np.random.default_rng(epoch).random((8, 16)).astype(np.float32)
    return {"params": {"kernel": values, "bias": values[0]}, "step": np.array(epoch, np.int32)}


def training() -> dict[str, Files]:
    from adtr_jax.training.checkpoint import Checkpoints

    with TemporaryDirectory() as name:
        folder = Path(name)
        with Checkpoints(folder / "checkpoints") as checkpoints:
            for epoch in (1, 2):
                checkpoints.save(epoch, _training_state(epoch))
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    older = {file: data for file, data in contents.items() if "/2/" not in file}
    # The one before may stand in for a damaged one, and then the start.
    return {"run:0": {}, "run:1": older, "run:2": contents}


def read_training(folder: Path) -> str:
    from adtr_jax.training.checkpoint import Checkpoints

    with Checkpoints(folder / "checkpoints") as checkpoints:
        epoch, state = checkpoints.last(_training_state(0))
    return digest(epoch, np.asarray(state["step"]), *map(np.asarray, state["params"].values()))
