"""Which tiles the kernels of attention visit: those that window and blocks leave something of, once each.

Those of which everything is seen come as full ones, which kernels do not mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from lamina_kernels.attention.masking import block_mask
from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.rows import sequence
from lamina_kernels.attention.walk import first_of, keys_seen, place_at, queries_seeing, turns
from tests.kernels import attention_forward_faults as attention_forward_faults  # known where checks run

QUERIES, KEYS, BLOCK, STEP = 150, 210, 64, 32
# The ends of the window, -1 for none.
WINDOWS = [(-1, -1), (-1, 0), (70, 40)]


@triton.jit
def visits_kernel(
    visits,  # [programs, 2, tiles] int32: how often each tile is visited, full or not
    starts, blocks, partial, bits, queries, keys, left, right, tiles,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr, OF_KEYS: tl.constexpr,
):  # fmt: skip
    """Count the visits of a program that has STEP queries or, OF_KEYS, keys."""
    number = tl.program_id(0)
    at = sequence(number * 0, None, None, queries, keys, True)
    if OF_KEYS:
        sight, walk = queries_seeing(
            number * STEP, at, number * 0, left, right, starts, blocks, partial, bits, 0, 0,
            LEFT, RIGHT, BLOCK, STEP, STEP, True,
        )  # fmt: skip
    else:
        sight, walk = keys_seen(
            number * STEP, at, number * 0, left, right, starts, blocks, partial, bits, 0, 0,
            LEFT, RIGHT, BLOCK, STEP, STEP, False,
        )  # fmt: skip
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE, STEP)):
            start = first_of(sight, place_at(walk, turn, EDGE, STEP), BLOCK)
            place = visits + (number * 2 + EDGE) * tiles + start // STEP
            tl.store(place, tl.load(place) + 1)


def visits(mask: BlockMask | None, left: int, right: int, of_keys: bool) -> torch.Tensor:
    """Return how often each program visits each tile of whole blocks, full and not, [2, programs, tiles]."""
    own, others = (KEYS, QUERIES) if of_keys else (QUERIES, KEYS)
    programs, tiles = -(-own // STEP), -(-others // BLOCK) * (BLOCK // STEP)
    made = torch.zeros(programs, 2, tiles, dtype=torch.int32)
    lists: tuple[torch.Tensor | None, ...] = (None, None, None, None)
    if mask is not None:
        of_queries = (mask.starts, mask.blocks, mask.partial, mask.bits)
        lists = (mask.key_starts, mask.key_blocks, mask.key_partial, mask.bits) if of_keys else of_queries
    kernel: Any = visits_kernel
    kernel[(programs,)](
        made, *lists, QUERIES, KEYS, left, right, tiles,
        left >= 0, right >= 0, 0 if mask is None else BLOCK, STEP, of_keys,
    )  # fmt: skip
    return made.transpose(0, 1)


def tiled(pairs: torch.Tensor, size: int) -> list[list[torch.Tensor]]:
    """Cut [queries, keys] into tiles; the last ones are smaller."""
    return [list(row.split(size, 1)) for row in pairs.split(size)]


def every_tile_is_visited_once_and_no_other(op: Callable[..., torch.Tensor]) -> None:
    i, j = torch.arange(QUERIES)[:, None], torch.arange(KEYS)
    # Blocks that are seen whole, in part, and not at all.
    mask = block_mask(lambda b, h, i, j: (i // BLOCK + j // BLOCK) % 3 > (i * j) % 2, QUERIES, KEYS, block=BLOCK)
    position = i + KEYS - QUERIES
    for left, right in WINDOWS:
        window = (j >= position - (left if left >= 0 else KEYS)) & (j <= position + (right if right >= 0 else KEYS))
        for given, of_keys in itertools.product((None, mask), (False, True)):
            shown = torch.ones_like(window) if given is None else given.dense()[0, 0]
            blocks = tiled(shown, BLOCK)
            made = op(given, left, right, of_keys)
            # Tiles behind the end are never visited.
            assert not made[:, :, -(-(QUERIES if of_keys else KEYS) // STEP) :].any()
            full, edge = (made.mT if of_keys else made).tolist()
            for row, tiles in enumerate(tiled(window, STEP)):
                for column, tile in enumerate(tiles):
                    block = blocks[row * STEP // BLOCK][column * STEP // BLOCK]
                    seen = bool(tile.any() and block.any())
                    whole = bool(tile.all() and block.all())
                    assert full[row][column] + edge[row][column] == seen, (left, right, of_keys, row, column)
                    assert whole or not full[row][column], (left, right, of_keys, row, column)
                    # At the end of a sequence, a tile that is seen whole may count as one that is not.
                    assert full[row][column] or not whole or tile.numel() < STEP**2
