"""A part of a checkpoint that leaves a run: its state, with tensors that are read block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.interchange.checkpoint_parts import BLOCK, Piecewise
from lamina.runs.rebuilt import put_together
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    from lamina.runs import Run


class _Stored(Piecewise):
    """A tensor that stands in a run, in the place where loading would put it."""

    def numpy(self) -> _Stored:
        """What stands for an array."""
        return self


def state_of(run: Run, step: int, part: str) -> Any:
    """The state of a part, with `Piecewise` for each tensor.

    Where tensors are more than their bytes (views of others, parameters, an order of their own) it is as it loads.
    """
    saved = run._saved
    (one,) = saved.at(step, part).values()
    tree, scalars, _ = saved.snapshot.part(step, part)
    tensors = [
        _Stored(spec.name, spec.dtype, tuple(spec.shape), _blocks(run, step, part, at, spec.bytes))
        for at, spec in enumerate(saved.tensors(one))
    ]
    try:
        return put_together(tree, scalars, tensors)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return run.load(step, part=part)


def _blocks(run: Run, step: int, part: str, number: int, size: int) -> Callable[[], Iterator[np.ndarray]]:
    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, size, BLOCK):
            block = np.empty(min(BLOCK, size - start), np.uint8)
            wanted = [(step, number, start, block)]
            for _, error in run._saved.snapshot.stretches(part, wanted, available_threads()):
                raise error
            yield block

    return blocks
