"""What UniAD changes in ADTR, of PyTorch's own layers: the reference for ours."""

import torch
from torch import nn

WIDTH, HEADS, HIDDEN = 32, 4, 64


def neighbour_mask(side: int, size: int) -> torch.Tensor:
    """[n n]: -inf for the positions in the window around each, else 0."""
    mask = torch.zeros(side, side, side, side)
    reach = size // 2
    for y in range(side):
        for x in range(side):
            rows = slice(max(y - reach, 0), y + reach + 1)
            columns = slice(max(x - reach, 0), x + reach + 1)
            mask[y, x, rows, columns] = -torch.inf
    return mask.reshape(side**2, side**2)


class Layer(nn.Module):
    """A post-norm encoder layer; with `attentions`=2 a decoder layer, with `tokens` UniAD's."""

    def __init__(self, attentions: int, tokens: int | None = None):
        super().__init__()
        for name in ("attention", "cross_attention")[:attentions]:
            setattr(self, name, nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
            setattr(self, f"{name}_norm", nn.LayerNorm(WIDTH))
        self.ffn = nn.Sequential(
            nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Identity(), nn.Linear(HIDDEN, WIDTH)
        )
        self.ffn_norm = nn.LayerNorm(WIDTH)
        if tokens is not None:
            self.query = nn.Parameter(torch.randn(tokens, WIDTH))

    def step(self, name, x, other, position, mask):
        attend, norm = getattr(self, name), getattr(self, f"{name}_norm")
        q, k = x + position, other + position
        return norm(x + attend(q, k, other, attn_mask=mask, need_weights=False)[0])

    def forward(self, x, position, mask, encoded=None):
        if hasattr(self, "query"):
            query = self.query.expand(x.shape)
            x = self.step(
                "cross_attention",
                self.step("attention", query, encoded, position, mask),
                x,
                position,
                mask,
            )
        else:
            x = self.step("attention", x, x, position, mask)
            if encoded is not None:
                x = self.step("cross_attention", x, encoded, position, mask)
        return self.ffn_norm(x + self.ffn(x))


class TorchUniAD(nn.Module):
    """`size` is that of the window that no token attends to; None: there is none."""

    def __init__(self, channels: int, side: int, *, size: int | None, layerwise: bool):
        super().__init__()
        tokens = side**2
        self.mask = None if size is None else neighbour_mask(side, size)
        self.position = nn.Parameter(torch.randn(tokens, WIDTH))
        if not layerwise:
            self.query = nn.Parameter(torch.randn(tokens, WIDTH))
        self.project_in = nn.Linear(channels, WIDTH)
        self.encoder = nn.ModuleList(Layer(1) for _ in range(2))
        self.decoder = nn.ModuleList(Layer(2, tokens if layerwise else None) for _ in range(2))
        self.project_out = nn.Linear(WIDTH, channels)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        """[b h w c] -> [b h w c]."""
        encoded = self.project_in(f.flatten(1, 2))
        for layer in self.encoder:
            encoded = layer(encoded, self.position, self.mask)
        x = self.query.expand(encoded.shape) if hasattr(self, "query") else encoded
        for layer in self.decoder:
            x = layer(x, self.position, self.mask, encoded)
        return self.project_out(x).reshape(f.shape)
