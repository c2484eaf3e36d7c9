"""What a snapshot holds of rows: its groups, their steps and sources, and wide frames over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import NotFoundError
from lamina.runs import frames
from lamina.runs.columns import RESERVED_ORDER
from lamina.runs.nearest import nearest_names
from lamina.runs.scan import COLUMN_TYPES, Cells, Group, Scan, site_type
from lamina.runs.steps import Steps, check_steps, has_step, plain_steps, step_condition

if TYPE_CHECKING:
    from lamina._core import Snapshot


class Wide:
    """The rows of one snapshot, with what was read of their metadata."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._cells = Cells(snapshot)

    @cached_property
    def groups(self) -> list[Group]:
        """The row groups in order of their first row, without those that are hidden."""
        return [Group(*group) for group in self._snapshot.groups()]

    @cached_property
    def columns(self) -> dict[str, pl.DataType]:
        """The metadata columns and their types, reserved ones first."""
        declared = {name: COLUMN_TYPES[kind] for name, kind in self._snapshot.columns()}
        order = [name for name in RESERVED_ORDER if name in declared]
        return {name: declared[name] for name in (*order, *(name for name in declared if name not in order))}

    @cached_property
    def _steps_of_groups(self) -> dict[int, frozenset[int]]:
        own = (group for group in self.groups if group.kind != "attached")
        return {group.number: frames.group_steps(self._snapshot, group) for group in own}

    @cached_property
    def steps(self) -> list[int]:
        """The steps at which rows were recorded, ascending."""
        return sorted(set().union(*self._steps_of_groups.values()))

    def steps_of(self, sites: Iterable[str]) -> set[int]:
        """The steps of the rows that have one of the sites."""
        sites = set(sites)
        found: set[int] = set()
        for group in self.groups:
            if group.kind != "attached" and not sites.isdisjoint(group.sites):
                found |= self._steps_of_groups[group.number]
        attached = {name for group in self.groups if group.kind == "attached" for name in group.sites}
        if "step" in self.columns and (attached := attached & sites):
            # their groups know no steps: those of the rows that they are attached to count
            steps = (
                Scan(self._cells, self.types(attached), self.columns, self.groups)
                .frame()
                .select(pl.col("step").unique())
            )
            found.update(steps.collect()["step"].drop_nulls().to_list())
        return found

    def types(self, sites: Iterable[str], *, bits: bool = False) -> dict[str, pl.DataType]:
        """The column types of sites, in order of their declaration."""
        sites = set(sites)
        declared = self._snapshot.sites()
        return {name: site_type(dtype, shape, bits=bits) for name, dtype, shape, *_ in declared if name in sites}

    def scan(
        self, sites: Iterable[str], step: Steps, source: str | Sequence[str] | None, *, bits: bool = False
    ) -> tuple[Scan, list[pl.Expr]]:
        """The wide frame of these sites, and what `step` and `source` ask of its rows."""
        types = self.types(sites, bits=bits)
        groups = self.groups
        step = plain_steps(step)
        if step is not None:
            check_steps(step, self.steps_of(types))
            steps = self._steps_of_groups
            groups = [
                group
                for group in groups
                if group.kind == "attached" or any(has_step(step, known) for known in steps[group.number])
            ]
        conditions = [] if step is None else [step_condition(step)]
        if source is not None:
            wanted = [source] if isinstance(source, str) else list(source)
            self._check_sources(wanted, types)
            conditions.append(pl.col("source").is_in(wanted))
        return Scan(self._cells, types, self.columns, groups, bits=bits), conditions

    def _check_sources(self, wanted: Sequence[str], sites: Iterable[str]) -> None:
        if "source" not in self.columns:
            raise NotFoundError("the rows name no source", hint="leave out source=")
        known = self._sources
        for source in wanted:
            if source not in known:
                raise NotFoundError(f"no rows of the source {source!r}", hint=nearest_names(str(source), sorted(known)))

    @cached_property
    def _sources(self) -> set[str]:
        """The sources of all rows; read only where a group has several."""
        zones = self._cells.zones("source")
        alike = ((zones["least"] == zones["greatest"]) & (zones["nulls"] == 0)).fill_null(False)
        known = set(zones["least"].filter(alike).to_list())
        for group in self.groups:
            if group.kind != "attached" and not alike[group.number]:
                batch = pl.DataFrame(self._snapshot.metadata(group.number, ["source"]))
                known.update(batch["source"].drop_nulls().unique().to_list())
        return known
