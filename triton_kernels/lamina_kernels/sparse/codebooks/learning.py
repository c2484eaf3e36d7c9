"""How a codebook follows its rows: moving averages, the revival of codes that nobody chooses, and their use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lamina_kernels import checks
from lamina_kernels.gram import argmin
from lamina_kernels.gram.selection import codes as members
from lamina_kernels.sparse.codebooks.quantize import DISTANCES, Distance
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.decoding.api import Impl
from lamina_kernels.tiles.rows import accumulation_dtype


@dataclass(frozen=True, eq=False)
class Codebook:
    """A codebook that is the moving mean of the rows that choose its codes. `starting` makes it.

    Attributes:
        codes: [M, d].
        counts: [M], float32 (float64 for float64), how many rows chose each code, as a moving average.
        sums: [M, d], likewise, their sum.
        idle: [M] int64, for how many updates nobody has chosen it.
        distance: By what rows choose.
    """

    codes: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor
    idle: torch.Tensor
    distance: Distance

    @classmethod
    def starting(cls, codes: torch.Tensor, *, distance: Distance = "squared") -> Codebook:
        """Start with some codes, each as if one row had chosen it; with `"cosine"`, their directions.

        Args:
            codes: [M, d], float16, bfloat16, float32 or float64.
            distance: As of `quantize`.

        Raises:
            ValueError: Codes of other dimensions or dtypes; another distance.
        """
        checks.matrices("Codebook", codes=codes)
        if distance not in DISTANCES:
            raise ValueError(f"Codebook: distance is {distance!r}, expected one of {', '.join(map(repr, DISTANCES))}")
        codes = _told(codes.detach(), distance)
        sums = codes.to(accumulation_dtype(codes.dtype), copy=True)
        return cls(
            codes,
            sums.new_ones(len(codes)),
            sums,
            torch.zeros(len(codes), dtype=torch.int64).to(codes.device),
            distance,
        )

    def updated(
        self, x: torch.Tensor, codes: Codes | None = None, *, decay: float = 0.99, impl: Impl | None = None
    ) -> Codebook:
        """Return the codebook after the rows of one step.

        Counts and sums are decay times what they were and (1 - decay) times those of this step, and a code is their
        quotient: one that nobody chooses stays where it is. With `decay=0` it is a step of k-means.

        Args:
            x: [n, d] in the dtype of the codes; rows that are not finite count for nothing.
            codes: What `quantize` chose for these rows by this codebook, one code each: they need not be looked for
                again. None for `gram.argmin`.
            decay: From 0 to 1.
            impl: As of `decode`; of a search.

        Raises:
            ValueError: As of `gram.argmin`; another decay; codes of other rows, or of another codebook.

        Source:
            Neural discrete representation learning: van den Oord, Vinyals and Kavukcuoglu, 2017, appendix A.1.

        Example:
            >>> import torch
            >>> from lamina_kernels.sparse import quantize
            >>> book, x = Codebook.starting(torch.tensor([[0.0], [8.0]])), torch.tensor([[1.0], [3.0]])
            >>> book = book.updated(x, quantize(x, book.codes).codes, decay=0.5)
            >>> book.codes.tolist(), book.idle.tolist()
            ([[1.3333333730697632], [8.0]], [0, 1])
        """
        if not 0 <= decay <= 1:
            raise ValueError(f"Codebook: decay is {decay}, expected a number from 0 to 1")
        rows = _told(x.detach(), self.distance)
        chosen, total = self._members(rows, codes, impl)
        counts = decay * self.counts + (1 - decay) * chosen
        sums = decay * self.sums + (1 - decay) * total
        # Also where a mean has decayed to nothing.
        known = counts >= torch.finfo(counts.dtype).smallest_normal
        means = (sums / counts.masked_fill(~known, 1)[:, None]).to(self.codes.dtype)
        means = torch.where(known[:, None], _told(means, self.distance), self.codes)
        return replace(self, codes=means, counts=counts, sums=sums, idle=(self.idle + 1).masked_fill(chosen > 0, 0))

    def _members(self, rows: torch.Tensor, codes: Codes | None, impl: Impl | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how many rows chose each code, [M], and their sum, [M, d]."""
        if codes is None:
            found = argmin(rows, self.codes, distance=self.distance, impl=impl)
            assert found.sums is not None
            return found.counts, found.sums
        checks.matrices("Codebook", codes=self.codes, x=rows)
        checks.same_width("Codebook", codes=self.codes, x=rows)
        if codes.ids.shape != (len(rows), 1) or codes.shape != (len(rows), len(self.codes)):
            raise ValueError(
                f"Codebook: codes are {list(codes.ids.shape)} of {codes.width}, expected [{len(rows)}, 1] of "
                f"{len(self.codes)}"
            )
        # The value of a row that is not finite is NaN.
        places = codes.ids[:, 0].long().masked_fill(codes.values.detach()[:, 0].isnan(), -1)
        return members.counts(places, len(self.codes)), members.sums(rows, places, len(self.codes))

    def revived(self, x: torch.Tensor, *, after: int, seed: int) -> Codebook:
        """Return the codebook in which codes that nobody has chosen for a while are rows of x.

        Args:
            x: [n, d] in the dtype of the codes, of which different ones are drawn; rows that are not finite are not.
            after: For how many updates, at least, nobody has chosen them.
            seed: Of the draw.

        Returns:
            The codebook. If there are more such codes than rows, the first of them are replaced.

        Raises:
            ValueError: Rows that do not fit, or `after` below 1.

        Example:
            >>> import torch
            >>> book = Codebook.starting(torch.tensor([[0.0], [8.0]])).updated(torch.tensor([[0.0]]))
            >>> book.revived(torch.tensor([[3.0]]), after=1, seed=0).codes.tolist()
            [[0.0], [3.0]]
        """
        checks.matrices("Codebook", codes=self.codes, x=x)
        checks.same_width("Codebook", codes=self.codes, x=x)
        if after < 1:
            raise ValueError(f"Codebook: after is {after}, expected at least 1")
        rows = x.detach()[x.detach().isfinite().all(1)]
        dead = (self.idle >= after).nonzero()[:, 0][: len(rows)]
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: len(dead)].to(rows.device)
        rows = _told(rows[drawn], self.distance)
        codes, sums, counts, idle = (each.clone() for each in (self.codes, self.sums, self.counts, self.idle))
        codes[dead], sums[dead], counts[dead], idle[dead] = rows, rows.to(sums.dtype), 1, 0
        return replace(self, codes=codes, sums=sums, counts=counts, idle=idle)


