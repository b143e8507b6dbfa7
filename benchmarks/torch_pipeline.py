"""The whole method in PyTorch: image files -> features -> ADTR -> scores, and its training.

As fast as plain PyTorch allows: SiLU in one kernel, no head after the last tap, inference mode,
both memory layouts, fused AdamW, files decoded in threads, all cores. Nothing here imports JAX.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from efficientnet_pytorch import EfficientNet
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.sizes import Sizes
from benchmarks.timing import Way
from benchmarks.torch_adtr import TorchADTR

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TorchFeatures(nn.Module):
    """Pixels -> F: the five taps, resized with align_corners=True and concatenated."""

    def __init__(self, name: str, side: int):
        super().__init__()
        self.network = EfficientNet.from_name(name)
        self.network.set_swish(memory_efficient=False)  # nn.SiLU: one kernel instead of two
        self.side = side
        self.layout = torch.contiguous_format
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.mean = nn.Buffer(torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[b s s 3], RGB in 0..255 -> [b c h w]."""
        x = pixels.permute(0, 3, 1, 2).float() / 255
        x = ((x - self.mean) / self.std).contiguous(memory_format=self.layout)
        maps = [
            F.interpolate(tap.float(), (self.side, self.side), mode="bilinear", align_corners=True)
            for tap in self.taps(x)
        ]
        return torch.cat(maps, dim=1)

    def taps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns what `extract_endpoints` does, without the sixth, which is not needed."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(x)))
        taps = []
        for block in network._blocks:
            y = block(x)
            if y.shape[2] < x.shape[2]:
                taps.append(x)
            x = y
        return [*taps, x]


class TorchPipeline(nn.Module):
    """Pixels -> score maps and image scores."""

    def __init__(self, name: str, size: int, tokens: int, rate: float = 0.0, depth: int = 4):
        super().__init__()
        self.features = TorchFeatures(name, tokens)
        with torch.no_grad():
            channels = self.features.eval()(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).shape[1]
        self.model = TorchADTR(channels, tokens**2, rate, depth)
        self.size = size

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[b s s 3], RGB in 0..255 -> [b s s], [b]."""
        f = self.features(pixels)
        distance = torch.linalg.vector_norm(f - self.model(f).float(), dim=1, keepdim=True)
        size = (self.size, self.size)
        maps = F.interpolate(distance, size, mode="bilinear", align_corners=True)
        pooled = F.avg_pool2d(maps, max(1, round(self.size / 16)), stride=1)
        return maps[:, 0], pooled.amax(dim=(1, 2, 3))


def pipeline(sizes: Sizes) -> TorchPipeline:
    """Returns the pipeline for a job of this size, with PyTorch's initial values."""
    settings = sizes.settings
    made = TorchPipeline(
        sizes.backbone,
        settings.image_size,
        settings.tokens_per_side,
        settings.dropout,
        settings.depth,
    )
    return made.eval().to(DEVICE)


def calibrate(network: nn.Module) -> None:
    """Gives random weights BatchNorm statistics that fit them.

    Otherwise activations vanish over a hundred layers, and become numbers so small that the
    processor takes longer for them.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 64, generator=generator))
    network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def channels_last(module: nn.Module) -> nn.Module:
    """Returns a copy in the channels-last memory layout."""
    module = copy.deepcopy(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in module.modules():
        if isinstance(part, TorchFeatures):
            part.layout = torch.channels_last
    return module


def finished(result: object) -> object:
    """Returns the result once the device has computed it."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return result


def precision(sizes: Sizes) -> torch.autocast:
    """Returns a context of float32 without TF32, or of bfloat16 by PyTorch's autocast."""
    torch.backends.cudnn.allow_tf32 = False
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=sizes.dtype == "bfloat16")


def read(files: Sequence[Path], size: int) -> torch.Tensor:
    """Reads image files as [b s s 3], RGB in 0..255; in threads, as a DataLoader's workers do."""

    def one(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        return np.array(resized)

    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(one, files)))
    return torch.from_numpy(images).to(DEVICE)


def inference_ways(
    module: nn.Module, prepare: Callable[[], torch.Tensor], sizes: Sizes
) -> dict[str, Way | str]:
    """Returns eager in both memory layouts, compiled in the faster; `prepare` makes the inputs."""

    def way(module: Callable[[torch.Tensor], object]) -> Way:
        def call() -> object:
            with torch.inference_mode(), precision(sizes):
                return finished(module(prepare()))

        return call

    forget_compiled()
    other = channels_last(module)
    return {
        "eager": way(module),
        "eager, channels_last": way(other),
        "compiled": compiled(lambda: way(torch.compile(other, dynamic=False)), sizes),
    }


def forget_compiled() -> None:
    """Drops programs for other shapes, of which PyTorch keeps a limited number."""
    torch.compiler.reset()


def compiled(make: Callable[[], Way], sizes: Sizes) -> Way | str:
    """Returns a way through `torch.compile` after its first call, or why there is none."""
    if not sizes.compiled:
        return "not run"
    try:
        way = make()
        way()
    except Exception as error:  # no C++ compiler, or an operation that it does not know
        reason = " ".join(str(error).split())[:80].replace("|", "/")
        return f"failed: {type(error).__name__}: {reason}"
    return way


def train_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, f: torch.Tensor, sizes: Sizes
) -> torch.Tensor:
    """Runs a training step on the loss of Eq. 1, which it returns."""
    optimiser.zero_grad()
    with precision(sizes):
        f_hat = model(f)
    loss = ((f - f_hat.float()) ** 2).sum(1).mean()
    loss.backward()
    optimiser.step()
    return loss.detach()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Returns the paper's optimiser."""
    return torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)


def train(
    parts: tuple[Callable[[torch.Tensor], torch.Tensor], nn.Module],
    images: torch.Tensor,
    sizes: Sizes,
    *,
    cached: bool,
) -> list[float]:
    """Trains a model and returns the mean loss of every epoch.

    Args:
        parts: the frozen features, and the model, which is changed.
        images: [n s s 3], RGB in 0..255.
        sizes: epochs and batch size.
        cached: whether the features are computed once, or in every epoch, as in the public code.
    """
    features, model = parts
    model.train()
    optimiser = adamw(model)

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), precision(sizes):
            return features(pixels).contiguous()

    rows = images
    if cached:
        rows = torch.cat([compute(part) for part in images.split(sizes.batch_size)])
    losses = []
    for _ in range(sizes.epochs):
        total = torch.zeros((), device=images.device)
        for index in torch.randperm(len(rows)).split(sizes.batch_size):
            batch = rows[index.to(rows.device)]
            f = batch if cached else compute(batch)
            total += train_step(model, optimiser, f, sizes) * len(index)
        losses.append(float(total) / len(rows))
    return losses
