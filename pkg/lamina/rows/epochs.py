"""Epochs: in which order rows come, and how they are cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lamina._core import Order
from lamina.errors import SchemaError

if TYPE_CHECKING:
    from lamina.rows.rows import Rows

OrderName = Literal["exact", "block", "preshuffled"]

RUN_BYTES = 256 << 10
"""Least bytes of rows that block order reads from one place."""

WINDOW_BYTES = 128 << 20
"""Bytes of rows among which block order shuffles, by default."""


@dataclass(frozen=True)
class Plan:
    """What decides which rows a batch holds, beside the epoch.

    Attributes:
        rows: How many rows there are.
        size: Rows of a batch.
        order: The order's name.
        seed: What the order follows from; None in preshuffled order.
        run: Rows of a run in block order.
        window: Rows of its shuffle window, and in preshuffled order those that are read ahead.
        drop_last: Whether a last batch that is not full is left out.
    """

    rows: int
    size: int
    order: OrderName
    seed: int | None
    run: int
    window: int
    drop_last: bool

    @staticmethod
    def of(
        rows: Rows, size: int, *, seed: int | None, order: str, window_bytes: int = WINDOW_BYTES, drop_last: bool
    ) -> Plan:
        """Plan the epochs of some rows.

        Raises:
            SchemaError: An option is impossible.
        """
        if size < 1:
            raise SchemaError(f"a batch of {size} rows", hint="give at least 1")
        if order not in get_args(OrderName):
            raise SchemaError(f"order={order!r}", hint=f"it is one of {', '.join(get_args(OrderName))}")
        if order == "preshuffled" and not rows.preshuffled:
            raise SchemaError("these rows do not lie in shuffled order", hint="Run.preshuffle() writes such a copy")
        if order != "preshuffled" and (seed is None or not -(2**63) <= seed < 2**63):
            raise SchemaError(f"order={order!r} with seed={seed!r}", hint="give a seed, an integer of 64 bits")
        row_bytes = max(1, rows.width * rows.dtype.itemsize)
        run = -(-RUN_BYTES // row_bytes)
        if window_bytes < run * row_bytes:
            raise SchemaError(f"window_bytes={window_bytes}", hint=f"a run alone takes {run * row_bytes}")
        seed = None if order == "preshuffled" else seed
        name: Any = order
        return Plan(len(rows), size, name, seed, run, window_bytes // row_bytes, drop_last)

    def order_of(self, epoch: int) -> Order:
        """The order of an epoch."""
        if self.seed is None:
            return Order.stored(self.rows)
        if self.order == "exact":
            return Order.exact(self.rows, self.seed, epoch)
        return Order.block(self.rows, self.seed, epoch, self.run, self.window)

    def spans(self, start: int) -> Iterator[tuple[int, int]]:
        """The places of an epoch that each batch from place `start` on holds."""
        last = self.rows - self.size + 1 if self.drop_last else self.rows
        for at in range(start, last, self.size):
            yield at, min(at + self.size, self.rows)

    def batches(self) -> int:
        """How many batches an epoch has."""
        return self.rows // self.size if self.drop_last else -(-self.rows // self.size)

    def positions(self, order: Order, start: int, stop: int) -> np.ndarray | range:
        """The rows at some places of an epoch."""
        if self.order == "preshuffled":
            return range(start, stop)
        return np.frombuffer(order.rows(start, stop), dtype=np.int64)

    def identity(self) -> dict[str, Any]:
        """What must be alike for a state of one plan to make sense in another; the size of a batch need not be."""
        same = {"rows": self.rows, "order": self.order, "seed": self.seed}
        return same | ({"run": self.run, "window": self.window} if self.order == "block" else {})

    def check_state(self, state: dict[str, Any]) -> tuple[int, int]:
        """Return a state's epoch and position.

        Raises:
            SchemaError: It is the state of other batches.
        """
        for name, value in self.identity().items():
            if state.get(name) != value:
                raise SchemaError(
                    f"the state was taken with {name}={state.get(name)!r}, these batches have {name}={value!r}",
                    hint="make them as those were made whose state it is",
                )
        epoch, position = state.get("epoch"), state.get("position")
        if not isinstance(epoch, int) or not isinstance(position, int) or epoch < 0 or not 0 <= position <= self.rows:
            raise SchemaError(f"the state has epoch={epoch!r} and position={position!r}")
        return epoch, position


class ReadAhead:
    """Tells a source which rows an epoch comes to next, where they lie side by side.

    At least a window ahead of what is asked for is being read, so that a disk always has requests to choose from.
    """

    def __init__(self, rows: Rows, plan: Plan, order: Order, start: int) -> None:
        self._tell = getattr(rows.source, "will_need", None)
        self._plan, self._order, self._told = plan, order, start

    def reach(self, place: int) -> None:
        """Look ahead from a place."""
        while self._tell and self._told < min(self._plan.rows, place + self._plan.window):
            self._told, spans = self._order.ahead(self._told, self._plan.window)
            if spans:
                self._tell(spans)
