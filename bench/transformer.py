"""A transformer as people train them, in plain PyTorch: what the questions about recording run."""

from __future__ import annotations

import torch
from torch import nn

LAYERS, WIDTH, HEADS, VOCABULARY = 6, 384, 6, 4096
SITES = "blocks.*.output"
NAMES = [f"blocks.{layer}.output" for layer in range(LAYERS)]


class Block(nn.Module):
    """A layer with its norms in front."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.end = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, positions, width = x.shape
        qkv = self.qkv(self.before_attention(x)).view(batch, positions, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, positions, width))
        return self.end(x + self.mlp(self.before_mlp(x)))


class Transformer(nn.Module):
    """A decoder, if nothing else is said of six layers, d = 384: it predicts the next token."""

    def __init__(
        self,
        positions: int,
        *,
        layers: int = LAYERS,
        width: int = WIDTH,
        heads: int = HEADS,
        vocabulary: int = VOCABULARY,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.logits(self.norm(x))


def make(positions: int) -> Transformer:
    """Return the model; always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(positions)


def ids(batch: int, positions: int) -> torch.Tensor:
    """Return tokens, always the same ones."""
    return torch.randint(VOCABULARY, (batch, positions), generator=torch.Generator().manual_seed(1))
