"""ADTR built from PyTorch's own layers: the reference for our model."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:  # PyTorch is measured without JAX in its process
    from flax import nnx


class Layer(nn.Module):
    """A post-norm encoder layer or, with `cross`, decoder layer; `rate` is the dropout's."""

    def __init__(self, cross: bool, rate: float = 0.0):
        super().__init__()
        self.attention = nn.MultiheadAttention(256, 8, dropout=rate, batch_first=True)
        self.attention_norm = nn.LayerNorm(256, eps=1e-5)
        if cross:
            self.cross_attention = nn.MultiheadAttention(256, 8, dropout=rate, batch_first=True)
            self.cross_attention_norm = nn.LayerNorm(256, eps=1e-5)
        self.ffn = nn.Sequential(
            nn.Linear(256, 1024), nn.ReLU(), nn.Dropout(rate), nn.Linear(1024, 256)
        )
        self.ffn_norm = nn.LayerNorm(256, eps=1e-5)

    def forward(self, x, position, memory=None):
        q = x + position
        x = self.attention_norm(x + self.attention(q, q, x, need_weights=False)[0])
        if memory is not None:
            attended = self.cross_attention(
                x + position, memory + position, memory, need_weights=False
            )[0]
            x = self.cross_attention_norm(x + attended)
        return self.ffn_norm(x + self.ffn(x))


class TorchADTR(nn.Module):
    def __init__(self, channels: int, tokens: int, rate: float = 0.0, depth: int = 4):
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(tokens, 256))
        self.query = nn.Parameter(0.02 * torch.randn(tokens, 256))
        self.project_in = nn.Conv2d(channels, 256, 1)
        self.encoder = nn.ModuleList(Layer(cross=False, rate=rate) for _ in range(depth))
        self.decoder = nn.ModuleList(Layer(cross=True, rate=rate) for _ in range(depth))
        self.project_out = nn.Conv2d(256, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[b c h w] -> [b c h w]."""
        b, _, h, w = features.shape
        memory = self.project_in(features).flatten(2).transpose(1, 2)
        for layer in self.encoder:
            memory = layer(memory, self.position)
        x = self.query.expand(b, -1, -1)
        for layer in self.decoder:
            x = layer(x, self.position, memory)
        return self.project_out(x.transpose(1, 2).reshape(b, 256, h, w))


def flax_name_values(model: TorchADTR, grad: bool = False) -> dict[str, torch.Tensor]:
    """Returns the parameters (or their gradients) under our names and in our layout."""
    out = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if grad else parameter.detach()
        assert value is not None, name
        module, _, kind = name.rpartition(".")
        if "in_proj" in kind:  # query, key and value in one matrix
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                leaf = "kernel" if kind == "in_proj_weight" else "bias"
                out[f"{module}.{part}.{leaf}"] = rows.T if leaf == "kernel" else rows
            continue
        module = module.replace("out_proj", "out").replace("ffn.0", "ffn.hidden")
        module = module.replace("ffn.3", "ffn.out")
        if kind == "weight":
            kind = "scale" if "norm" in module else "kernel"
            value = value if kind == "scale" else value.flatten(1).T
        out[f"{module}.{kind}" if module else kind] = value
    return out


def load_into(model: "nnx.Module", values: dict[str, torch.Tensor]) -> None:
    """Copies the reference's parameters into our model, one to one."""
    from flax import nnx

    state = nnx.state(model, nnx.Param)
    flat = nnx.to_flat_state(state)
    names = {".".join(map(str, path)) for path, _ in flat}
    assert names == set(values)
    for path, leaf in flat:
        leaf[...] = values[".".join(map(str, path))].numpy()
    nnx.update(model, state)
