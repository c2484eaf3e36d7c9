"""Recording around a training loop: what is checked before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lamina.errors import RecordingError
from lamina.modules.sharded import is_divided
from lamina.recording.flight import OWN_PARTS, Flight, Stateful
from lamina.recording.guarded import OnFailure
from lamina.recording.numbers import Numbers
from lamina.recording.parameters import unwrapped
from lamina.recording.passes import Data
from lamina.recording.probes import Probe, Probes
from lamina.recording.ranks import is_replicated
from lamina.recording.recorder import Recorder
from lamina.recording.resolve import check_run, resolve
from lamina.recording.schedules import Every, schedule_of
from lamina.recording.sites import Sites
from lamina.recording.stepping import Stepping

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lamina.runs import Run


def record(
    model: nn.Module,
    run: Run,
    *,
    sites: Sites,
    every: Every = 1,
    checkpoint_every: Every | None = None,
    probes: Mapping[str, Data | Probe] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    attention: Iterable[str] = (),
    also: Mapping[str, Stateful] | None = None,
    flight: Flight | None = None,
    numbers: Numbers | None = None,
    on_failure: OnFailure = "raise",
    replicated: bool | None = None,
) -> Recorder:
    """Record a model while it learns: a context manager around any training loop.

    A site is a module's path and `.input` or `.output`, then `[index or key]` for one element of a tuple or
    mapping, then `.grad` for the gradient that flows back to it; the root module's are plain `input` and `output`. A
    parameter is its name, or that with `.grad`, `.update` (what the optimizer's step changed) or a key of the
    optimizer's state behind it; its rows are units, numbered by `position`. In a glob `*` stands for one path
    component and `**` for any number; parameters are meant if their last component is named. Where a module takes or
    returns several tensors, a site without `[…]` raises and lists them. What is stored is the value at the hook,
    bit for bit: what later changes it in place does not.

    Step s is the state after s optimizer updates. On entry of `recorder.step(s)` the checkpoint and the probes
    that are due are taken, then the sites that are due are captured as the model runs; on exit of the step their
    rows are written. On exit of the recorder checkpoint and probes are taken once more, for the final state. A
    step whose body raises leaves no rows, and the run's writer closes as failed. A step whose number comes again is a
    micro-batch of the same step: its rows get a column `micro`, 1 for the second.

    Cost: about 1 microsecond for each call of a watched module in steps that are not due; where they are, one copy in
    the hook, and of what is smaller than 256 KiB or on a GPU another in the writer; the CPU memory of one step's
    captures is kept, and that of what waits to be written. Sites of torch.compile'd models are captured if the
    recorder is entered before the first call; turning due and not due compiles nothing anew. Recomputation by
    activation checkpointing does not count as a call.

    Args:
        model: Any `torch.nn.Module`.
        run: Where to write, from `lamina.Run.create` or `lamina.open`.
        sites: A glob, several, or a dict of `Site` by glob; may be empty. A function in place of a glob is asked for
            every module's input and output.
        every: The steps that are due: a number k (steps 0, k, 2 k, …), `log_then_linear(until, every)`, a
            container of steps, a function of the step, or an object with `due(step)`.
        checkpoint_every: The same for checkpoints (`model.state_dict()`, and the optimizer's); None saves none.
        probes: Data by name, passed through the model at each step at which a site is due, in evaluation mode
            and without gradients. A loader, a list of batches, or one batch. A batch is a tensor, a tuple or list
            whose first element goes to the model, or a mapping of the model's keywords. Rows get the name as their
            `source`, and as `example` their running number or the mapping's entry `example`: name them there if
            the steps' own are strings, for a column keeps its type. Modes, buffers and random states are restored,
            so the training goes on bit for bit as without. A `Probe` has a schedule of its own.
        optimizer: Saved beside the model in each checkpoint; what sites such as `weight.update` and `weight.exp_avg`
            belong to.
        also: What else has a `state_dict()`, such as a learning rate schedule, by name: saved in each checkpoint as a
            part of that name, so that `run.restore(step, model, optimizer, schedule=schedule)` brings all of them back.
        attention: Statistics of the model's attention, such as `("entropy", "received")`: out of
            `lamina.recording.attention.STATISTICS`, from queries and keys and without a matrix of weights, recorded
            as sites `<path of the module>.<statistic>` of a row for each position, as wide as there are heads.
        flight: Keeps the last steps in memory and writes them when a loss spikes, a NaN comes or the training fails:
            see `Flight`.
        numbers: Norms of gradients, weights and updates, the gradient noise scale and the log-partition of logits, on a
            schedule: see `Numbers`. Norms of updates need `optimizer`.
        on_failure: What happens if the store fails (a full disk): `"raise"` ends the training with it, `"warn"`
            ends the recording alone. What was acknowledged is there either way. Mistakes in the call raise always.
        replicated: Of several ranks, whether all hold the same weights, so that the first alone records parameters and
            saves checkpoints; None tells it by a DistributedDataParallel around or inside of `model`.

    Returns:
        The recorder, to be entered with `with`.

    Raises:
        RecordingError: If a glob matches nothing (the hint lists the nearest names), a schedule is none, or a
            probe's name or data will not do.

    Example:
        >>> import lamina, tempfile, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with lamina.record(model, run, sites="*.output", every=2, optimizer=optimizer) as recorder:
        ...     for step in range(5):
        ...         with recorder.step(step, example=range(16)):
        ...             loss = model(torch.ones(16, 4)).square().mean()
        ...             optimizer.zero_grad()
        ...             loss.backward()
        ...             optimizer.step()
        ...         recorder.log({"loss": loss})
        >>> run.steps()
        [0, 2, 4]
    """
    check_run(run)
    if on_failure not in ("raise", "warn"):
        raise RecordingError(f"on_failure={on_failure!r} is neither 'raise' nor 'warn'")
    if flight is not None and flight.state and is_divided(model):
        raise RecordingError(
            "a flight recorder cannot keep the state of a model that is divided among ranks",
            hint="Flight(state=False) keeps rows and batches",
        )
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        raise RecordingError(f"optimizer= is a {type(optimizer).__name__}", hint="give one optimizer of torch")
    for name, one in (also or {}).items():
        if name in OWN_PARTS:
            raise RecordingError(f"also= cannot have the name {name!r}", hint="Lamina saves that part")
        if not hasattr(one, "state_dict"):
            raise RecordingError(f"also[{name!r}] is a {type(one).__name__}", hint="give what has a state_dict()")
    if probes is not None and not isinstance(probes, Mapping):
        hint = 'give each by its name: {"validation": loader}'
        raise RecordingError(f"probes= is a {type(probes).__name__}", hint=hint)
    optimizer = None if optimizer is None else unwrapped(optimizer)
    steps = Stepping(
        model,
        run,
        sites=resolve(model, sites, optimizer=optimizer),
        attention=attention,
        every=schedule_of(every),
        checkpoint_every=None if checkpoint_every is None else schedule_of(checkpoint_every),
        probes=Probes(probes or {}),
        optimizer=optimizer,
        also=also or {},
        flight=flight,
        numbers=numbers,
        replicated=is_replicated(model) if replicated is None else replicated,
    )
    return Recorder(run, steps, on_failure=on_failure)
