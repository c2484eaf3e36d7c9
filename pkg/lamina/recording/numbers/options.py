"""Which numbers are logged about a training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lamina.errors import RecordingError
from lamina.recording.schedules import Every

Norm = Literal["gradient", "raw_gradient", "weight", "update"]

NORMS = ("gradient", "raw_gradient", "weight", "update")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Numbers about the training that a recorder logs as metrics, never waiting for a GPU.

    Norms are L2 norms, a row of `run.metrics()` for each layer with its path as `site`, and one without a site for
    the whole model. A layer is a module with parameters of its own. Values are summed in float32 and up, so that half
    precision does not overflow; NaN and infinity show. Tied parameters count once, where they come first; those without
    a gradient are left out. Of parameters that are sharded over ranks each rank logs the norm of its own part.

    - `weight_norm`: of the weights that the step began with.
    - `gradient_norm`: of the gradients that the optimizer takes: after clipping, after unscaling.
    - `raw_gradient_norm`: of the gradients that the step's last backward pass leaves, with what was accumulated and
      averaged over ranks: before clipping, and times the scale of a GradScaler.
    - `update_norm`: of what the optimizer's steps changed; takes a copy of the weights in steps that are due.

    Args:
        every: The steps that are due; None takes the recorder's schedule.
        norms: Which norms.
        by: `"layer"`, or `"parameter"` for a row for each parameter.
        noise_scale: How many examples (or tokens) one backward pass of this process averages over; logs then, from
            micro-batches or ranks, what the gradient noise scale is made of. None logs it only where
            `Recorder.noise_scale` is called. See `lamina.recording.two_batch_sizes`.
        log_partition: Sites of logits, such as `"lm_head.output"`, as globs. Logs the mean over rows of log Z, the
            logsumexp of the last dimension, as `log_partition`, the mean of its square (the z-loss) as
            `log_partition_square` and its maximum as `log_partition_max`; `mask=` of the step leaves rows out.

    Raises:
        RecordingError: An option that is none.

    Example:
        >>> import lamina, tempfile, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> numbers = lamina.Numbers(every=10, norms=["gradient"], log_partition="output")
        >>> with lamina.record(model, run, sites=[], optimizer=optimizer, numbers=numbers) as recorder:
        ...     for step in range(5):
        ...         with recorder.step(step):
        ...             model(torch.ones(16, 4)).square().mean().backward()
        ...             optimizer.step()
        >>> run.metrics().select("step", "name", "site").collect().rows()[:3]
        [(0, 'gradient_norm', '0'), (0, 'gradient_norm', '2'), (0, 'gradient_norm', None)]
    """

    every: Every | None = None
    norms: Norm | Iterable[Norm] = ("gradient", "weight", "update")
    by: Literal["layer", "parameter"] = "layer"
    noise_scale: int | None = None
    log_partition: str | Iterable[str] = ()

    def __post_init__(self) -> None:
        norms = [self.norms] if isinstance(self.norms, str) else list(self.norms)
        for one in norms:
            if one not in NORMS:
                raise RecordingError(f"norms={one!r} is none of {', '.join(NORMS)}")
        object.__setattr__(self, "norms", tuple(norms))
        if self.by not in ("layer", "parameter"):
            raise RecordingError(f"by={self.by!r} is neither 'layer' nor 'parameter'")
        size = self.noise_scale
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise RecordingError(f"noise_scale={size!r} is no batch size", hint="examples of one backward pass")
        sites = [self.log_partition] if isinstance(self.log_partition, str) else list(self.log_partition)
        object.__setattr__(self, "log_partition", tuple(sites))
