"""Batches of rows, epoch by epoch, in an order that follows from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.rows.ahead import ahead
from lamina.rows.epochs import Plan, ReadAhead

if TYPE_CHECKING:
    import torch

    from lamina.rows.rows import Rows

DEPTH = 2
"""Stretches of batches that wait for their consumer; one more is being gathered."""

STRETCH_BYTES = 4 << 20
"""Least bytes that are gathered in one go: many small batches, or one large one. A call for each small batch would cost
as much as its rows, and keep a second thread from helping."""


class Batches:
    """An epoch each time it is iterated over; made by `Rows.batches`.

    A thread gathers a few batches ahead, small ones several at once. A batch is its consumer's: its memory is used
    again only when nothing refers to it any more, nor to those that were gathered with it (4 MiB). A loop that
    ends early has not finished its epoch, and the next one goes on where it stopped.

    Attributes:
        epoch: The epoch that the next batch belongs to, from 0.
        position: How many rows of it the consumer has received.
        positions: Which rows the batch holds that was received last.
    """

    def __init__(self, rows: Rows, plan: Plan) -> None:
        self._rows = rows
        self._plan = plan
        self.epoch = 0
        self.position = 0
        self.positions: np.ndarray | range = range(0)
        self._turn = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._plan.batches()

    def __repr__(self) -> str:
        return f"Batches({self._rows!r}, {self._plan.order}, epoch {self.epoch}, {self.position} rows received)"

    @property
    def plan(self) -> Plan:
        """What decides which rows a batch holds."""
        return self._plan

    def __iter__(self) -> Iterator[torch.Tensor]:
        self._turn += 1
        turn = self._turn
        stretches = ahead(_gathered(self._rows, self._plan, self.epoch, self.position), DEPTH)
        for positions, rows in stretches:
            for at, batch in _cut(rows, self._plan.size):
                if turn != self._turn:
                    raise SchemaError(
                        "another loop over these batches has begun", hint="make batches of its own for it"
                    )
                self.positions = positions[at : at + len(batch)]
                self.position += len(batch)
                yield batch
                del batch
            del rows
        if turn == self._turn:
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is: the batches that it received count, those gathered ahead of it do not."""
        return self._plan.identity() | {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken; the next batch is the one that would have come next there.

        Raises:
            SchemaError: It is the state of other rows, or of another order or seed.
        """
        self.epoch, self.position = self._plan.check_state(state)
        self._turn += 1


def _gathered(rows: Rows, plan: Plan, epoch: int, position: int) -> Iterator[tuple[np.ndarray | range, torch.Tensor]]:
    """Stretches of whole batches: which rows they hold, and these."""
    order = plan.order_of(epoch)
    further = ReadAhead(rows, plan, order, position)
    batch_bytes = max(1, plan.size * rows.width * rows.dtype.itemsize)
    spans = plan.spans(position)
    while together := list(islice(spans, -(-STRETCH_BYTES // batch_bytes))):
        start, stop = together[0][0], together[-1][1]
        further.reach(start)
        positions = plan.positions(order, start, stop)
        yield positions, rows.gather(positions)


def _cut(rows: torch.Tensor, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Batches of a stretch and where they begin.

    Each is a tensor with a storage of its own, of just its bytes: who saves or sends one takes no others along.
    """
    import torch

    if len(rows) <= size or not rows.numel():
        yield 0, rows
        return
    width, item = rows.shape[1], rows.shape[1] * rows.itemsize
    memory = rows.reshape(-1).view(torch.uint8).numpy()
    for at in range(0, len(rows), size):
        count = min(size, len(rows) - at)
        batch = torch.frombuffer(memory, dtype=rows.dtype, count=count * width, offset=at * item)
        yield at, batch.view(count, width)
        del batch
