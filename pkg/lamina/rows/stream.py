"""Matrices that come as an iterable of blocks and are never held whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.rows.rows import Rows

if TYPE_CHECKING:
    import torch


def is_stream(value: Any) -> bool:
    """Whether a value is read as blocks one after another: an iterable that is no matrix."""
    if isinstance(value, (Rows, Stream)) or hasattr(value, "__array__") or hasattr(value, "shape"):
        return isinstance(value, Stream)
    if isinstance(value, (list, tuple)):
        return bool(value) and hasattr(value[0], "shape") and len(value[0].shape) > 1
    return isinstance(value, Iterable)


class Stream:
    """Blocks [k, d] that can be read again and again.

    Example:
        >>> import torch
        >>> stream = Stream.of([torch.zeros(2, 3), torch.ones(4, 3)])
        >>> stream.count(), stream.width
        (6, 3)
    """

    def __init__(self, blocks: Iterable[Any] | Rows) -> None:
        self._blocks = blocks
        self._count: int | None = None
        self.width = 0

    @staticmethod
    def of(value: Any) -> Stream:
        """A stream of an iterable of blocks, or of a matrix beside one.

        Raises:
            SchemaError: An iterator, which can be read once only.
        """
        if isinstance(value, Stream):
            return value
        if not is_stream(value):
            return Stream(Rows.of(value))
        if iter(value) is value:
            raise SchemaError(
                f"a {type(value).__name__} can be read only once, and the rows are read twice",
                hint="give a list, a DataLoader, or an object whose __iter__ begins anew",
            )
        return Stream(value)

    def __iter__(self) -> Iterator[torch.Tensor]:
        count = 0
        blocks = self._blocks.blocks(8192) if isinstance(self._blocks, Rows) else self._blocks
        for block in blocks:
            tensor = Rows.of(block[0] if isinstance(block, (list, tuple)) else block).gather(slice(None))
            if count and tensor.shape[1] != self.width:
                raise SchemaError(f"a block is {tensor.shape[1]} wide, those before it {self.width}")
            self.width = tensor.shape[1]
            count += len(tensor)
            yield tensor
        if self._count not in (None, count):
            raise SchemaError(f"an iterable gave {count} rows, and {self._count} the first time")
        self._count = count

    def count(self) -> int:
        """The number of rows; reads all of them the first time."""
        if self._count is None:
            for _ in self:
                pass
        return self._count or 0


def together(x: Rows | Stream, y: Rows | Stream, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Read two streams side by side in blocks of at most `size` rows, however each is cut."""
    assert isinstance(x, Stream)
    assert isinstance(y, Stream)
    if x is y:
        yield from ((piece, piece) for block in x for piece in block.split(size))
        return
    second = iter(y)
    rest = next(second, None)
    for block in x:
        while len(block):
            while rest is not None and not len(rest):
                rest = next(second, None)
            if rest is None:
                raise SchemaError("y ended before x")
            length = int(np.min([len(block), len(rest), size]))
            yield block[:length], rest[:length]
            block, rest = block[length:], rest[length:]
