"""What a run answers about its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import polars as pl

from lamina import _core
from lamina.errors import NotFoundError, SchemaError
from lamina.rows import Rows
from lamina.runs import frames, globs, parameters, preshuffled
from lamina.runs.checkpointed import Checkpointed
from lamina.runs.chosen_units import ChosenUnits
from lamina.runs.conditions import check_condition
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.scan import Scan
from lamina.runs.separable import is_separable
from lamina.runs.steps import Steps, plain_steps
from lamina.runs.stored import StoredRows
from lamina.runs.stored_codes import StoredCodes, chosen


class Recorded(Checkpointed):
    """A run, as far as its rows go: their sites and steps, frames of them, and matrices."""

    def steps(self) -> list[int]:
        """The steps at which rows were recorded, ascending."""
        return list(self._wide.steps)

    def sites(self) -> pl.DataFrame:
        """One row a site: site, kind, dtype, shape (of an item), rows, steps, bytes, non_finite (values)."""
        return frames.sites(self._snapshot, self._wide.steps_of)

    def activations(
        self,
        sites: str | Sequence[str] | None = None,
        *,
        step: Steps = None,
        source: str | Sequence[str] | None = None,
        bits: bool = False,
    ) -> pl.LazyFrame:
        """The wide frame: `row`, the metadata columns, then one column a site.

        Rows that hold none of the selected sites are left out; a site that a row does not have is null. Rows of
        one writer stand together: sort by step where order matters. A filter on metadata reads no vectors. A site that
        was attached to rows later shows beside those that they were made with.

        Args:
            sites: Globs or names (`*` is one component, `**` any number); all by default.
            step: A step, several, or a slice of steps.
            source: A source, or several: "train", a probe's name, "capture".
            bits: Show bf16 as UInt16 and 8-bit floats as UInt8, their bits; by default they widen to Float32, exactly.

        Raises:
            NotFoundError: No site matches, or there are no rows of that step or source; the hint lists the nearest.
        """
        if step is None and source is None and (sites is None or isinstance(sites, str)):
            return self._wide.whole(sites, self._select_dense, bits=bits)
        scan, conditions = self._wide.scan(self._select_dense(sites), step, source, bits=bits)
        return _filtered(scan, conditions)

    def rows(
        self,
        site: str,
        *,
        step: Steps = None,
        source: str | None = None,
        where: pl.Expr | None = None,
        features: Sequence[int] | None = None,
    ) -> Rows:
        """The rows of one site as an (n, d) matrix, lazily.

        The name of a parameter that was not recorded as a site gives its rows (units) in the checkpoint of that step,
        part "model", with `position` their number.

        Args:
            site: The site's name.
            step: A step, several, or a slice of steps.
            source: Which source; needed where the rows come from several.
            where: A Polars expression over the metadata columns, or over the site itself, which is then read. Sparse
                codes are no column: of them it knows the metadata alone.
            features: Of sparse codes: which features come out, in this order; by default all of them. Blocks are dense;
                `rows.codes(size)` gives sparse ones. The units of few features come from the indexes, where these are
                built, and are kept once many rows were asked for.

        Raises:
            NotFoundError: There is no such site, step, or column in `where`; the hint lists the nearest.
            SchemaError: The rows come from several sources and none was chosen, `where` is no condition, or `features`
                are none of the site's.
        """
        known = [name for name, *_ in self._snapshot.sites()]
        if site not in known:
            at = plain_steps(step)
            if source is None and (saved_at := parameters.steps_of(self, site)):
                if not isinstance(at, int) or at not in saved_at:
                    near = nearest_steps(at if isinstance(at, int) else saved_at[-1], saved_at)
                    raise NotFoundError(f"{site!r} is no site, and no tensor of a checkpoint at step={step}", hint=near)
                saved = Rows(parameters.Parameter(self, site, at))
                return saved if where is None else saved.where(where)
            raise NotFoundError(f"no site {site!r}", hint=nearest_names(site, known))
        scan, conditions = self._wide.scan([site], step, source)
        sparse = site in self._wide.sparse
        if features is not None and not sparse:
            raise SchemaError(
                f"features= for {site!r}, which holds no sparse codes", hint="choose columns of its blocks"
            )
        schema = pl.Schema({"row": pl.Int64, **self._wide.columns, **({} if sparse else self._wide.types([site]))})
        if where is not None:
            check_condition(where, schema)
            if not is_separable(where, schema):
                # it compares rows with each other: Polars sees all of them, and says which rows pass
                found = _filtered(scan, [*conditions, where]).select("row").collect()["row"]
                where = pl.col("row").is_in(found.implode())
            conditions = [*conditions, where]
        if source is None and not self._wide.has_one_source:
            sources = _filtered(scan, conditions).select(pl.col("source").unique()).collect()
            if sources.height > 1:
                names = ", ".join(sorted(map(str, sources["source"].to_list())))
                raise SchemaError(
                    f"the rows of {site!r} come from several sources: {names}", hint="choose one with source="
                )
        # joined by `&`, which is taken apart again, so that zones speak of each condition
        selection = scan.selection(reduce(and_, conditions) if conditions else None)
        parts = ((group, None if at is None else at.view(np.uint8)) for group, at in selection)
        return self._stored(site, _core.SiteRows(self._snapshot, site, parts), conditions, features)

    def _stored(
        self, site: str, rows: _core.SiteRows, conditions: list[pl.Expr], features: Sequence[int] | None
    ) -> Rows:
        """Selected rows of a site; the conditions are those that their metadata satisfy."""
        dtype, shape = next((dtype, shape) for name, dtype, shape, *_ in self._snapshot.sites() if name == site)

        def frame() -> pl.LazyFrame:
            return _filtered(self._wide.scan([site], None, None)[0], conditions)

        columns = ["row", *self._wide.columns]
        if site in self._wide.sparse:
            units = ChosenUnits(self._wide.features(site), chosen(features, shape[0]), dtype)
            stored = StoredCodes(units, self._snapshot, rows, dtype, shape[0], frame, columns)
        else:
            in_shuffled_order = preshuffled.is_preshuffled(self.config, site)
            made = (self._snapshot, rows, dtype, math.prod(shape), frame, [*columns, site])
            stored = StoredRows(*made, preshuffled=in_shuffled_order)
        path = str(self.path.resolve())

        def reopen(source: Any) -> tuple[Any, ...]:
            features = source.features if isinstance(source, StoredCodes) else None
            numbers = None if features is None else features.tolist()
            return _reopened, (type(self), path, self._options, site, conditions, source.state(), numbers)

        return Rows(stored, stored=path, reopen=reopen)

    def _restored(
        self,
        site: str,
        conditions: list[pl.Expr],
        state: list[tuple[str, int, int, bytes]],
        features: list[int] | None,
    ) -> Rows:
        """Rows that another process selected."""
        return self._stored(site, _core.SiteRows.restore(self._snapshot, site, state), conditions, features)

    def _select_dense(self, sites: str | Sequence[str] | None) -> set[str]:
        """The sites whose rows are vectors."""
        chosen = self._select(sites)
        dense = chosen - self._wide.sparse.keys()
        if sites is not None and chosen and not dense:
            names = ", ".join(sorted(chosen))
            raise SchemaError(f"{names}: sparse codes are no column", hint="run.features(name) shows them")
        return dense

    def _select(self, sites: str | Sequence[str] | None) -> set[str]:
        known = [name for name, *_ in self._snapshot.sites()]
        return set(known if sites is None else globs.select(sites, known))


def _filtered(scan: Scan, conditions: list[pl.Expr]) -> pl.LazyFrame:
    return scan.frame().filter(*conditions) if conditions else scan.frame()


def _reopened(
    kind: type[Recorded],
    path: str,
    options: dict[str, Any],
    site: str,
    conditions: list[pl.Expr],
    state: list[tuple[str, int, int, bytes]],
    features: list[int] | None = None,
) -> Rows:
    return kind(path, **options)._restored(site, conditions, state, features)
