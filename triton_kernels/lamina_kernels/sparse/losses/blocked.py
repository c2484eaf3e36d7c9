"""Losses a block of rows at a time: its reconstruction is compared and forgotten, and made again for gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.sparse.decoding.entries import Entries
from lamina_kernels.sparse.decoding.passes import Passes
from lamina_kernels.sparse.decoding.units import runs
from lamina_kernels.sparse.losses.prefixes import split
from lamina_kernels.tiles.rows import accumulation_dtype, tiles

NUMBERS = {"cpu": 2**22, "cuda": 2**26}
"""Numbers of a block of residuals, by device: 16 MB, or as much as keeps a GPU busy."""


class Problem(NamedTuple):
    """What is reconstructed from what.

    Attributes:
        e: The entries of n rows.
        dictionary: [M, d].
        target: [n, d].
        bias: [d].
        given: Entries of the same rows whose part is taken off the target, as a constant.
        prefixes: P numbers of units, ascending, the last of them M.
    """

    e: Entries
    dictionary: Tensor
    target: Tensor
    bias: Tensor | None
    given: Entries | None
    prefixes: list[int]


class Gradients(NamedTuple):
    """Gradients by what `Problem` holds; None for what was not asked for."""

    values: Tensor | None
    dictionary: Tensor | None
    target: Tensor | None
    bias: Tensor | None


def squares(p: Problem, run: Passes) -> tuple[Tensor, Tensor]:
    """Return the sum of squared residuals of each prefix, [P] float64, and of the target around its mean."""
    found = torch.zeros(len(p.prefixes), dtype=torch.float64, device=p.target.device)
    count, mean, variation = 0, torch.zeros(p.target.shape[1], dtype=torch.float64, device=p.target.device), 0.0
    for block in _blocks(p):
        residuals, wanted = _residuals(p, block, run)
        found += residuals.square_().sum((0, 2), dtype=torch.float64)
        # Means and sums of squares around them are merged as Chan, Golub and LeVeque do.
        n = len(wanted)
        own = wanted.mean(0, dtype=torch.float64)
        around = (wanted - own.to(wanted.dtype)).square().sum(0, dtype=torch.float64)
        shift = own - mean
        variation = variation + (around + shift.square() * (count * n / (count + n))).sum()
        mean += shift * (n / (count + n))
        count += n
    return found, torch.as_tensor(variation, dtype=torch.float64, device=found.device)


def gradients(p: Problem, weights: Tensor, wanted: Sequence[bool], run: Passes) -> Gradients:
    """Return the gradients of sum_p weights_p squares_p by values, dictionary, target and bias, as far as wanted."""
    dtype = accumulation_dtype(p.target.dtype)
    of_values, of_dictionary, of_target, of_bias = wanted
    values = torch.empty_like(p.e.values) if of_values else None
    dictionary = torch.zeros(p.dictionary.shape, dtype=dtype, device=p.target.device) if of_dictionary else None
    target = torch.empty_like(p.target) if of_target else None
    bias = torch.zeros(p.target.shape[1], dtype=torch.float64, device=p.target.device) if of_bias else None
    for block in _blocks(p):
        residuals, _ = _residuals(p, block, run)
        # An entry moves all prefixes from that on in which it comes in.
        slopes = following(residuals.mul_((-2 * weights)[None, :, None].to(dtype)))
        if target is not None:
            target[block] = -slopes[:, 0]
        if bias is not None:
            bias += slopes[:, 0].sum(0, dtype=torch.float64)
        if values is None and dictionary is None:
            continue
        e, order = split(_some(p.e, block), p.prefixes)
        flat = slopes.flatten(0, 1).to(p.dictionary.dtype)
        if values is not None:
            found = run.products(flat, e.ids, e.offsets, p.dictionary).to(values.dtype)
            first = int(p.e.offsets[block.start])
            here = values[first : first + len(found)]
            if order is None:
                here.copy_(found)
            else:
                here[order] = found
        if dictionary is not None:
            _add_by_unit(dictionary, e, flat, run)
    return Gradients(
        values,
        None if dictionary is None else dictionary.to(p.dictionary.dtype),
        target,
        None if bias is None else bias.to(p.dictionary.dtype),
    )


def following(slopes: Tensor) -> Tensor:
    """Return the sum of each prefix's slopes and those of the longer ones, [b, P, d]."""
    return slopes.flip(1).cumsum(1).flip(1) if slopes.shape[1] > 1 else slopes


def _add_by_unit(out: Tensor, e: Entries, rows: Tensor, run: Passes) -> None:
    """Add the sum of the rows of each unit that the entries name to the unit's row."""
    units, ids = e.ids.unique(return_inverse=True)
    (found,) = run.by_unit(e.values, runs(ids.to(e.ids.dtype), e.offsets, len(units)), [rows])
    # Each unit once: the order of the blocks is that of the sum.
    out.index_add_(0, units, found.to(out.dtype))


def _residuals(p: Problem, block: slice, run: Passes) -> tuple[Tensor, Tensor]:
    """Return target less reconstruction of some rows by each prefix, [b, P, d], and what these rows were to become."""
    dtype = accumulation_dtype(p.target.dtype)
    wanted = p.target[block].to(dtype)
    if p.given is not None:
        wanted = wanted - run.sums(*_some(p.given, block), p.dictionary, None)
    e, _ = split(_some(p.e, block), p.prefixes)
    sums = run.sums(*e, p.dictionary, None).to(dtype).view(len(wanted), len(p.prefixes), -1)
    sums = sums.cumsum(1) if len(p.prefixes) > 1 else sums
    residuals = torch.sub(wanted[:, None], sums, out=sums)
    return residuals if p.bias is None else residuals.sub_(p.bias), wanted


def _some(e: Entries, block: slice) -> Entries:
    """Return the entries of some rows."""
    offsets = e.offsets[block.start : block.stop + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    return Entries(e.values[first:last], e.ids[first:last], offsets - first)


def _blocks(p: Problem) -> Iterator[slice]:
    """Cut the rows into blocks.

    A block's gradient of the dictionary is added to that of the others: it holds at least as many entries as there are
    units, so that this costs no more than a sum of them. Its residuals are a small part of the dictionary then.
    """
    n, d = p.target.shape
    rows = NUMBERS[p.target.device.type] // max(1, len(p.prefixes) * d)
    enough = len(p.dictionary) * n // max(1, p.e.ids.numel())
    return tiles(n, max(1, rows, enough))