@dataclass(frozen=True, eq=False)
class CodeStatistics:
    """How the codes of a codebook are used.

    Attributes:
        counts: [M] int64, how many entries name each code.
        perplexity: exp of the entropy of the shares of the counts, in nats, float64: between 1 and the number of
            codes that are used; 0 without entries.
        used: How many codes are named at all, int64.
    """

    counts: torch.Tensor
    perplexity: torch.Tensor
    used: torch.Tensor


def code_statistics(codes: Codes) -> CodeStatistics:
    """Count how often each code is named, and how evenly.

    Args:
        codes: Entries whose value is NaN, those of rows that are not finite, do not count.

    Cost:
        One pass over the ids.

    Example:
        >>> import torch
        >>> found = code_statistics(Codes(torch.ones(4, 1), torch.tensor([[0], [2], [0], [2]]), width=3))
        >>> found.counts.tolist(), round(found.perplexity.item(), 6), found.used.item()
        ([2, 0, 2], 2.0, 2)
    """
    ids, values = codes.ids.flatten().long(), codes.values.detach().flatten()
    counts = torch.zeros(codes.width, dtype=torch.int64, device=ids.device)
    counts = counts.scatter_add_(0, ids, (~values.isnan()).long())
    share = counts.double() / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum()
    used = (counts > 0).sum()
    return CodeStatistics(counts, entropy.exp() * (used > 0), used)


def _told(rows: torch.Tensor, distance: str) -> torch.Tensor:
    """Return rows, or their directions where these are all that counts; rows of zeros stay."""
    if distance != "cosine":
        return rows
    own = rows.to(accumulation_dtype(rows.dtype))
    norms = own.norm(dim=1, keepdim=True)
    return (own / norms.masked_fill(norms == 0, 1)).to(rows.dtype)
