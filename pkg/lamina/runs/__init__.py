"""Runs: the face over the store."""

from __future__ import annotations

from lamina.runs.collection import Runs, open_runs
from lamina.runs.merging import merge
from lamina.runs.opened import Problem
from lamina.runs.run import Run, open  # noqa: A004 - the face's name
from lamina.runs.status import RunStatus, WriterStatus
from lamina.runs.writer import Writer

__all__ = [
    "Problem",
    "Run",
    "RunStatus",
    "Runs",
    "Writer",
    "WriterStatus",
    "merge",
    "open",
    "open_runs",
]
