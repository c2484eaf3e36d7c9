"""Lamina records a neural network while it learns, keeps what it recorded, and answers questions about it.

Importing it does not import torch; what needs torch is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lamina import errors
from lamina._core import version as _version
from lamina.errors import LaminaError, LaminaWarning
from lamina.rows import Rows
from lamina.runs import Run, Runs, Writer, merge, open, open_runs  # noqa: A004 - the face's name

if TYPE_CHECKING:
    from lamina import interchange, measures, plot, sweeps
    from lamina.measures import list_measures, summarize
    from lamina.recording import (
        Above,
        Flight,
        NonFinite,
        Numbers,
        Probe,
        Recorder,
        Site,
        Spike,
        Survey,
        capture,
        edit,
        log_then_linear,
        record,
        sites,
    )
    from lamina.sweeps import sweep

__version__ = _version()

_LATER = {
    "Above": "lamina.recording",
    "Flight": "lamina.recording",
    "NonFinite": "lamina.recording",
    "Numbers": "lamina.recording",
    "Probe": "lamina.recording",
    "Recorder": "lamina.recording",
    "Site": "lamina.recording",
    "Spike": "lamina.recording",
    "Survey": "lamina.recording",
    "capture": "lamina.recording",
    "edit": "lamina.recording",
    "list_measures": "lamina.measures",
    "log_then_linear": "lamina.recording",
    "record": "lamina.recording",
    "sites": "lamina.recording",
    "summarize": "lamina.measures",
    "sweep": "lamina.sweeps",
}

_ROOMS = ("interchange", "measures", "plot", "sweeps")

__all__ = [
    "Above",
    "Flight",
    "LaminaError",
    "LaminaWarning",
    "NonFinite",
    "Numbers",
    "Probe",
    "Recorder",
    "Rows",
    "Run",
    "Runs",
    "Site",
    "Spike",
    "Survey",
    "Writer",
    "__version__",
    "capture",
    "edit",
    "errors",
    "interchange",
    "list_measures",
    "log_then_linear",
    "measures",
    "merge",
    "open",
    "open_runs",
    "plot",
    "record",
    "sites",
    "summarize",
    "sweep",
    "sweeps",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"lamina.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
