"""The long frame of sparse codes: a row for each active unit.

A predicate is taken apart: its terms over metadata alone are evaluated by Polars on metadata alone, those over
`feature` alone once on all features, and what is left on the units that these two leave. All terms together are the
predicate.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from lamina import _core
from lamina.runs.scan.cells import as_frame, taken
from lamina.runs.scan.predicates import all_of, names_in, passing, split

if TYPE_CHECKING:
    from lamina._core import Snapshot
    from lamina.runs.scan.scan import Scan

_UNITS = 1 << 21
"""Units of a batch, about: 80 MB where all metadata are asked for."""
_ROWS = 1 << 18
"""Rows that are looked at together."""
_MOST_FEATURES = 1 << 24
"""Beyond this many, terms over `feature` are evaluated on the units."""


class Features:
    """One long frame.

    Args:
        snapshot: Where the codes lie.
        scan: The rows that have codes.
        site: The site.
        value: The type of a value.
        width: The number of features.
        columns: The metadata columns and their types.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        scan: Scan,
        site: str,
        value: pl.DataType,
        width: int,
        columns: Mapping[str, pl.DataType],
    ) -> None:
        self._snapshot = snapshot
        self._scan = scan
        self._site = site
        self._width = width
        self._columns = {"row": pl.Int64(), **columns}
        self._units = {"feature": pl.Int64(), "value": value}

    def frame(self) -> pl.LazyFrame:
        """The LazyFrame; nothing is read before it is collected."""
        return register_io_source(self._batches, schema=pl.Schema(self._columns | self._units), is_pure=True)

    def batches(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """These columns, as far as there are such, batch by batch."""
        return self._batches([name for name in columns if name in self._columns | self._units], None, None, None)

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Generator[pl.DataFrame, None, None]:
        wanted = list(self._columns | self._units) if with_columns is None else with_columns
        terms = split(predicate, self._columns)
        alone = [self._width <= _MOST_FEATURES and {*term.meta.root_names()} == {"feature"} for term in terms.late]
        of_feature = [term for term, is_alone in zip(terms.late, alone, strict=True) if is_alone]
        late = [term for term, is_alone in zip(terms.late, alone, strict=True) if not is_alone]
        mask = self._passing(of_feature)
        if n_rows == 0 or (mask is not None and not mask.any()):
            return
        condition = all_of(late)
        needed = names_in(late).union(wanted)
        cells = [name for name in self._columns if name in needed]
        left = n_rows
        early = reduce(and_, terms.early) if terms.early else None
        for metadata, groups, positions in self._scan.places(early, cells):
            start = 0
            while start < groups.size:
                most = min(_UNITS, batch_size or _UNITS, _UNITS if left is None or late else left)
                lies = (part[start : start + _ROWS].astype(np.int64).view(np.uint8) for part in (groups, positions))
                count, units = _core.codes_at(self._snapshot, self._site, *lies, mask, most)
                batch = self._batch(pl.DataFrame(units), metadata.slice(start, count), cells)
                start += count
                if condition is not None:
                    passed = passing(batch, condition)
                    batch = as_frame([taken(series, passed) for series in batch.get_columns()])
                if left is not None:
                    batch = batch.head(left)
                    left -= batch.height
                # not select(): Polars would make a query of its own of it
                yield batch if batch.columns == wanted else batch[wanted]
                if left == 0:
                    return

    def _passing(self, terms: list[pl.Expr]) -> np.ndarray | None:
        """Which features satisfy all terms, a byte each; None for all."""
        condition = all_of(terms)
        if condition is None:
            return None
        mask = np.zeros(self._width, np.uint8)
        mask[passing(pl.DataFrame({"feature": np.arange(self._width)}), condition)] = 1
        return mask

    def _batch(self, units: pl.DataFrame, metadata: pl.DataFrame, cells: list[str]) -> pl.DataFrame:
        at = units["at"].to_numpy()
        return as_frame([taken(metadata[name], at) for name in cells] + [units["feature"], units["value"]])
