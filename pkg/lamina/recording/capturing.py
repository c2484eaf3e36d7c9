"""One pass over data, without training: of the model as it is, or of the checkpoints that a run stores."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import NotFoundError
from lamina.recording.account import Account
from lamina.recording.passes import Data, check_data, record_pass
from lamina.recording.resolve import resolve
from lamina.recording.sites import Sites
from lamina.recording.state import weights
from lamina.recording.taps import Taps
from lamina.runs.nearest import nearest_steps

if TYPE_CHECKING:
    from torch import nn

    from lamina.runs import Run


def capture(
    model: nn.Module,
    run: Run,
    loader: Data,
    *,
    sites: Sites,
    source: str = "capture",
    step: int = 0,
    steps: Iterable[int] | None = None,
    progress: bool = True,
) -> None:
    """Record a model's activations over a data set, in one pass and without training.

    The model runs in evaluation mode and without gradients. Its mode, hooks, weights and the random states are as
    before on exit, also after an exception. Batches are written as they come: memory does not grow with the
    data.

    Args:
        model: Any `torch.nn.Module`.
        run: Where to write, and where `steps=` finds checkpoints.
        loader: A loader, a list of batches, or one batch; see the `probes` of `lamina.record` for what a batch is,
            and for where the rows' `example` comes from.
        sites: A glob, several, or a dict of `Site` by glob, as for `lamina.record`; schedules play no part.
        source: What the rows carry as their `source`.
        step: What the rows carry as their step, if `steps` is None.
        steps: Steps whose checkpoints are loaded into the model one after the other (part "model"); their rows
            carry them as their step.
        progress: False shows no progress bar.

    Raises:
        RecordingError: If a glob matches nothing, a site captured nothing, or there is no batch.
        NotFoundError: If the run holds no checkpoint of one of the steps; nothing is recorded then.

    Example:
        >>> import lamina, tempfile, torch
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> lamina.capture(torch.nn.Linear(4, 2), run, torch.ones(16, 4), sites=["output"], progress=False)
        >>> run.activations("output").collect().height
        16
    """
    check_data("capture", loader)
    taps, account = Taps(model, resolve(model, sites)), Account()
    steps = None if steps is None else list(steps)
    if steps is not None:
        _check_stored(run, steps)
    # The wrapper of a compiled model would put its own name in front of every key.
    inner = getattr(model, "_orig_mod", model)
    with nullcontext() if steps is None else weights(inner), run.writer() as writer, taps:
        for now in [step] if steps is None else steps:
            if steps is not None:
                inner.load_state_dict(run.load(step=now, part="model"))
            record_pass(
                model,
                loader,
                taps=taps,
                due=taps.of_passes,
                account=account,
                writer=writer,
                step=now,
                source=source,
                progress=progress,
                description=f"{source}, step {now}",
            )
        account.close()
    run.refresh()


def _check_stored(run: Run, steps: list[int]) -> None:
    stored = run.checkpoints().select(pl.col("step").unique().sort()).collect()["step"].to_list()
    for step in steps:
        if step not in stored:
            raise NotFoundError(f"there is no checkpoint of step {step}", hint=nearest_steps(step, stored))
