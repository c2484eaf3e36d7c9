"""What a snapshot holds of rows: its groups, their steps and sources, and wide frames over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.errors import NotFoundError
from lamina.runs.columns import RESERVED_ORDER
from lamina.runs.group_table import GroupTable
from lamina.runs.nearest import nearest_names
from lamina.runs.scan import COLUMN_TYPES, Cells, Features, Group, Scan, site_type
from lamina.runs.steps import Steps, check_steps, plain_steps, step_condition

if TYPE_CHECKING:
    from pathlib import Path

    from lamina._core import Snapshot


_FRAMES = 16
"""How many frames are remembered."""


class Wide:
    """The rows of one snapshot, with what was read of their metadata."""

    def __init__(self, snapshot: Snapshot, path: Path) -> None:
        self._snapshot, self._path = snapshot, path
        self._cells = Cells(snapshot)
        self._frames: dict[tuple[str | None, bool], pl.LazyFrame] = {}
        self._features: dict[str, Features] = {}

    def whole(
        self, sites: str | None, select: Callable[[str | None], Iterable[str]], *, bits: bool = False
    ) -> pl.LazyFrame:
        """The wide frame of the sites that `select` finds, at all steps; the same one when it is asked for again."""
        frame = self._frames.get((sites, bits))
        if frame is None:
            if len(self._frames) >= _FRAMES:
                self._frames.clear()
            frame = self._frames[sites, bits] = self.scan(select(sites), None, None, bits=bits)[0].frame()
        return frame

    @cached_property
    def table(self) -> GroupTable:
        """The row groups, without those that are hidden."""
        return GroupTable(self._snapshot)

    @cached_property
    def _all(self) -> list[Group]:
        return self.table.groups(np.ones(len(self.table), dtype=bool))

    @cached_property
    def columns(self) -> dict[str, pl.DataType]:
        """The metadata columns and their types, reserved ones first."""
        declared = {name: COLUMN_TYPES[kind] for name, kind in self._snapshot.columns()}
        order = [name for name in RESERVED_ORDER if name in declared]
        return {name: declared[name] for name in (*order, *(name for name in declared if name not in order))}

    @cached_property
    def steps(self) -> list[int]:
        """The steps at which rows were recorded, ascending."""
        return sorted(self.table.steps(~self.table.attached))

    def steps_of(self, sites: Iterable[str]) -> set[int]:
        """The steps of the rows that have one of the sites."""
        sites, table = set(sites), self.table
        found = table.steps(table.with_sites(sites), sites)
        attached = table.sites(table.attached)
        if "step" in self.columns and (attached := attached & sites):
            # their groups know no steps: those of the rows that they are attached to count
            steps = (
                Scan(self._cells, self.types(attached), self.columns, self._all).frame().select(pl.col("step").unique())
            )
            found.update(steps.collect()["step"].drop_nulls().to_list())
        return found

    def types(self, sites: Iterable[str], *, bits: bool = False) -> dict[str, pl.DataType]:
        """The column types of sites, in order of their declaration."""
        sites = set(sites)
        declared = self._snapshot.sites()
        return {name: site_type(dtype, shape, bits=bits) for name, dtype, shape, *_ in declared if name in sites}

    @cached_property
    def sparse(self) -> dict[str, int]:
        """The sites of sparse codes, and how many features each has."""
        return {name: shape[0] for name, _, shape, *_, sparse in self._snapshot.sites() if sparse}

    def features(self, site: str) -> Features:
        """The long frame of a site of sparse codes; the same one when it is asked for again."""
        if site not in self._features:
            self._features[site] = self._made(site)
        return self._features[site]

    def _made(self, site: str) -> Features:
        dtype, (width,) = next((dtype, shape) for name, dtype, shape, *_ in self._snapshot.sites() if name == site)
        scan = Scan(self._cells, self.types([site]), self.columns, self._all)
        return Features(self._snapshot, self._path, scan, site, site_type(dtype, ()), width, self.columns)

    def scan(
        self, sites: Iterable[str], step: Steps, source: str | Sequence[str] | None, *, bits: bool = False
    ) -> tuple[Scan, list[pl.Expr]]:
        """The wide frame of these sites, and what `step` and `source` ask of its rows."""
        types = self.types(sites, bits=bits)
        step = plain_steps(step)
        condition = self.condition(step, types)
        groups = self._all
        if step is not None:
            groups = self.table.groups(self.table.with_steps(step) | self.table.attached)
        conditions = [] if condition is None else [condition]
        if source is not None:
            wanted = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else [source]
            self._check_sources(wanted, types)
            conditions.append(pl.col("source").is_in(wanted))
        return Scan(self._cells, types, self.columns, groups, bits=bits), conditions

    def condition(self, step: Steps, sites: Iterable[str]) -> pl.Expr | None:
        """What `step` asks of rows; it must be a step of rows that have one of the sites."""
        step = plain_steps(step)
        if step is None:
            return None
        check_steps(step, self.steps_of(sites))
        return step_condition(step)

    def _check_sources(self, wanted: Sequence[str], sites: Iterable[str]) -> None:
        if "source" not in self.columns:
            raise NotFoundError("the rows name no source", hint="leave out source=")
        known = self._sources
        for source in wanted:
            if source not in known:
                raise NotFoundError(f"no rows of the source {source!r}", hint=nearest_names(str(source), sorted(known)))

    @cached_property
    def has_one_source(self) -> bool:
        """Whether the groups' records say that all rows have the same source, or none."""
        if "source" not in self.columns:
            return True
        zones, alike = self._sources_of_groups
        own = pl.Series(~self.table.attached)
        return bool((alike | ~own).all()) and zones["least"].filter(own).n_unique() <= 1

    @cached_property
    def _sources_of_groups(self) -> tuple[pl.DataFrame, pl.Series]:
        """What lies in the column `source` of each group, and whether that is one source."""
        zones = self._cells.zones("source")
        return zones, ((zones["least"] == zones["greatest"]) & (zones["nulls"] == 0)).fill_null(False)

    @cached_property
    def _sources(self) -> set[str]:
        """The sources of all rows; read only where a group has several."""
        zones, alike = self._sources_of_groups
        known = set(zones["least"].filter(alike).unique().to_list())
        for number in np.flatnonzero(~alike.to_numpy() & ~self.table.attached).tolist():
            batch = pl.DataFrame(self._snapshot.metadata(number, ["source"]))
            known.update(batch["source"].drop_nulls().unique().to_list())
        return known
