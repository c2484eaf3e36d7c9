"""Which rows are left of a site at each step, and what tells them from others: their names."""

from __future__ import annotations

from functools import reduce
from hashlib import blake2b
from operator import and_

import numpy as np
import polars as pl

from lamina import _core
from lamina.errors import SchemaError
from lamina.runs import Run
from lamina.runs.conditions import check_condition
from lamina.runs.separable import is_separable
from lamina.runs.steps import Steps, has_step, step_condition
from lamina.runs.stored import StoredRows
from lamina.sweeps.canonical import digest

_ROWS = 2**22
"""About how many names of rows are held at a time."""

ByStep = list[tuple[int, bytes]]
"""Steps, and a hash of each."""


class Names:
    """Rows of a run, by site and step; sites that were recorded together are looked at together.

    Args:
        run: The run.
        source: As in `Run.rows`.
        where: As in `Run.rows`.
        wanted: Which steps.
    """

    def __init__(self, run: Run, source: str | None, where: pl.Expr | None, wanted: Steps) -> None:
        self._run, self._source, self._where, self._wanted = run, source, where, wanted
        table = run._wide.table
        self._attached = table.sites(table.attached)
        self._hiding = _core.hiding_groups(run._snapshot)
        self._known: dict[bytes, ByStep] = {}

    def identities(self, site: str) -> ByStep:
        """Return the steps at which rows of a site are left, and 16 bytes that other rows have not.

        Raises:
            NotFoundError: The condition names a column that the rows do not have.
            SchemaError: Rows of several sources, or no condition.
        """
        return [(step, self._identity(site, step, names)) for step, names in self._names(site)]

    def _identity(self, site: str, step: int, names: bytes) -> bytes:
        """What lies under a name at a site never changes; unless it was attached, deleted and attached again."""
        hasher = blake2b(f"{self._run.id} {site} ".encode(), digest_size=16)
        if site in self._attached:
            source = self._run.rows(site, step=step, source=self._source, where=self._where).source
            assert isinstance(source, StoredRows)
            hasher.update(digest(source.state()))
        hasher.update(names)
        return hasher.digest()

    def _names(self, site: str) -> ByStep:
        run, where = self._run, self._where
        schema = pl.Schema({"row": pl.Int64, **run._wide.columns, **run._wide.types([site])})
        if where is not None:
            check_condition(where, schema)
        groups = run._wide.table.with_sites([site])
        looks_at_it = where is not None and site in where.meta.root_names()
        if looks_at_it or site in self._attached or groups[self._hiding].any():
            return self._found(site, schema)
        key = np.packbits(groups).tobytes()
        if key not in self._known:
            self._known[key] = self._found(site, schema)
        return self._known[key]

    def _found(self, site: str, schema: pl.Schema) -> ByStep:
        run, where = self._run, self._where
        steps = sorted(run._wide.steps_of([site]))
        if self._wanted is not None:
            steps = [step for step in steps if has_step(self._wanted, step)]
        if where is not None and not is_separable(where, schema):
            # it compares rows with each other: those of a step, as `Run.rows` has it
            each = ((step, run.rows(site, step=step, source=self._source, where=where).ids) for step in steps)
            return [(step, _hash(np.sort(names))) for step, names in each if names.size]
        rows = next(count for name, _, _, count, *_ in run._snapshot.sites() if name == site)
        at_once = max(1, _ROWS * len(steps) // max(rows, 1))
        parts = (self._read(site, steps[first : first + at_once]) for first in range(0, len(steps), at_once))
        return [one for part in parts for one in part]

    def _read(self, site: str, steps: list[int]) -> ByStep:
        frame = self._run.activations(site)
        has_source = "source" in frame.collect_schema()
        if self._source is not None and not has_source:
            return []
        conditions = [step_condition(steps)]
        conditions += [] if self._source is None else [pl.col("source") == self._source]
        conditions += [] if self._where is None else [self._where]
        frame = frame.filter(reduce(and_, conditions))
        if self._source is None and not self._run._wide.has_one_source:
            _check_sources(frame, site)
        found = frame.select("step", "row").collect()
        at, names = (found[name].to_numpy() for name in ("step", "row"))
        if not ((at[1:] > at[:-1]) | ((at[1:] == at[:-1]) & (names[1:] > names[:-1]))).all():
            order = np.lexsort([names, at])
            at, names = at[order], names[order]
        ends = [*(np.flatnonzero(at[1:] != at[:-1]) + 1).tolist(), at.size] if at.size else []
        begins = [0, *ends[:-1]]
        return [(int(at[begin]), _hash(names[begin:end])) for begin, end in zip(begins, ends, strict=False)]


def _hash(names: np.ndarray) -> bytes:
    return blake2b(names.tobytes(), digest_size=16).digest()


def _check_sources(frame: pl.LazyFrame, site: str) -> None:
    """Raise SchemaError if the rows of a step come from several sources."""
    for (step,), part in frame.select("step", "source").unique().sort("step").collect().group_by("step"):
        if part.height > 1:
            names = ", ".join(sorted(map(str, part["source"].to_list())))
            raise SchemaError(
                f"the rows of {site!r} at step {step} come from several sources: {names}",
                hint="choose one with source=",
            )
