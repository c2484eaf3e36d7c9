"""Which tiles of scores a form in plain torch makes: a block of queries after the other, only keys that it sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.problem import Problem
from lamina_kernels.tiles.rows import tiles

# Of a tile: queries (of all heads that share their keys), keys, and scores, over all sequences and heads that go
# together. Two tiles of float32 lie in the cache of two cores; larger ones, and smaller ones, were slower.
QUERIES = 256
KEYS = 512
SCORES = 1 << 19


class Rows(NamedTuple):
    """A block of queries.

    Attributes:
        items: Which of the B Hk pairs of a sequence and a head of keys.
        heads: Which of the query heads that share these keys.
        queries: Rows of q.
        offset: Query i stands at row i + offset of k.
        first_key: The row of k that is key 0 of the sequence.
    """

    items: slice
    heads: slice
    queries: slice
    offset: int
    first_key: int


class Visit(NamedTuple):
    """A tile: what a block of queries sees of consecutive keys.

    Attributes:
        keys: Rows of k.
        pairs: [queries, keys] bool: which pairs the mask shows; None for all.
        crossed: Whether an end of the window runs through the tile.
    """

    keys: slice
    pairs: torch.Tensor | None
    crossed: bool

    @property
    def hides(self) -> bool:
        """Whether a pair may be hidden."""
        return self.crossed or self.pairs is not None


def walk(p: Problem) -> Iterator[tuple[Rows, Iterator[Visit]]]:
    """Yield all blocks of queries, each with its tiles in the order of the keys."""
    B, H, Nq, _ = p.q.shape
    Hk, Nk = p.k.shape[1:3]
    if p.mask is not None:
        yield from _walk_mask(p, p.mask)
        return
    sequences = [(0, Nq, 0, Nk)]
    if p.cu_seqlens_q is not None and p.cu_seqlens_k is not None:
        bounds_q, bounds_k = p.cu_seqlens_q.tolist(), p.cu_seqlens_k.tolist()
        sequences = list(zip(bounds_q, bounds_q[1:], bounds_k, bounds_k[1:], strict=False))
    for start, stop, first, last in sequences:
        offset = first - start + ((last - first) - (stop - start) if p.bottom_right else 0)
        block = max(1, QUERIES * Hk // H)
        for part in tiles(stop - start, block):
            queries = slice(start + part.start, start + part.stop)
            keys = _window(p, queries, offset, slice(first, last))
            scores = H // Hk * (part.stop - part.start) * min(KEYS, max(1, keys.stop - keys.start))
            for items in tiles(B * Hk, max(1, SCORES // scores)):
                rows = Rows(items, slice(0, H // Hk), queries, offset, first)
                yield rows, _visits(p, rows, keys)


def _walk_mask(p: Problem, mask: BlockMask) -> Iterator[tuple[Rows, Iterator[Visit]]]:
    (B, H, Nq, _), (Hk, Nk) = p.q.shape, p.k.shape[1:3]
    group = H // Hk
    offset = Nk - Nq if p.bottom_right else 0
    per_batch, per_head = mask.starts.shape[:2]
    starts, blocks, partial = mask.starts.cpu(), mask.blocks.tolist(), mask.partial.tolist()
    for b in range(per_batch):
        # Sequences and heads that share their blocks go together, as far as they stand together.
        for h in range(per_head):
            if per_head == 1:
                whole = slice(0, B * Hk) if per_batch == 1 else slice(b * Hk, (b + 1) * Hk)
                spans, heads = [whole], slice(0, group)
            else:
                batch = range(B) if per_batch == 1 else (b,)
                spans = [slice(at * Hk + h // group, at * Hk + h // group + 1) for at in batch]
                heads = slice(h % group, h % group + 1)
            bounds = starts[b, h].tolist()
            for number, queries in enumerate(tiles(Nq, mask.block)):
                # Whole blocks and those that are seen in part together, in the order of the keys.
                seen = sorted(range(bounds[2 * number], bounds[2 * number + 2]), key=blocks.__getitem__)
                scores = (heads.stop - heads.start) * mask.block * KEYS
                for span in spans:
                    for part in tiles(span.stop - span.start, max(1, SCORES // scores)):
                        items = slice(span.start + part.start, span.start + part.stop)
                        rows = Rows(items, heads, queries, offset, 0)
                        yield rows, _visits_of_mask(p, mask, rows, seen, blocks, partial)


def _visits(p: Problem, rows: Rows, keys: slice) -> Iterator[Visit]:
    for part in tiles(max(0, keys.stop - keys.start), KEYS):
        these = slice(keys.start + part.start, keys.start + part.stop)
        yield Visit(these, None, _crossed(p, rows, these))


def _visits_of_mask(
    p: Problem, mask: BlockMask, rows: Rows, seen: list[int], blocks: list[int], partial: list[int]
) -> Iterator[Visit]:
    """Yield the seen blocks of keys, neighbors in one tile."""
    reach = _window(p, rows.queries, rows.offset, slice(0, mask.keys_count))
    size = mask.block
    run: list[int] = []
    for at in seen:
        if not reach.start < min((blocks[at] + 1) * size, reach.stop) or blocks[at] * size >= reach.stop:
            continue
        if run and (blocks[at] != blocks[run[-1]] + 1 or len(run) * size >= KEYS):
            yield _of_run(p, mask, rows, run, blocks, partial)
            run = []
        run.append(at)
    if run:
        yield _of_run(p, mask, rows, run, blocks, partial)


def _of_run(p: Problem, mask: BlockMask, rows: Rows, run: list[int], blocks: list[int], partial: list[int]) -> Visit:
    keys = slice(blocks[run[0]] * mask.block, min((blocks[run[-1]] + 1) * mask.block, mask.keys_count))
    pairs = None
    if any(partial[at] >= 0 for at in run):
        pairs = torch.cat([_pairs(mask, partial[at]) for at in run], 1)
        pairs = pairs[: rows.queries.stop - rows.queries.start, : keys.stop - keys.start]
    return Visit(keys, pairs, _crossed(p, rows, keys))


def _pairs(mask: BlockMask, number: int) -> torch.Tensor:
    """Return which pairs of a block are seen, [block, block]."""
    device = mask.bits.device
    if number < 0:
        return torch.ones(mask.block, mask.block, dtype=torch.bool, device=device)
    return (mask.bits[number, :, :, None] >> torch.arange(32, device=device) & 1).bool().flatten(1)


def _ends(p: Problem) -> tuple[float, float]:
    """Return the least and the largest i + shift - j that the window shows."""
    least = 0.0 if p.causal else -torch.inf
    return max(least, -p.right) if p.right >= 0 else least, p.left if p.left >= 0 else torch.inf


def _window(p: Problem, queries: slice, offset: int, keys: slice) -> slice:
    """Cut keys to those that one of the queries sees."""
    least, largest = _ends(p)
    start, stop = queries.start + offset - largest, queries.stop + offset - least
    start, stop = int(max(start, keys.start)), int(min(stop, keys.stop))
    return slice(start, max(start, stop))


def _crossed(p: Problem, rows: Rows, keys: slice) -> bool:
    """Whether one of the queries does not see one of the keys, by the window."""
    least, largest = _ends(p)
    nearest = rows.queries.start + rows.offset - (keys.stop - 1)
    farthest = rows.queries.stop - 1 + rows.offset - keys.start
    return nearest < least or farthest > largest
