"""Masks of blocks, made from a predicate or from documents."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lamina_kernels.attention.masks import BlockMask

BLOCKS = (64, 128)
_PAIRS = 1 << 22  # that a predicate is asked about at a time

Predicate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def block_mask(
    fn: Predicate,
    queries: int,
    keys: int,
    *,
    sequences: int = 1,
    heads: int = 1,
    block: int = 128,
    device: torch.device | str | None = None,
) -> BlockMask:
    """Ask a predicate about every pair once, and keep the answer as blocks.

    Args:
        fn: `fn(sequence, head, query, key)` takes int64 tensors that broadcast against each other and returns a bool
            tensor: whether the query sees the key.
        queries: Nq.
        keys: Nk.
        sequences: B, if the predicate depends on the sequence, else 1.
        heads: H, if it depends on the query head, else 1.
        block: 64 or 128 queries and keys a block. Smaller blocks leave out more, and cost more each.
        device: Of the tensors that the predicate gets, and of the mask.

    Raises:
        ValueError: A size is negative, the block has another size, or the predicate returns something else.

    Cost:
        sequences x heads x Nq x Nk answers, 4 million at a time; a block that is seen in part keeps block² bits.

    Example:
        >>> near_or_first = block_mask(lambda b, h, i, j: (j <= i) & ((i - j < 150) | (j < 64)), 512, 512, block=64)
        >>> print(near_or_first)
        512 queries x 512 keys in blocks of 64: 30 of 64 seen
        +.......
        #+......
        ##+.....
        #+#+....
        #++#+...
        #.++#+..
        #..++#+.
        #...++#+
    """
    _check_sizes("block_mask", block, queries=queries, keys=keys, sequences=sequences, heads=heads)
    rows, columns = -(-queries // block), -(-keys // block)
    everything = torch.ones(sequences, heads, rows, columns, dtype=torch.bool, device=device)
    return _of_candidates(fn, queries, keys, block, everything)


def documents(ids: torch.Tensor, key_ids: torch.Tensor | None = None, *, block: int = 128) -> BlockMask:
    """Let every query see the keys of its own document alone.

    Args:
        ids: [N] or [B, N] integers: the document of each position.
        key_ids: Those of the keys, if they are others than the queries, [Nk] or [B, Nk].
        block: 64 or 128 queries and keys a block.

    Raises:
        ValueError: The ids are not integers of one or two dimensions, or the block has another size.

    Cost:
        The pairs of those blocks whose ranges of ids overlap: few, where documents stand one behind the other.

    Example:
        >>> import torch
        >>> mask = documents(torch.arange(512) // 200, block=64)
        >>> mask.seen_blocks, bool(mask.dense()[0, 0, 199, 0]), bool(mask.dense()[0, 0, 200, 199])
        (34, True, False)
    """
    key_ids = ids if key_ids is None else key_ids
    for name, values in (("ids", ids), ("key_ids", key_ids)):
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool or values.ndim not in (1, 2):
            raise ValueError(
                f"documents: {name} is {values.dtype} of shape {list(values.shape)}, expected integers [N] or [B, N]"
            )
    queries_of, keys_of = (x.long().view(1, -1) if x.ndim == 1 else x.long() for x in (ids, key_ids))
    if queries_of.shape[0] != keys_of.shape[0] or queries_of.device != keys_of.device:
        raise ValueError(
            f"documents: ids has shape {list(ids.shape)} on {ids.device}, key_ids {list(key_ids.shape)} on "
            f"{key_ids.device}: they must have equally many sequences, on one device"
        )
    queries, keys = queries_of.shape[1], keys_of.shape[1]
    _check_sizes("documents", block, queries=queries, keys=keys)
    (low_q, high_q), (low_k, high_k) = (_ranges(x, block) for x in (queries_of, keys_of))
    overlap = (low_q[:, :, None] <= high_k[:, None]) & (low_k[:, None] <= high_q[:, :, None])
    return _of_candidates(lambda b, h, i, j: queries_of[b, i] == keys_of[b, j], queries, keys, block, overlap[:, None])


def _of_candidates(fn: Predicate, queries: int, keys: int, block: int, candidates: torch.Tensor) -> BlockMask:
    """Return the mask of a predicate that is false outside of the candidates, [B, H, query blocks, key blocks] bool."""
    places = candidates.nonzero()
    inner = torch.arange(block, device=places.device)
    weights = 1 << torch.arange(32, device=places.device)
    seen, whole, bits = [], [], [torch.zeros(0, block, block // 32, dtype=torch.int32, device=places.device)]
    for some in places.split(max(1, _PAIRS // block**2)):
        b, h, row, column = (x[:, None, None] for x in some.unbind(1))
        i, j = (row * block + inner[:, None]), (column * block + inner)
        inside = (i < queries) & (j < keys)
        answer = fn(b, h, i.clamp(max=max(queries - 1, 0)), j.clamp(max=max(keys - 1, 0)))
        pairs = torch.broadcast_to(_checked(answer), inside.shape) & inside
        # Rows and columns beyond the edge do not make a block partial: every form knows how long sequences are.
        all_of, any_of = (pairs | ~inside).flatten(1).all(1), pairs.flatten(1).any(1)
        partly = pairs[any_of & ~all_of].unflatten(2, (-1, 32))
        seen.append(any_of)
        whole.append(all_of[any_of])
        bits.append(_as_int32((partly * weights).sum(-1)))
    keep = torch.cat(seen) if seen else torch.zeros(0, dtype=torch.bool, device=places.device)
    all_seen = torch.cat(whole) if whole else keep
    places = places[keep]
    partial = torch.where(all_seen, -1, (~all_seen).cumsum(0) - 1).int()
    starts, order = _listed(places, partial, candidates.shape, 2)
    key_starts, key_order = _listed(places, partial, candidates.shape, 3)
    return BlockMask(
        queries,
        keys,
        block,
        starts=starts,
        blocks=places[order, 3].int(),
        partial=partial[order],
        bits=torch.cat(bits),
        key_starts=key_starts,
        key_blocks=places[key_order, 2].int(),
        key_partial=partial[key_order],
    )


def _listed(
    places: torch.Tensor, partial: torch.Tensor, shape: torch.Size, by: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the lists of each row (by 2) or column (by 3) of blocks start, and the order that lists them so."""
    B, H, size = shape[0], shape[1], 2 * shape[by]
    line = (places[:, 0] * H + places[:, 1]) * size + 2 * places[:, by] + (partial >= 0)
    ends = torch.bincount(line, minlength=B * H * size).cumsum(0).view(B, H, size)
    first = torch.cat([ends.new_zeros(1), ends.flatten()])[: B * H * size].view(B, H, size)
    last = ends[..., -1:] if size else ends.new_zeros(B, H, 1)
    return torch.cat([first, last], 2).int(), line.argsort(stable=True)


def _ranges(ids: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest and the largest id of each block, [B, blocks]."""
    filled = torch.cat([ids, ids[:, -1:].expand(-1, -ids.shape[1] % block)], 1)
    return filled.unflatten(1, (filled.shape[1] // block, block)).aminmax(dim=2)


def _checked(answer: object) -> torch.Tensor:
    if not isinstance(answer, torch.Tensor) or answer.dtype != torch.bool:
        what = answer.dtype if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ValueError(f"block_mask: the predicate returned {what}, expected a bool tensor")
    return answer


def _check_sizes(op: str, block: int, **sizes: int) -> None:
    if block not in BLOCKS:
        raise ValueError(f"{op}: block is {block!r}, expected 64 or 128")
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"{op}: {name} is {size!r}, expected a number that is not negative")


def _as_int32(words: torch.Tensor) -> torch.Tensor:
    """Return the lower 32 bits as int32, whose highest bit is its sign."""
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()
