"""Which stored row belongs to which entry of a tensor: by example, position and call."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
import torch

from lamina.errors import RecordingError
from lamina.rows import Rows


class Names:
    """What the batch items and positions are called that pass through a model.

    Args:
        example: A name for each batch item, the same in every call; None numbers them from 0 on, call after call.
        position: [T] or [B, T]; None counts from 0, behind what a cache holds.
    """

    def __init__(self, example: Any, position: Any) -> None:
        self._example = None if example is None else _series("example", example)
        self._position = None if position is None else np.asarray(_plain(position))
        if self._position is not None and (self._position.dtype.kind not in "iu" or self._position.ndim not in (1, 2)):
            raise RecordingError("position= is not whole numbers [positions] or [batch, positions]")
        self._first = 0
        self._size: int | None = None
        self._start = 0
        self._batches = 0
        self.passes = 0
        """How many calls of the whole model began."""

    def begin(self, size: int | None, start: int) -> None:
        """Note that a call of the whole model begins: how many batch items, from which position on.

        One that continues what a cache holds is of the same batch items as the one before it.
        """
        self.passes += 1
        self._start = start
        if start == 0 or self._batches == 0:
            self._first += self._size or 0
            self._size = size
            self._batches += 1

    @property
    def lasting(self) -> bool:
        """Whether what has a name now had it in every call of the model."""
        return self._example is not None or self._batches <= 1

    def of(self, lead: tuple[int, ...], site: str, call: int) -> pl.DataFrame:
        """Return `example`, `call` and, if there are positions, `position` of each row of a tensor.

        Args:
            lead: The dimensions that are rows, [B] or [B, T].
            site: For errors.
            call: Of the module, in this call of the model.

        Raises:
            RecordingError: There is another number of batch items or positions than was given.
        """
        if not lead:
            raise RecordingError(f"at the site {site!r} there is a single number, which is no row")
        if self._size is None:
            # What the model was given does not tell.
            self._size = lead[0]
        example = self._example
        if example is None and self._size != lead[0]:
            raise RecordingError(
                f"the batch has {self._size} items, and the site {site!r} {lead[0]}",
                hint="layout= says which dimension is the batch; where none is, a function can do what rows cannot",
            )
        if example is None:
            example = pl.Series("example", np.arange(self._first, self._first + lead[0]))
        if len(example) != lead[0]:
            raise RecordingError(f"example= names {len(example)} batch items, and the site {site!r} has {lead[0]}")
        frame = example.to_frame().with_columns(pl.lit(call, pl.Int64).alias("call"))
        if len(lead) == 1:
            return frame
        position = np.arange(self._start, self._start + lead[1]) if self._position is None else self._position
        if position.shape not in (lead, lead[1:]):
            raise RecordingError(
                f"position= has the shape {list(position.shape)}, and the site {site!r} has {lead[0]} batch items of "
                f"{lead[1]} positions"
            )
        position = np.broadcast_to(position, lead).reshape(-1).astype(np.int64)
        repeated = np.repeat(np.arange(lead[0]), lead[1])
        return frame[repeated].with_columns(pl.Series("position", position))


class Table:
    """The rows of some `Rows` by example and position.

    Where several are alike in these and differ in `call`, they belong to the calls of the module, in order.
    """

    def __init__(self, rows: Rows) -> None:
        self._size = len(rows)
        self._keys: list[str] = []
        if "example" not in rows.columns:
            return
        columns = [name for name in ("example", "position", "call") if name in rows.columns]
        frame = rows.metadata(columns).with_columns(pl.Series("at", np.arange(len(rows), dtype=np.int64)))
        self._keys = ["example"]
        if "position" in columns and frame["position"].null_count() < len(frame):
            self._keys.append("position")
            frame = frame.with_columns(pl.col("position").cast(pl.Int64))
        if "call" in columns:
            # A step of several micro-batches counts calls on: what tells is their order within the example.
            order = pl.col("call").fill_null(0).rank("dense").over(self._keys).cast(pl.Int64) - 1
            frame = frame.with_columns(order.alias("call"))
            if frame["call"].max():
                self._keys.append("call")
        self._frame = frame.select(*self._keys, "at")
        self._refuse_repeated()

    @staticmethod
    def of(rows: Rows) -> Table:
        """Return the table of some rows, made once: that reads their metadata.

        Raises:
            RecordingError: Several rows have the same example, position and call.
        """
        if rows not in _tables:
            _tables[rows] = Table(rows)
        return _tables[rows]

    @property
    def by_call(self) -> bool:
        """Whether the calls of a module have rows of their own."""
        return "call" in self._keys

    def find(self, names: pl.DataFrame, chosen: np.ndarray, site: str) -> np.ndarray:
        """Return where the rows stand that belong to the chosen ones of some names.

        Rows without examples, which lie in memory, belong to the names in order.

        Raises:
            RecordingError: There are no such rows; the first that is missing is named.
        """
        if not self._keys:
            if self._size != len(names):
                raise RecordingError(
                    f"the rows for the site {site!r} name no example, so they belong in order; there are {self._size} "
                    f"for {len(names)}"
                )
            return np.flatnonzero(chosen)
        if ("position" in self._keys) != ("position" in names.columns):
            which = "have positions, and it has none" if "position" in self._keys else "have no position, and it has"
            raise RecordingError(
                f"the rows for the site {site!r} {which}",
                hint="give the layout= that they were recorded with; rows that were pooled are placed by a function",
            )
        asked = names.select(self._as_stored(names, site), *self._keys[1:]).filter(pl.Series(chosen))
        found = self._frame.join(asked.with_row_index("to"), on=self._keys, how="inner").sort("to")
        if len(found) < len(asked):
            missing = asked.join(self._frame, on=self._keys, how="anti", maintain_order="left")
            raise RecordingError(
                f"the rows for the site {site!r} lack {len(missing)} of the {len(asked)} that the batch holds: "
                f"{_named(missing, self._keys)}",
                hint="example= and position= say what the batch holds, and where= edits a part of it",
            )
        return found["at"].to_numpy()

    def _as_stored(self, names: pl.DataFrame, site: str) -> pl.Series:
        stored, given = self._frame["example"].dtype, names["example"]
        if (stored == pl.String) != (given.dtype == pl.String):
            raise RecordingError(
                f"the examples of the rows for the site {site!r} are {stored}, those of the batch {given.dtype}",
                hint="example= says what the batch holds",
            )
        # A number that the stored type cannot hold is none of them: it becomes null, which equals nothing.
        return given.cast(stored, strict=False)

    def _refuse_repeated(self) -> None:
        keys = self._keys
        twice = self._frame.group_by(keys).len().filter(pl.col("len") > 1).sort(keys)
        if len(twice):
            raise RecordingError(
                f"{twice['len'][0]} rows have {_named(twice.head(1), keys)}, so it is unclear which of them is meant",
                hint="choose one step (step=), one source (source=), or more with where=",
            )


_tables: WeakKeyDictionary[Rows, Table] = WeakKeyDictionary()


def _named(frame: pl.DataFrame, keys: list[str]) -> str:
    """Return the names of the first three rows."""
    named = [", ".join(f"{key} {row[key]}" for key in keys) for row in frame.head(3).to_dicts()]
    return "; ".join(named) + ("; …" if len(frame) > 3 else "")


def _series(name: str, values: Any) -> pl.Series:
    try:
        series = pl.Series(name, _plain(values))
    except (TypeError, ValueError) as error:
        raise RecordingError(f"{name}= is no name for each batch item: {error}") from None
    if series.dtype != pl.String and not series.dtype.is_integer():
        raise RecordingError(f"{name}= holds {series.dtype}", hint="give integers or texts, one for each batch item")
    return series


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
