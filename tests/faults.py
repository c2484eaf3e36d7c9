"""Named faults: what a test must notice if it is worth having.

A fault is a function that breaks the product through a monkeypatch; the product itself has no hooks for it.
A test proves itself by failing under its fault:

    with broken("gram_drops_the_last_tile"), pytest.raises(AssertionError):
        test_the_blocked_form_equals_the_reference()

Add a fault by adding a decorated function; import what it patches inside it, so that this module stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


@fault
def gram_drops_the_last_tile(patch: pytest.MonkeyPatch) -> None:
    """A loop over whole tiles only: the remainder of the rows is never summed."""
    from lamina_kernels.gram import blocked

    patch.setattr(
        blocked, "tiles", lambda rows, block: (slice(s, s + block) for s in range(0, rows - block + 1, block))
    )


@fault
def gram_sums_in_the_dtype_of_its_input(patch: pytest.MonkeyPatch) -> None:
    """Sums over rows that are rounded to half precision after every tile."""
    from lamina_kernels.gram import blocked

    patch.setattr(blocked, "accumulation_dtype", lambda dtype: dtype)


@fault
def gram_forgets_y(patch: pytest.MonkeyPatch) -> None:
    """The second set of rows is taken to be the first."""
    from lamina_kernels.gram import api, blocked

    whole = blocked.linear_product
    patch.setattr(api.blocked, "linear_product", lambda x, v, y, *, block: whole(x, v, x[: len(y)], block=block))


@fault
def thin_mixes_runs(patch: pytest.MonkeyPatch) -> None:
    """Neighboring steps are averaged over all runs at once."""
    from lamina.plot import steps

    whole = steps.thin
    patch.setattr(
        steps,
        "thin",
        lambda frame, by, limit: (
            frame.select(*by).unique().join(whole(frame.with_columns(run=0), ["run"], limit).drop("run"), how="cross")
        ),
    )


@fault
def procrustes_only_turns(patch: pytest.MonkeyPatch) -> None:
    """Pictures are turned towards each other, but never mirrored: an axis may flip between steps."""
    import numpy as np

    from lamina.report import principal

    def turn(points: np.ndarray, target: np.ndarray) -> np.ndarray:
        left, _, right = np.linalg.svd(points.T @ target)
        return left @ np.diag([1.0, np.linalg.det(left @ right)]) @ right

    patch.setattr(principal, "rotation_onto", turn)


@fault
def recorder_keeps_references(patch: pytest.MonkeyPatch) -> None:
    """Captured tensors are not copied: what later changes them in place changes what is stored."""
    from lamina.recording.captured import Collector

    patch.setattr(Collector, "_copy", lambda self, key, value: value)


@fault
def recorder_counts_recomputations(patch: pytest.MonkeyPatch) -> None:
    """A forward pass inside a backward pass is captured like any other."""
    from lamina.recording.taps import _Hook

    patch.setattr(_Hook, "receive", lambda self, value: self._collect(value))


@fault
def probes_draw_random_numbers(patch: pytest.MonkeyPatch) -> None:
    """The random states are not restored behind a probe."""
    from contextlib import nullcontext

    from lamina.recording import passes

    patch.setattr(passes, "random_states", lambda *generators: nullcontext())


@fault
def probes_train(patch: pytest.MonkeyPatch) -> None:
    """A probe leaves the model in the mode that it is in: running statistics move, dropout drops."""
    import torch

    from lamina.recording import passes

    patch.setattr(passes, "evaluation", lambda model: torch.no_grad())


@fault
def learnt_forgets_relapses(patch: pytest.MonkeyPatch) -> None:
    """An example counts as learnt from the first step at which its loss is low, whatever follows."""
    import polars as pl

    from lamina.report import learnt

    whole = learnt.learnt_frame

    def first_low(run: Any) -> pl.DataFrame:
        frame = whole(run)
        low = run.activations("loss").filter(pl.col("loss") < frame["threshold"][0]).collect()
        steps = low.group_by("example").agg(learnt=pl.col("step").min())
        return frame.drop("learnt").join(steps, on="example", how="left")

    patch.setattr(learnt, "learnt_frame", first_low)


@fault
def vectors_before_metadata(patch: pytest.MonkeyPatch) -> None:
    """The wide frame fetches vectors first and filters afterwards."""
    from lamina.runs.scan import Scan

    patch.setattr(Scan, "_metadata_conjuncts", lambda self, predicate: None)


@fault
def scan_ignores_the_number_of_rows(patch: pytest.MonkeyPatch) -> None:
    """The wide frame gives every row, however few were asked for."""
    from lamina.runs.scan import Scan

    whole = Scan._batches
    patch.setattr(
        Scan, "_batches", lambda self, columns, predicate, n, size: whole(self, columns, predicate, None, size)
    )


@fault
def ties_are_cut(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint stores every name's tensor apart."""
    from lamina.runs.tree import _Flattener

    patch.setattr(_Flattener, "_tensor", _Flattener._add)


@fault
def rows_ignore_the_order_asked(patch: pytest.MonkeyPatch) -> None:
    """Rows come back in stored order, whatever order was asked for."""
    import numpy as np

    from lamina.runs.stored import StoredRows

    whole = StoredRows.gather
    patch.setattr(StoredRows, "gather", lambda self, positions, out: whole(self, np.sort(positions), out))


@fault
def columns_are_rounded_to_single(patch: pytest.MonkeyPatch) -> None:
    """Floats in metadata lose half of their digits."""
    import numpy as np

    from lamina.runs import columns

    whole = columns._bytes
    patch.setattr(
        columns,
        "_bytes",
        lambda values, dtype: whole(values.astype(np.float32) if dtype is np.float64 else values, dtype),
    )


@fault
def scalars_are_printed_short(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint's floats are stored with six digits."""
    from lamina.runs import tree

    whole = tree._scalar
    patch.setattr(tree, "_scalar", lambda value: whole(float(f"{value:.6g}") if isinstance(value, float) else value))


@fault
def examples_keep_what_came_first(patch: pytest.MonkeyPatch) -> None:
    """Of an example that is written again, the first value stays."""
    import polars as pl

    whole = pl.DataFrame.unique
    patch.setattr(
        pl.DataFrame, "unique", lambda self, *keys, **options: whole(self, *keys, **options | {"keep": "first"})
    )
