"""Which pairs of queries and keys are seen, as data: the blocks that are seen, and bits of those seen in part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class BlockMask:
    """Blocks of queries and keys, of which only those that hold a pair that is seen are visited.

    A block is `block` queries by `block` keys. `starts` and `blocks` list the seen blocks of each block of queries:
    first those that are seen whole, then those that are seen in part, both rising; `bits` tells the pairs of the
    latter. A mask of one sequence or one head serves all.
    Made by `block_mask` or `documents`; `print` draws it.

    Attributes:
        queries: Nq.
        keys_count: Nk.
        block: Queries and keys of a block: 64 or 128.
        starts: [B or 1, H or 1, 2 query blocks + 1] int32, into `blocks`, absolute: those that query block r sees whole
            stand from starts[2 r] on, those that it sees in part from starts[2 r + 1] on.
        blocks: [seen blocks] int32: the number of the block of keys.
        partial: [seen blocks] int32: which entry of `bits` says what is seen of it, or -1 if all of it is.
        bits: [partial blocks, block, block // 32] int32: query i of the block sees its key j if bit j % 32 of
            word j // 32 of row i is set.
        key_starts: [B or 1, H or 1, 2 key blocks + 1] int32: the same blocks listed by block of keys.
        key_blocks: [seen blocks] int32: the number of the block of queries.
        key_partial: [seen blocks] int32, into `bits`.
    """

    queries: int
    keys_count: int
    block: int
    starts: torch.Tensor
    blocks: torch.Tensor
    partial: torch.Tensor
    bits: torch.Tensor
    key_starts: torch.Tensor
    key_blocks: torch.Tensor
    key_partial: torch.Tensor

    def dense(self) -> torch.Tensor:
        """Return whether query i sees key j, [B or 1, H or 1, Nq, Nk] bool."""
        entries = self._entries()
        rows, columns = self._sides()
        table = torch.zeros(self.starts[..., 0].numel() * rows, columns, self.block, self.block, dtype=torch.bool)
        table = table.to(self.blocks.device)
        table[entries // 2, self.blocks.long()] = self._pairs(self.partial)
        table = table.unflatten(0, (*self.starts.shape[:2], rows)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return table[:, :, : self.queries, : self.keys_count]

    def sees(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return whether each query sees its key, [B, H, N] bool, for int64 rows that broadcast to [B, H, N].

        Keys outside are seen by nobody.
        """
        inside = (keys >= 0) & (keys < self.keys_count)
        keys = keys.clamp(0, max(self.keys_count - 1, 0))
        if self.blocks.numel() == 0:
            return torch.zeros_like(inside)
        rows, columns = self._sides()
        heads = torch.arange(self.starts[..., 0].numel(), device=keys.device).view(*self.starts.shape[:2], 1)
        place = 2 * (heads * rows + queries // self.block) * columns + keys // self.block
        listed = self._entries() * columns + self.blocks
        # A block is in one of two lists, or in none.
        either = torch.stack([place, place + columns])
        entry = torch.searchsorted(listed, either).clamp(max=len(listed) - 1)
        found = listed[entry] == either
        partial = self.partial[torch.where(found[0], entry[0], entry[1])].long()
        if len(self.bits):
            i, j = queries % self.block, keys % self.block
            words = self.bits[partial.clamp(min=0), i.expand(place.shape), (j // 32).expand(place.shape)]
            bit = (words >> (j % 32)) & 1 == 1
        else:
            bit = torch.ones_like(partial, dtype=torch.bool)
        return inside & found.any(0) & (bit | (partial < 0))

    @property
    def seen_blocks(self) -> int:
        """How many blocks are visited, of all sequences and heads that the mask tells apart."""
        return self.blocks.numel()

    def to(self, device: torch.device | str) -> BlockMask:
        """Return the mask on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    def state(self) -> dict[str, torch.Tensor]:
        """Return the mask as named int32 tensors, which safetensors or `torch.save` take, and `from_state` back."""
        sizes = torch.tensor([self.queries, self.keys_count, self.block], dtype=torch.int32)
        return {"sizes": sizes} | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor]) -> BlockMask:
        """Return the mask that `state` was called of.

        Raises:
            ValueError: A tensor is missing, or the lists are not those of as many blocks.
        """
        missing = [name for name in ("sizes", *_TENSORS) if name not in state]
        if missing:
            raise ValueError(
                f"BlockMask.from_state: {missing[0]!r} is missing, expected what BlockMask.state() returned"
            )
        queries, keys, block = state["sizes"].tolist()
        mask = cls(queries, keys, block, **{name: state[name] for name in _TENSORS})
        for name, blocks in zip(("starts", "key_starts"), mask._sides(), strict=True):
            if state[name].ndim != 3 or state[name].shape[2] != 2 * blocks + 1:
                raise ValueError(
                    f"BlockMask.from_state: {name!r} has shape {list(state[name].shape)}, expected two lists for each "
                    f"of {blocks} blocks, [B, H, {2 * blocks + 1}]"
                )
        return mask

    def __str__(self) -> str:
        """Draw the blocks of the first sequence and head: `#` seen, `+` in part, `.` never visited."""
        rows, columns = self._sides()
        picture = [["."] * columns for _ in range(rows)]
        first = slice(int(self.starts[0, 0, 0]), int(self.starts[0, 0, -1]))
        for line, block in zip(self._entries()[first].tolist(), self.blocks[first].tolist(), strict=True):
            picture[line // 2][block] = "+" if line % 2 else "#"
        every = -(-max(rows, columns, 1) // 64)
        lines = [
            "".join(_densest(picture, r, c, every) for c in range(0, columns, every)) for r in range(0, rows, every)
        ]
        visited, all_blocks = self.seen_blocks, self.starts[..., 0].numel() * rows * columns
        size = f"{self.queries} queries x {self.keys_count} keys in blocks of {self.block}"
        title = f"{size}: {visited} of {all_blocks} seen"
        return "\n".join([title, *lines])

    def _sides(self) -> tuple[int, int]:
        """Return how many blocks of queries and of keys there are."""
        return -(-self.queries // self.block), -(-self.keys_count // self.block)

    def _entries(self) -> torch.Tensor:
        """Return for each seen block the number of its list, two a row, sequence by sequence; [seen] int64."""
        counts = self.starts.diff().flatten().long()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def _pairs(self, partial: torch.Tensor) -> torch.Tensor:
        """Return which pairs of blocks are seen, [blocks, block, block] bool."""
        shifts = torch.arange(32, dtype=torch.int32, device=self.bits.device)
        unpacked = ((self.bits[..., None] >> shifts) & 1 == 1).flatten(2)
        whole = torch.ones(1, self.block, self.block, dtype=torch.bool, device=self.bits.device)
        return torch.cat([unpacked, whole])[torch.where(partial < 0, len(unpacked), partial).long()]


_TENSORS = tuple(f.name for f in fields(BlockMask) if f.name not in ("queries", "keys_count", "block"))


def _densest(picture: list[list[str]], row: int, column: int, size: int) -> str:
    """Return the sign of what is seen of a square of blocks."""
    signs = {sign for line in picture[row : row + size] for sign in line[column : column + size]}
    return signs.pop() if len(signs) == 1 else "+"
