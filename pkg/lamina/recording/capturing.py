"""One pass over data, without training: of the model as it is, or of the checkpoints that a run stores."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import NotFoundError, RecordingError
from lamina.modules.sharded import load
from lamina.modules.wrappers import unwrapped
from lamina.recording.account import Account
from lamina.recording.passes import Data, check_data, record_pass
from lamina.recording.ranks import own_rank
from lamina.recording.resolve import check_run, resolve
from lamina.recording.resuming import Recorded
from lamina.recording.sites import Sites
from lamina.recording.state import weights
from lamina.recording.watching import Taps
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
    mask: str | None = None,
    attention: Iterable[str] = (),
    resume: bool = False,
    progress: bool = True,
) -> None:
    """Record a model's activations over a data set, in one pass and without training.

    The model runs in evaluation mode and without gradients. Its mode, hooks, weights and the random states are as
    before on exit, also after an exception. Batches are written as they come: memory does not grow with the
    data. What was written when the pass is interrupted stays, and `resume=True` goes on behind it.

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
        mask: The entry of the batches (mappings) that is true for what is no padding, such as `"attention_mask"`: rows
            where it is false are dropped. The model gets it too.
        attention: Statistics of the model's attention, as for `lamina.record`.
        resume: Go on behind what an interrupted call with the same arguments has recorded: batches whose examples
            are there are left out, the last of them, which may be there in part, is recorded again. Of several ranks
            each goes on behind its own rows: with as many ranks, and loaders that divide the data in the same way.
        progress: False shows no progress bar.

    Raises:
        RecordingError: If a glob matches nothing, a site captured nothing, there is no batch, or the run holds rows of
            that step and source already and `resume` is not asked for.
        NotFoundError: If the run holds no checkpoint of one of the steps; nothing is recorded then.

    Example:
        >>> import lamina, tempfile, torch
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> lamina.capture(torch.nn.Linear(4, 2), run, torch.ones(16, 4), sites=["output"], progress=False)
        >>> run.activations("output").collect().height
        16
    """
    check_run(run)
    check_data("capture", loader)
    resolved = resolve(model, sites)
    taps, account = Taps(model, resolved, attention=attention), Account()
    _check_sites(taps)
    asked = [step] if steps is None else list(steps)
    # Another rank, or program, may have saved what this one has not seen.
    run.refresh()
    if steps is not None:
        _check_stored(run, asked)
    recorded = Recorded(run, [tap.site.name for tap in taps], source)
    if not resume:
        recorded.refuse(source, asked)
    # A wrapper would put its own name in front of every key.
    inner = unwrapped(model)
    with nullcontext() if steps is None else weights(inner), run.writer(rank=own_rank()) as writer, taps:
        for now in asked:
            if steps is not None:
                load(inner, run.load(step=now, part="model"))
            record_pass(
                model,
                loader,
                taps=taps,
                due=taps.of_passes,
                account=account,
                writer=writer,
                step=now,
                source=source,
                mask=mask,
                skips=partial(recorded.skips, now) if len(recorded) else None,
                progress=progress,
                description=f"{source}, step {now}",
            )
        account.close()
    run.refresh()


def _check_sites(taps: Taps) -> None:
    for tap in taps:
        if tap not in taps.of_passes:
            raise RecordingError(
                f"the site {tap.site.name!r} is none of a forward pass alone",
                hint="gradients are recorded by lamina.record; parameters of stored steps by run.tensor",
            )


def _check_stored(run: Run, steps: list[int]) -> None:
    stored = run.checkpoints().filter(part="model").select(pl.col("step").unique().sort()).collect()["step"].to_list()
    for step in steps:
        if step not in stored:
            raise NotFoundError(f"there is no checkpoint of step {step}", hint=nearest_steps(step, stored))
