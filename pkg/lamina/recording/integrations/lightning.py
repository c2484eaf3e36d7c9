"""Recording inside of the `Trainer` of Lightning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parallel import DistributedDataParallel

from lamina.recording.integrations.following import Following
from lamina.recording.sites import Sites

if TYPE_CHECKING:
    from lamina.runs import Run


class LaminaCallback(Callback):
    """Records a LightningModule while `Trainer.fit` trains it.

    Sites are named from the LightningModule on. The step is `trainer.global_step` when a batch begins; with
    `accumulate_grad_batches` the batches of one update are micro-batches of the same step. Validation and sanity
    checks leave no rows. What the module logs by `self.log` is recorded every `log_every_n_steps` updates, as
    Lightning's own loggers get it, by the first rank: training at the step whose loss it is, validation at that of the
    weights that were validated. A training that resumes from a checkpoint first rewinds the run to its step.

    Args:
        run: Where to write.
        sites: As in `lamina.record`.
        columns: A function of the batch, on its device, that returns what `recorder.step` takes: `example`, `mask`,
            further columns. Without it batch items are numbered.
        raw_gradients: Whether gradients of parameters are taken before they are clipped; otherwise they are what the
            optimizer gets.
        options: Every other option of `lamina.record`; the optimizer is Lightning's, if there is one alone.

    Raises:
        RecordingError: When the training starts: what `lamina.record` raises, or the run holds another training.

    Example:
        >>> import lamina, tempfile
        >>> from lamina.recording.integrations.lightning import LaminaCallback
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> callback = LaminaCallback(run, sites="model.*.output", columns=lambda batch: {"example": batch[2]})
    """

    def __init__(
        self,
        run: Run,
        *,
        sites: Sites,
        columns: Callable[[Any], Mapping[str, Any]] | None = None,
        raw_gradients: bool = False,
        **options: Any,
    ) -> None:
        self._following = Following(run, {"sites": sites, **options})
        self._columns = columns
        self._raw = raw_gradients
        self._step = 0
        self._logged: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the hooks, before a compiled model is called for the first time."""
        optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
        replicated = isinstance(trainer.strategy.model, DistributedDataParallel)
        self._following.open(pl_module, optimizer, replicated=replicated)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make room for what comes, now that a checkpoint has told the step."""
        self._following.goes_on_at(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin a step or a micro-batch."""
        self._step = trainer.global_step
        self._following.begin(self._step, {} if self._columns is None else self._columns(batch))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Take gradients that are not clipped yet."""
        if self._raw and self._following.recorder is not None:
            self._following.recorder.take_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the rows of the batch, and metrics where Lightning writes them."""
        self._following.end()
        # Lightning makes numbers of metrics for the progress bar whenever they are read: only where it reads them too.
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.global_step > self._step and every and (self._step + 1) % every == 0:
            self._log(trainer, self._step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record metrics of the epoch; give up a batch that the module skipped."""
        self._following.abandon()
        self._log(trainer, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record metrics of the validation."""
        if not trainer.sanity_checking:
            self._log(trainer, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what is due for the final state, take the hooks away, close the writer."""
        self._following.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks away and close the writer as failed."""
        self._following.close(exception)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close what a fit left that had nothing to train."""
        self._following.close()

    def _log(self, trainer: Trainer, step: int) -> None:
        recorder = self._following.recorder
        if recorder is None or not trainer.is_global_zero:
            return
        # Lightning goes on showing what it showed before: what shares its memory with that was recorded.
        metrics = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if name not in self._logged or self._logged[name].data_ptr() != value.data_ptr()
        }
        self._logged |= metrics
        if metrics:
            recorder.log(metrics, step=step)
