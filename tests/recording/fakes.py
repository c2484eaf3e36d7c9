"""A run that keeps in memory what the recorder writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl
import torch

from lamina.errors import NotFoundError


@dataclass
class Append:
    sites: dict[str, torch.Tensor]
    step: int
    columns: dict[str, Any]


@dataclass
class FakeWriter:
    """Copies like the real one: what it was given may change as soon as `append` has returned."""

    appends: list[Append] = field(default_factory=list)
    logs: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    metrics: list[tuple[int, str, str | None, float]] = field(default_factory=list)
    saves: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    closed: bool = False
    error: str | None = None

    def append(self, sites: dict[str, Any], *, step: int, **columns: Any) -> None:
        copies = {name: torch.as_tensor(value).detach().clone() for name, value in sites.items()}
        self.appends.append(Append(copies, step, {name: _plain(column) for name, column in columns.items()}))

    def log(self, metrics: dict[str, Any], *, step: int, site: list[str] | None = None) -> None:
        self.logs.append((metrics, step))
        for name, value in metrics.items():
            values = value.tolist() if site is not None else [float(value)]
            for place, one in zip(site or [None], values, strict=True):
                self.metrics.append((step, name, place, one))

    def save(self, parts: dict[str, Any], *, step: int) -> None:
        self.saves.append((step, {name: _clone(part) for name, part in parts.items()}))

    def close(self, error: str | None = None) -> None:
        self.closed, self.error = True, error

    def __enter__(self) -> FakeWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(error=None if error is None else repr(error))


class FakeRun:
    name = "fake"

    def __init__(self, stored: pl.DataFrame | None = None) -> None:
        self.written = FakeWriter()
        self.stored = pl.DataFrame() if stored is None else stored
        self.refreshed = 0

    def writer(self, rank: int | None = None) -> FakeWriter:
        return self.written

    def refresh(self) -> FakeRun:
        self.refreshed += 1
        return self

    def steps(self) -> list[int]:
        return [] if self.stored.is_empty() else self.stored["step"].unique().sort().to_list()

    def activations(self, sites: object = None) -> pl.LazyFrame:
        if self.stored.is_empty():
            raise NotFoundError("no site")
        return self.stored.lazy()

    def checkpoints(self) -> pl.LazyFrame:
        rows = [(step, part) for step, parts in self.written.saves for part in parts]
        return pl.LazyFrame(rows, schema={"step": pl.Int64, "part": pl.String}, orient="row")

    def load(self, *, step: int, part: str) -> dict[str, torch.Tensor]:
        return dict(self.written.saves)[step][part]

    def values(self, site: str, source: str = "train") -> dict[int, torch.Tensor]:
        """Return the rows of a site by step."""
        found: dict[int, list[torch.Tensor]] = {}
        for append in self.written.appends:
            if site in append.sites and append.columns.get("source") == source:
                found.setdefault(append.step, []).append(append.sites[site])
        return {step: torch.cat(parts) for step, parts in found.items()}

    def metric(self, name: str, site: str | None = None) -> dict[int, float]:
        """Return a metric's values by step; each step has one."""
        found = [(step, value) for step, one, place, value in self.written.metrics if (one, place) == (name, site)]
        assert len(dict(found)) == len(found)
        return dict(found)

    def columns(self, site: str, source: str = "train") -> list[dict[str, Any]]:
        """Return the columns of each append that holds a site."""
        return [
            {name: column for name, column in append.columns.items() if name != "source"}
            for append in self.written.appends
            if site in append.sites and append.columns.get("source") == source
        ]


def fake_run(stored: pl.DataFrame | None = None) -> Any:
    """Return a fake, typed as what it stands for."""
    return FakeRun(stored)


def _plain(column: Any) -> Any:
    return column.tolist() if hasattr(column, "tolist") else column


def _clone(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _clone(value) for key, value in state.items()}
    return state
