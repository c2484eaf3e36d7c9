"""Which steps are asked for: one, several, or a slice."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, Literal

import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.runs.buffers import is_integer
from lamina.runs.nearest import nearest_steps

Steps = int | Sequence[int] | slice | None
"""What `step=` takes."""


def plain_steps(wanted: Any) -> Steps:
    """What was asked for with plain integers, which NumPy's and torch's become."""
    try:
        if isinstance(wanted, slice):
            if wanted.step is not None and index(wanted.step) < 1:
                raise SchemaError(f"a slice of steps with the stride {wanted.step}", hint="give at least 1")
            return slice(*(None if at is None else index(at) for at in (wanted.start, wanted.stop, wanted.step)))
        if wanted is None:
            return None
        if hasattr(wanted, "__index__") and not getattr(wanted, "ndim", 0):
            return index(wanted)
        return [index(step) for step in wanted]
    except TypeError:
        raise SchemaError(f"step={wanted!r}", hint="give an integer, several, or a slice of integers") from None


def plain_step(step: Any) -> int:
    """One step as a plain integer; SchemaError if it is none."""
    if not is_integer(step):
        raise SchemaError(f"the step is {step!r}", hint="give the number of optimizer updates so far, an integer")
    return index(step)


def recorded_step(step: Any) -> int:
    """The step of what is recorded, as a plain integer; SchemaError if it is none, or negative."""
    if (number := plain_step(step)) < 0:
        raise SchemaError(f"the step is {step!r}", hint="step 0 is before the first optimizer update, and the least")
    return number


def checkpoint_step(step: Any) -> int | Literal["last"]:
    """The step of a checkpoint as a plain integer, or "last"; SchemaError if it is neither."""
    if isinstance(step, str):
        if step == "last":
            return "last"
    elif is_integer(step):
        return index(step)
    raise SchemaError(f"step={step!r}", hint='give the step of a checkpoint, an integer, or "last"')


def has_step(wanted: Steps, step: int) -> bool:
    """Whether a step is among those asked for."""
    if isinstance(wanted, slice):
        start, stop, stride = wanted.start, wanted.stop, wanted.step or 1
        after = start is None or step >= start
        return after and (stop is None or step < stop) and (step - (start or 0)) % stride == 0
    return step == wanted if isinstance(wanted, int) else step in (wanted or ())


def step_condition(wanted: Steps) -> pl.Expr:
    """The same as an expression over the column `step`."""
    step = pl.col("step")
    if not isinstance(wanted, slice):
        return step == wanted if isinstance(wanted, int) else step.is_in(list(wanted or ()))
    terms = [(step - (wanted.start or 0)) % (wanted.step or 1) == 0]
    terms += [] if wanted.start is None else [step >= wanted.start]
    terms += [] if wanted.stop is None else [step < wanted.stop]
    return pl.all_horizontal(terms)


def check_steps(wanted: Steps, known: set[int]) -> None:
    """Raise NotFoundError if a step that was named is not there; a slice may be empty."""
    if isinstance(wanted, slice):
        return
    for step in [wanted] if isinstance(wanted, int) else wanted or ():
        if step not in known:
            hint = nearest_steps(step, sorted(known))
            hint += "" if isinstance(wanted, int) else "; a slice takes the steps that there are"
            raise NotFoundError(f"no rows at step {step}", hint=hint)
