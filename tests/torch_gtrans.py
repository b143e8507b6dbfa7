"""GTrans's head and anomaly map put together from PyTorch's layers, in the paper's own notation.

Maps are `[b c h w]`; tokens are columns, `[b d t]`.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import torch
from flax import nnx as flax_nnx
from torch import Tensor, nn
from torch.nn import functional as F

G, D = 8, 256


class Tokenizer(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.L_g = nn.Conv2d(c, G, 1, bias=False)
        self.L_d = nn.Conv2d(c, D, 1)

    def forward(self, f: Tensor) -> Tensor:
        g = self.L_g(f).flatten(2) / math.sqrt(f.shape[1])  # Eq. 1
        v = self.L_d(f).flatten(2)  # Eq. 2
        return v @ g.softmax(dim=2).transpose(1, 2)  # Eq. 3


class Block(nn.Module):
    """Eqs. 4 to 7 with y = x, Eqs. 8 to 11 with y = E_out."""

    def __init__(self):
        super().__init__()
        self.W_q = nn.Conv1d(D, D, 1, bias=False)
        self.W_k = nn.Conv1d(D, D, 1, bias=False)
        self.W_v = nn.Conv1d(D, D, 1, bias=False)
        self.L_1 = nn.Conv1d(D, D, 1)
        self.L_2 = nn.Conv1d(D, D, 1)
        self.norm_a = nn.LayerNorm(D)
        self.norm_out = nn.LayerNorm(D)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = self.W_q(x), self.W_k(y), self.W_v(y)
        a = v @ (k.transpose(1, 2) @ q / math.sqrt(D)).softmax(dim=1)
        x_a = x + self.norm_a(a.transpose(1, 2)).transpose(1, 2)
        x_out = x_a + self.L_1(torch.relu(self.L_2(x_a)))
        return self.norm_out(x_out.transpose(1, 2)).transpose(1, 2)


class Mapper(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.X = nn.Conv2d(c, c, 1)
        self.T_k = nn.Conv1d(D, c, 1, bias=False)
        self.T_v = nn.Conv1d(D, c, 1)

    def forward(self, f_t: Tensor, f: Tensor, tokens: Tensor) -> Tensor:
        x_q = self.X(f).flatten(2)
        weights = (x_q.transpose(1, 2) @ self.T_k(tokens) / math.sqrt(f.shape[1])).softmax(dim=2)
        return f_t + (self.T_v(tokens) @ weights.transpose(1, 2)).reshape(f_t.shape)  # Eq. 12


class Head(nn.Module):
    def __init__(self, channels: tuple[int, ...], structure: str, blocks: int, query_from: str):
        super().__init__()
        self.query_from = query_from
        self.tokenizer_t = nn.ModuleList(Tokenizer(c) for c in channels)
        self.mapper = nn.ModuleList(Mapper(c) for c in channels)
        self.encoder = nn.ModuleList(Block() for _ in range(blocks))
        self.tokenizer_g = self.decoder = None
        if structure == "decoder":
            self.tokenizer_g = nn.ModuleList(Tokenizer(c) for c in channels)
            self.decoder = nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, f_t: list[Tensor], f_g: list[Tensor]) -> list[Tensor]:
        out = torch.cat([self.tokenizer_t[i](f) for i, f in enumerate(f_t)], dim=2)
        for block in self.encoder:
            out = block(out, out)
        if self.decoder is not None:
            e_out = out
            out = torch.cat([self.tokenizer_g[i](f) for i, f in enumerate(f_g)], dim=2)
            for block in self.decoder:
                out = block(out, e_out)
        queries = f_g if self.query_from == "agn" else f_t
        groups = out.split(G, dim=2)
        return [m(*args) for m, *args in zip(self.mapper, f_t, queries, groups, strict=True)]


def loss(f_g: list[Tensor], f_m: list[Tensor]) -> Tensor:
    """Eqs. 13 and 14."""
    total = torch.zeros(len(f_g[0]))
    for g, m in zip(f_g, f_m, strict=True):
        p = 0.5 * torch.linalg.vector_norm(g - m, dim=1) ** 2
        total = total + p.sum(dim=(1, 2)) / (g.shape[2] * g.shape[3])
    return total


def coefficients(g: Tensor, m: Tensor, lambda_: float) -> tuple[Tensor, Tensor, Tensor]:
    """a_mse, a_cos and alpha of one layer, Eqs. 16 to 18."""
    a_mse = F.mse_loss(m, g, reduction="none").sum(dim=(1, 2, 3)) / (g.shape[2] * g.shape[3])
    a_cos = 1 - F.cosine_similarity(g.flatten(1), m.flatten(1), dim=1)
    return a_mse, a_cos, lambda_ * a_cos * a_mse / (a_mse + lambda_ * a_cos)


def layer_map(g: Tensor, m: Tensor) -> Tensor:
    """Eq. 15."""
    return ((g - m) ** 2 / 2).sum(dim=1) / (g.shape[2] * g.shape[3])


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter over 4 sigma to either side; beyond the border the map is mirrored."""
    radius = int(4 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    x = maps[:, None]
    x = torch.cat([x[..., :radius].flip(-1), x, x[..., -radius:].flip(-1)], dim=-1)
    x = torch.cat([x[..., :radius, :].flip(-2), x, x[..., -radius:, :].flip(-2)], dim=-2)
    return F.conv2d(F.conv2d(x, kernel[None, None, None]), kernel[None, None, :, None])[:, 0]


def anomaly_map(f_g: list[Tensor], f_m: list[Tensor], lambdas: list[float], size: int) -> Tensor:
    """Eq. 19 with P6."""
    p = []
    for g, m, lambda_ in zip(f_g, f_m, lambdas, strict=True):
        resized = F.interpolate(
            layer_map(g, m)[:, None], (size, size), mode="bilinear", align_corners=True
        )
        p.append(coefficients(g, m, lambda_)[2][:, None, None] * resized[:, 0])
    return smooth(p[0] * p[2] + p[1] * p[2], 4)


OUR_NAMES = {
    "tokenizer_t": "trans_tokenizers",
    "tokenizer_g": "agn_tokenizers",
    "mapper": "mappers",
    "encoder": "tfm.encoder",
    "decoder": "tfm.decoder",
    "L_g": "group",
    "L_d": "value",
    "W_q": "query",
    "W_k": "key",
    "W_v": "value",
    "L_1": "out",
    "L_2": "hidden",
    "norm_a": "attention_norm",
    "norm_out": "out_norm",
    "X": "query",
    "T_k": "key",
    "T_v": "value",
}


def flax_name_values(model: nn.Module, grad: bool = False) -> dict[str, Tensor]:
    """The twin's parameters (or their gradients) under our names and in our layout."""
    out = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if grad else parameter.detach()
        *modules, kind = name.split(".")
        if kind == "weight":
            is_norm = modules[-1].startswith("norm")
            kind = "scale" if is_norm else "kernel"
            value = value if is_norm else value.flatten(1).T
        out[".".join([*(OUR_NAMES.get(part, part) for part in modules), kind])] = value
    return out


def with_parameters_of(twin: nn.Module, make: Callable[[], flax_nnx.Module]) -> flax_nnx.Module:
    """The module that `make` makes, with the twin's parameters, one for one."""
    values = flax_name_values(twin)
    graph, state = flax_nnx.split(flax_nnx.eval_shape(make))
    leaves = [
        (path, ".".join(map(str, path)), leaf) for path, leaf in flax_nnx.to_flat_state(state)
    ]
    assert {name for _, name, _ in leaves} == set(values)
    for _, name, leaf in leaves:
        assert leaf.get_value().shape == tuple(values[name].shape), name
    filled = (
        (path, leaf.replace(jnp.asarray(values[name].numpy()))) for path, name, leaf in leaves
    )
    return flax_nnx.merge(graph, flax_nnx.from_flat_state(filled))
