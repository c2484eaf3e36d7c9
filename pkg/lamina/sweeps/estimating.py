"""The estimates of a sweep: what is kept is looked up, the rest is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lamina.errors import DamagedError, LaminaError, LaminaWarning, SchemaError
from lamina.measures import Estimate
from lamina.progress import track
from lamina.runs import Run, Runs, open_runs
from lamina.runs.steps import Steps
from lamina.sweeps.canonical import NotCanonicalError, digest
from lamina.sweeps.cells import Cell
from lamina.sweeps.code import fingerprint
from lamina.sweeps.computing import computed
from lamina.sweeps.examples import examples_read
from lamina.sweeps.executors import Executor
from lamina.sweeps.kept import Kept
from lamina.sweeps.models import models
from lamina.sweeps.pairs import Pairs, paired
from lamina.sweeps.records import of_text, to_text
from lamina.sweeps.subjects import Subject, subjects
from lamina.sweeps.taking import Taken, taken

if TYPE_CHECKING:
    import polars as pl
    import torch


class Measured(NamedTuple):
    """An estimate and what it is of.

    Attributes:
        a: What was measured.
        b: What it was compared with; None if a measure takes one.
        estimate: The estimate; None if there is none, which only `errors="null"` lets pass.
    """

    a: Subject
    b: Subject | None
    estimate: Estimate | None


def estimates(
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
) -> list[Measured]:
    """Return the estimates that a sweep makes its frame of: those on the same examples subtract and average.

    Arguments, errors and cost are those of `lamina.sweep`.

    Example:
        >>> import lamina, tempfile, torch
        >>> from lamina import sweeps, geometry
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     for step in range(2):
        ...         rows = torch.randn(200, 3 - step, generator=torch.Generator().manual_seed(step))
        ...         ticket = writer.append({f"layers.{step}.output": rows}, step=0, example=range(200))
        >>> wide, narrow = (each.estimate for each in sweeps.estimates(geometry.twonn, run.refresh(), progress=False))
        >>> (wide - narrow).value > 2 * (wide - narrow).stderr
        True
    """
    if errors not in ("raise", "null"):
        raise SchemaError(f"errors={errors!r}", hint="it is 'raise' or 'null'")
    called = taken(measure, labels=labels, seed=seed, options=options, models=model is not None, pairs=pairs)
    opened = dict(_runs(runs).items())
    keeps = cache is not False
    if model is not None:
        chosen = models(opened, model, steps=steps, contents=keeps, sites=sites, source=source, where=where)
    else:
        chosen = subjects(opened, sites, steps, source=source, where=where, contents=keeps)
    code = fingerprint(called.function)
    cells = _cells(called, chosen, pairs or ("all" if called.of_models else "same-step"), code, opened, cache)
    kept = Kept(cache, called.name, code, opened)
    try:
        done = {number: known for number, cell in enumerate(cells) if (known := kept.get(cell)) is not None}
        missing = [number for number in range(len(cells)) if number not in done]
        kept.open(cells[number] for number in missing)
        failed: list[LaminaError] = []
        with closing(computed(called, [cells[number] for number in missing], executor, progress)) as outcomes:
            for place, outcome in track(outcomes, called.name, total=len(missing), progress=progress):
                if isinstance(outcome, Estimate):
                    # as it will be read, so that a frame does not tell what was kept from what was not
                    done[missing[place]] = of_text(to_text(outcome))
                    kept.put(cells[missing[place]], outcome)
                elif errors == "null" and isinstance(outcome, LaminaError) and not isinstance(outcome, DamagedError):
                    failed.append(outcome)
                else:
                    raise outcome
    finally:
        kept.close()
    if failed:
        text = f"{len(failed)} of {len(cells)} cells of {called.name} have no value; the first: {failed[0]}"
        warnings.warn(text, LaminaWarning, stacklevel=2)
    sides = [(cell.subjects[0], cell.subjects[1] if called.of_two else None) for cell in cells]
    return [Measured(a, b, done.get(number)) for number, (a, b) in enumerate(sides)]


def _runs(runs: Any) -> Runs:
    if isinstance(runs, Runs):
        return runs
    return open_runs([runs] if isinstance(runs, Run) else runs)


def _cells(
    called: Taken, chosen: list[Subject], pairs: Pairs, code: bytes, runs: dict[str, Run], cache: bool | str | Path
) -> list[Cell]:
    """Return what is to be measured, in order."""
    groups: list[tuple[Subject, ...]] = [(one,) for one in chosen]
    if called.of_two:
        groups = [(chosen[a], chosen[b]) for a, b in paired(chosen, pairs, symmetric=called.symmetric)]
    if cache is False:
        return [Cell.of(group, b"") for group in groups]
    options = {}
    for name, value in called.options.items():
        try:
            options[name] = fingerprint(value) if isinstance(value, FunctionType) else digest(value)
        except NotCanonicalError as error:
            raise SchemaError(
                f"{name} is {error}, which does not say whether it has changed", hint="cache=False keeps nothing"
            ) from None
    beside = digest([called.name, code, options])
    read = {name: examples_read(run, called) for name, run in runs.items()}
    return [Cell.of(group, beside + b"".join(read[one.run] for one in group)) for group in groups]
