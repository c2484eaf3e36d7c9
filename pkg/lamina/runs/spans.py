"""Steps and row names as spans that hold both ends, as the core takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.steps import Steps, check_steps, has_step, plain_steps

Span = tuple[int, int]

_INT64 = np.iinfo(np.int64)


def spans_of_steps(wanted: Steps, known: list[int]) -> list[Span]:
    """The steps that are asked for; none if all are.

    Args:
        wanted: As everywhere: a step, several, or a slice.
        known: The steps at which something was recorded.

    Raises:
        NotFoundError: A step that is named is not known.
    """
    wanted = plain_steps(wanted)
    if wanted is None:
        return []
    check_steps(wanted, set(known))
    if isinstance(wanted, slice) and (wanted.step or 1) == 1:
        first = _INT64.min if wanted.start is None else wanted.start
        last = _INT64.max if wanted.stop is None else wanted.stop - 1
        if first > last:
            raise SchemaError(f"a slice of steps from {first} to {last + 1}", hint="it holds no step")
        return [(int(first), int(last))]
    return _joined((step, step) for step in known if has_step(wanted, step))


def spans_of_rows(names: Any) -> list[Span]:
    """Names of rows; none if all are asked for (None).

    Raises:
        SchemaError: They are no integers, or there are none.
    """
    if names is None:
        return []
    ranges = [names] if isinstance(names, range) else names
    if isinstance(ranges, list) and all(isinstance(one, range) and one.step == 1 for one in ranges) and any(ranges):
        # all that a writer wrote, say: too many to list
        return _joined(sorted((one.start, one.stop - 1) for one in ranges if one))
    given = np.asarray(names).reshape(-1)
    if not given.size:
        raise SchemaError("rows= holds no row", hint="leave it out to delete all rows of the sites or steps")
    if given.dtype.kind not in "iu":
        raise SchemaError(f"the names of rows are {given.dtype}", hint="give integers, as in the column `row`")
    return _joined((name, name) for name in np.unique(given).tolist())


def _joined(ascending: Iterable[Span]) -> list[Span]:
    """The same with overlaps and neighbors in one span."""
    spans: list[Span] = []
    for first, last in ascending:
        if spans and first <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    return spans
