"""What is at hand of every run that is open."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import polars as pl

from lamina import _core
from lamina.errors import LaminaWarning
from lamina.paths import path_of
from lamina.runs import frames
from lamina.runs import status as statuses
from lamina.runs.saved import Saved
from lamina.runs.wide import Wide


class Problem(NamedTuple):
    """Something found damaged and passed over: what, in which file, at which byte."""

    message: str
    file: str
    offset: int | None


class Opened:
    """A run as it was when it was opened: its status, its configuration, and what was logged.

    Attributes:
        path: The folder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        strict: bool = False,
        io: Literal["auto", "mmap", "pread"] = "auto",
        verify: Literal["first", "always", "never"] = "first",
        hidden: bool = False,
    ) -> None:
        self.path = path_of(path)
        self._options: dict[str, Any] = {"strict": strict, "io": io, "verify": verify, "hidden": hidden}
        self._load()

    def _load(self) -> None:
        self._snapshot = _core.Snapshot(str(self.path), **self._options)
        self._wide = Wide(self._snapshot, self.path)
        self._saved = Saved(self._snapshot)
        self._table: pl.DataFrame | None = None
        for problem in self.problems:
            place = problem.file if problem.offset is None else f"{problem.file}, byte {problem.offset}"
            warnings.warn(f"{self.path}: {problem.message} [{place}]", LaminaWarning, stacklevel=4)

    def __repr__(self) -> str:
        sites = len(self._snapshot.sites())
        return f"Run({str(self.path)!r}, {self.status}, {sites} site{'s' * (sites != 1)})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def id(self) -> str:
        """32 hexadecimal digits that tell this run from every other."""
        return self._snapshot.id

    @property
    def created(self) -> datetime:
        """When the run was created, UTC."""
        return datetime.fromtimestamp(self._snapshot.created / 1e6, UTC)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, as given to `create`."""
        return json.loads(self._snapshot.config)

    @property
    def status(self) -> statuses.RunStatus:
        """Whether the run is empty, running, finished, failed or abandoned, and how each writer stands."""
        return statuses.status(self._snapshot.writers())

    @property
    def problems(self) -> list[Problem]:
        """What was found damaged and passed over, when the run was opened or by `load(strict=False)`."""
        return [Problem(*problem) for problem in (*self._snapshot.problems, *self._saved.passed_over)]

    def refresh(self) -> Self:
        """Opens the run again in place, to see what was written since."""
        self._load()
        return self

    def sources(self) -> pl.DataFrame:
        """One row a run that this one was copied or merged from, and that those were: none for a run that was recorded.

        Columns: run (its name), id, created, config (JSON), writer_shift and row_shift: a writer w and a row r of that
        run are writer w + writer_shift and row r + row_shift here.
        """
        return frames.sources(self._snapshot)

    def metrics(self) -> pl.LazyFrame:
        """One row a logged value: step, time, name, site, source, rank, value; in order of writing."""
        return frames.metrics(self._snapshot)

    def notes(self) -> pl.DataFrame:
        """One row a note (see `Run.note`), in order of time: time, step (null if of none), text."""
        return frames.notes(self._snapshot)

    def examples(self) -> pl.LazyFrame:
        """One row an example (and position): of every column the value that was written last."""
        return self._examples().lazy()

    def _examples(self) -> pl.DataFrame:
        """The same, put together when it is first asked for."""
        if self._table is None:
            table = frames.examples(self._snapshot).collect().rechunk()
            ascends = "example" in table.columns and table["example"].is_sorted()
            self._table = table.with_columns(pl.col("example").set_sorted()) if ascends else table
        return self._table
