"""Models as subjects of a sweep: a factory, and the weights of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from lamina.errors import NotFoundError, SchemaError
from lamina.runs import Run
from lamina.runs.parameters import PART
from lamina.runs.steps import Steps, has_step, plain_steps
from lamina.sweeps.canonical import NotCanonicalError, digest
from lamina.sweeps.code import fingerprint
from lamina.sweeps.subjects import Chosen, Subject, check_steps

if TYPE_CHECKING:
    import torch


def models(
    runs: Mapping[str, Run],
    model: Callable[[Run], torch.nn.Module],
    *,
    steps: Steps = None,
    contents: bool = True,
    **others: Any,
) -> list[Subject]:
    """Return the models of runs at the steps of their checkpoints, whose `contents` may tell them from others.

    Raises:
        NotFoundError: There is no checkpoint of a part "model", or none at a step that was named.
        SchemaError: `model` is no function, sites, a source or a condition are given, or the part holds what cannot be
            told from others by its contents.
    """
    if not isinstance(model, FunctionType):
        raise SchemaError(f"model={model!r}", hint="give a function of a run that makes its model")
    if unused := [name for name, value in others.items() if value is not None]:
        raise SchemaError(f"{unused[0]}= for models, which have none", hint=f"leave {unused[0]}= out")
    wanted, code = plain_steps(steps), fingerprint(model)
    found = [
        Subject(name, None, step, _contents(code, run, step) if contents else b"", Chosen(run, model=model))
        for name, run in runs.items()
        for step in run.saved_steps()
        if wanted is None or has_step(wanted, step)
    ]
    known = {step for run in runs.values() for step in run.saved_steps()}
    check_steps(wanted, known)
    if not found:
        raise NotFoundError(f"no checkpoint with a part {PART!r} in {', '.join(runs)}", hint="see run.checkpoints()")
    return found


def _contents(code: bytes, run: Run, step: int) -> bytes:
    try:
        return digest([code, run.config, run.load(step, part=PART)])
    except NotCanonicalError as error:
        raise SchemaError(
            f"the checkpoint of {run.name} at step {step} holds {error}", hint="cache=False keeps nothing"
        ) from None
