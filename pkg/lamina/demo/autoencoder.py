"""A sparse autoencoder, and the plain loop that trains it: every row as a sum of a few of many directions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lamina_kernels.sparse import Codes, Reconstruction, TopK, auxiliary_loss, decode, encode, reconstruction

if TYPE_CHECKING:
    from lamina.rows import Rows

PATIENCE = 32
"""Batches without it after which a unit counts as dead while the autoencoder learns."""
REVIVING = 64
"""Most dead units that explain a row in the auxiliary loss."""
AUXILIARY = 1 / 32
"""Weight of the auxiliary loss."""


class Autoencoder(nn.Module):
    """Rows x [n, d] as `bias + sum of value * atom` over the k units whose pre-activations are the largest.

    The pre-activations are (x - bias) encoderᵀ + threshold; atoms have unit length.

    Args:
        start: Rows [n, d] to begin with: the bias is their mean, atoms are the directions of some of them.
        units: How many atoms.
        k: How many of them a row is made of.
        seed: Which rows are taken.

    Source:
        Gao et al., Scaling and evaluating sparse autoencoders, 2024.
    """

    def __init__(self, start: Tensor, *, units: int, k: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.select = TopK(k)
        self.bias = nn.Parameter(start.mean(0))
        chosen = (start - self.bias.detach())[torch.randint(len(start), (units,), generator=generator)]
        noise = torch.randn(chosen.shape, generator=generator) * chosen.std()
        # rows alone would repeat each other where there are fewer of them than units
        self.atoms = nn.Parameter(normalize(chosen + noise))
        self.encoder = nn.Parameter(self.atoms.detach().clone())
        self.threshold = nn.Parameter(torch.zeros(units))
        self._rescale(start)

    @torch.no_grad()
    def _rescale(self, x: Tensor) -> None:
        """Scale the encoder so that decoded codes fit the rows best: atoms that are alike would add up to too much."""
        made, centered = decode(self.codes(x), self.atoms), x - self.bias
        self.encoder *= (made * centered).sum() / made.square().sum().clamp(min=1e-12)

    def codes(self, x: Tensor) -> Codes:
        """Return the k units of each row and their values."""
        return encode(x - self.bias, self.encoder, self.threshold, select=self.select).codes

    def compared(self, codes: Codes, x: Tensor) -> Reconstruction:
        """Return the mean squared error of what codes decode to, and the share of the variance that it explains."""
        return reconstruction(codes, self.atoms, x, bias=self.bias)

    def revived(self, codes: Codes, x: Tensor, dead: Tensor) -> Tensor:
        """Return how well dead units explain what codes leave: only the dead learn from it."""
        some = TopK(min(REVIVING, len(dead)))
        found = encode(x - self.bias.detach(), self.encoder[dead], self.threshold[dead], select=some).codes
        of_dead = Codes(found.values, dead[found.ids.long()].int(), width=codes.width)
        return auxiliary_loss(of_dead, codes, self.atoms, x, bias=self.bias).loss

    @torch.no_grad()
    def normalize(self) -> None:
        """Give every atom unit length, so that values alone say how strong a feature is."""
        self.atoms.copy_(normalize(self.atoms))


class Learnt(NamedTuple):
    """What one update was made from."""

    loss: Tensor
    explained: Tensor
    dead: int


def learn(
    model: Autoencoder, rows: Rows, *, steps: int, batch: int, seed: int, learning_rate: float = 1e-3
) -> Iterator[Learnt]:
    """Make `steps` updates from shuffled batches of rows, and yield after each what it was made from.

    Adam, whose rate falls to nothing over the last fifth. The auxiliary loss is of units that were silent for 32
    batches. The same seed gives the same weights on one machine.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 5 * (1 - step / steps)))
    silent = torch.zeros(len(model.atoms), dtype=torch.int64)
    epochs = itertools.repeat(rows.batches(batch, seed=seed))
    for x in itertools.islice(itertools.chain.from_iterable(epochs), steps):
        codes = model.codes(x)
        found = model.compared(codes, x)
        dead = (silent >= PATIENCE).nonzero().flatten()
        loss = found.loss + AUXILIARY * model.revived(codes, x, dead) if len(dead) else found.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        model.normalize()
        silent += 1
        silent[codes.ids[codes.values > 0].long()] = 0
        yield Learnt(found.loss.detach(), found.explained_variance, len(dead))
