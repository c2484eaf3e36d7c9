"""Named faults: what a test must notice if it is worth having.

A fault is a function that breaks the product through a monkeypatch; the product itself has no hooks for it.
A test proves itself by failing under its fault:

    with broken("gram_drops_the_last_tile"), pytest.raises(AssertionError):
        test_the_blocked_form_equals_the_reference()

Add a fault by adding a decorated function to the file of its room; import what it patches inside it, so that
all of them stay light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

Fault = Callable[[pytest.MonkeyPatch], None]

FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Register a fault under the name of its function."""
    assert function.__name__ not in FAULTS, f"two faults are named {function.__name__}"
    FAULTS[function.__name__] = function
    return function


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break the product as the fault `name` says, and mend it on exit."""
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name](patch)
        yield
