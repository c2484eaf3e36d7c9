"""Sweeps as a report makes them: what cannot be measured is left out, and what cannot be kept is computed anew."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina.errors import LaminaWarning, NotFoundError, StorageError

if TYPE_CHECKING:
    from lamina.measures import Estimate
    from lamina.runs import Run


def swept(measure: Callable[..., Estimate], runs: list[Run], **options: Any) -> pl.DataFrame | None:
    """Return what `lamina.sweep` does, with nulls where there is no value, or None if there is nothing to measure.

    What was measured once is kept in the runs, unless they are for reading only.
    """
    from lamina import sweep

    sweeping = partial(sweep, measure, runs, errors="null", **options)
    with warnings.catch_warnings():
        # The pictures say what has no value.
        warnings.simplefilter("ignore", LaminaWarning)
        try:
            return sweeping()
        except StorageError:
            return sweeping(cache=False)
        except NotFoundError:
            return None
