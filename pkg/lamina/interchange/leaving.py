"""What leaves a run: the rows of each site that were asked for, with their metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.interchange.columns import column_types
from lamina.interchange.tensors import as_bits, numpy_dtype, prod
from lamina.runs import globs

if TYPE_CHECKING:
    from lamina.rows import Rows
    from lamina.runs import Run
    from lamina.runs.steps import Steps

BLOCK_BYTES = 16 << 20
"""How many bytes of a site are read at once, if a single row is not larger."""


@dataclass(frozen=True)
class Leaving:
    """The rows of one site.

    Attributes:
        site: Its name.
        dtype: The dtype's name.
        shape: Of one row's item.
        columns: The metadata columns.
    """

    site: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    _parts: tuple[Rows, ...]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def row_bytes(self) -> int:
        """How many bytes a row takes."""
        return numpy_dtype(self.dtype).itemsize * prod(self.shape)

    @cached_property
    def ids(self) -> np.ndarray:
        """The rows' permanent names."""
        return np.concatenate([np.empty(0, np.int64), *(part.ids for part in self._parts)])

    @cached_property
    def metadata(self) -> pl.DataFrame:
        """The metadata of all rows; columns without any value are left out."""
        frame = pl.concat([part.metadata(self.columns) for part in self._parts])
        return frame.select(name for name in frame.columns if frame[name].null_count() < max(len(frame), 1))

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions as [k, *shape]; bf16 and f8 as their bits."""
        return as_bits(self.gather_tensor(positions)).reshape(-1, *self.shape)

    def gather_tensor(self, positions: np.ndarray) -> Any:
        """The same as a torch tensor [k, d] of the dtype itself."""
        if len(self._parts) == 1:
            return self._parts[0].gather(positions)
        import torch

        out = torch.empty((positions.size, prod(self.shape)), dtype=self._parts[0].dtype)
        start = 0
        for part in self._parts:
            inside = np.flatnonzero((positions >= start) & (positions < start + len(part)))
            if inside.size:
                out[torch.from_numpy(inside)] = part.gather(positions[inside] - start)
            start += len(part)
        return out

    def block_rows(self) -> int:
        """How many rows are read at once."""
        return max(1, BLOCK_BYTES // max(1, self.row_bytes))

    def blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Rows `start` to `stop`, in order."""
        step = self.block_rows()
        for first in range(start, stop, step):
            yield self.gather(np.arange(first, min(first + step, stop)))


def leaving(
    run: Run, sites: str | Sequence[str] | None, step: Steps, source: str | Sequence[str] | None, where: pl.Expr | None
) -> list[Leaving]:
    """The sites that were asked for, those without such rows left out.

    Raises:
        NotFoundError: No site matches, or none has rows at that step.
    """
    if not hasattr(run, "activations"):
        raise SchemaError(
            f"the run is a {type(run).__name__}", hint="lamina.open(path) opens one; the target comes second"
        )
    recorded = run.sites()
    dense = recorded.filter(pl.col("kind") != "sparse").select("site", "dtype", "shape")
    known = {name: (dtype, tuple(shape)) for name, dtype, shape in dense.rows()}
    if not known and sites is None:
        raise NotFoundError(f"{run.path} holds no site to export", hint="sparse codes: run.features(name) shows them")
    names = list(known) if sites is None else globs.select(sites, recorded["site"].to_list())
    frame = run.activations(names, step=step, source=source)  # names a step or a source that is not there
    columns = tuple(name for name in frame.collect_schema() if name not in known)
    found = []
    for name in (name for name in names if name in known):
        try:
            parts = _parts(run, name, step, source, where)
        except NotFoundError:
            if len(names) == 1 or (where is not None and not {*where.meta.root_names()} <= {*columns, name}):
                raise
            continue  # this site alone has no rows at that step, or none of that source
        found.append(Leaving(name, *known[name], columns, parts))
    return found


def _parts(
    run: Run, site: str, step: Steps, source: str | Sequence[str] | None, where: pl.Expr | None
) -> tuple[Rows, ...]:
    """The rows of a site, those of each source apart: `run.rows` does not mix them."""
    frame = run.activations(site, step=step, source=source)
    if "source" not in frame.collect_schema():
        return (run.rows(site, step=step, where=where),)
    values = frame.select("source").unique().collect()["source"].sort().to_list() or [None]
    parts = []
    for value in values:
        this = pl.col("source").eq_missing(pl.lit(value, pl.String))
        parts.append(run.rows(site, step=step, where=this if where is None else this & where))
    return tuple(parts)


def share_rows(members: Sequence[Leaving]) -> bool:
    """Whether all sites have the same rows in the same order."""
    return all(np.array_equal(members[0].ids, member.ids) for member in members[1:])


def count_rows(members: Sequence[Leaving]) -> int:
    """How many rows leave, each counted once."""
    if share_rows(members):
        return len(members[0])
    return np.unique(np.concatenate([member.ids for member in members])).size


def about(run: Run, members: Sequence[Leaving]) -> dict[str, str]:
    """What an export says of itself: JSON texts by name."""
    steps: set[int] = set()
    types: dict[str, str] = {}
    for member in members:
        steps.update(member.metadata["step"].unique().to_list() if "step" in member.metadata.columns else [])
        types |= column_types(member.metadata)
    return {
        "lamina": "1",
        "run": run.id,
        "steps": json.dumps(sorted(steps)),
        "sites": json.dumps({member.site: {"dtype": member.dtype, "shape": member.shape} for member in members}),
        "columns": json.dumps(types),
    }
