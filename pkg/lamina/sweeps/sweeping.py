"""A measure over runs, sites and steps, as a frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from lamina.measures import Estimate
from lamina.measures.tidy import frame_of_all
from lamina.runs import Run, Runs
from lamina.runs.steps import Steps
from lamina.sweeps.estimating import Measured, estimates
from lamina.sweeps.executors import Executor
from lamina.sweeps.pairs import Pairs

if TYPE_CHECKING:
    import torch

_COLUMNS = {
    "run_a": pl.String,
    "site_a": pl.String,
    "step_a": pl.Int64,
    "run_b": pl.String,
    "site_b": pl.String,
    "step_b": pl.Int64,
}


def sweep(
    measure: Callable[..., Estimate],
    runs: Run | Runs | str | Path | Sequence[str | Path | Run],
    *,
    sites: str | Sequence[str] | None = None,
    steps: Steps = None,
    where: pl.Expr | None = None,
    source: str | None = None,
    labels: Any = None,
    pairs: Pairs | None = None,
    model: Callable[[Run], torch.nn.Module] | None = None,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    cache: bool | str | Path = True,
    errors: Literal["raise", "null"] = "raise",
    progress: bool = True,
) -> pl.DataFrame:
    """Apply a measure to sites at steps of runs, or to pairs of them, and keep what it gives.

    What was computed once is not computed again: estimates are kept in the run (in the first one's, of a pair), by the
    content of the rows, the measure's code and its options. Rows that were recorded, deleted or rewound since, labels
    that changed, or an edit of the measure lead to a new computation; compacting a run does not. A sweep that is
    interrupted goes on where it was.

    Args:
        measure: A measure (`lamina.list_measures()`), or a function that returns an `Estimate`: of rows, of two rows,
            or of rows and `labels`.
        runs: A run, several, their paths, or a glob of them.
        sites: Globs or names of sites; all by default. A glob that matches no site is matched with the tensors of the
            checkpoints' part "model", whose rows are units.
        steps: A step, several, or a slice; all at which there is something by default.
        where: As in `Run.rows`: a condition on the metadata of rows.
        source: As in `Run.rows`; needed where a site's rows come from several.
        labels: For a measure that takes labels: a column of the rows or of the run's examples, or a label a row.
        pairs: For a measure that compares: `"same-step"` (the default: sites of a run at a step), `"same-site"` (steps
            of a site of a run), `"same-site-across-runs"` (runs at a site and step), `"all"` (the default for models),
            or a function of two subjects, which have `run`, `site` and `step`. A symmetric measure is computed once a
            pair, others in both directions.
        model: For a measure that takes models: makes the model of a run, into which the weights of each checkpoint go.
        seed: The measure's seed.
        options: Further arguments of the measure, such as `{"groups": "topic"}`.
        executor: None computes here, "processes" in several processes, "ray" on a Ray cluster, or a local Ray if there
            is none: the same bits, on processors of one kind. A worker that dies is replaced and named in a warning.
        cache: True keeps estimates in the folder `cache` of the run, a path in that folder (for runs that are for
            reading only), False nowhere.
        errors: `"raise"`, or `"null"`: cells whose measure raises a `LaminaError` have no value, and a warning counts
            them; damage is raised all the same.
        progress: Whether to show a bar on a terminal.

    Returns:
        A row for each number of each cell: run_a, site_a, step_a, run_b, site_b, step_b (null for a measure that takes
        one), measure, options (JSON), part ("value", or the labels along an array's axes), estimator, value, unit,
        stderr (null where there is none), n, n_groups, dropped (JSON), seed. By run, site and step, as they were
        recorded.

    Raises:
        NotFoundError: No such site, step, source or column, or no pair.
        SchemaError: An option does not fit the measure, or the measure does not fit the rows; the message then names
            the run, site and step.
        StorageError: The run is for reading only; `cache=` names another folder.
        WorkerError: Workers died at a cell again and again, or a cell cannot be sent to them.
        MissingExtraError: Ray is not installed.

    Cost: a cell that is kept less than a millisecond, after a few milliseconds for each run and site. Others what the
        measure costs.

    Example:
        >>> import lamina, tempfile, torch
        >>> from lamina import geometry
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     for step in range(2):
        ...         rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(step))
        ...         ticket = writer.append({"mlp.output": rows}, step=step, example=range(200))
        >>> frame = lamina.sweep(geometry.twonn, run.refresh(), seed=0, progress=False)
        >>> frame.select("site_a", "step_a", "measure", "n").rows()
        [('mlp.output', 0, 'twonn', 200), ('mlp.output', 1, 'twonn', 200)]
    """
    found = estimates(
        measure,
        runs,
        sites=sites,
        steps=steps,
        where=where,
        source=source,
        labels=labels,
        pairs=pairs,
        model=model,
        seed=seed,
        options=options,
        executor=executor,
        cache=cache,
        errors=errors,
        progress=progress,
    )
    nothing = Estimate(measure.__name__, math.nan, math.nan)
    rows = ((_sides(each), each.estimate or nothing) for each in found)
    return frame_of_all(rows, _COLUMNS).with_columns(pl.col("value", "stderr").fill_nan(None))


def _sides(each: Measured) -> dict[str, Any]:
    """Return run, site and step of both, those of the second null if there is none."""
    sides = {"a": each.a, "b": each.b}
    return {
        f"{name}_{side}": subject and getattr(subject, name)
        for side, subject in sides.items()
        for name in ("run", "site", "step")
    }
