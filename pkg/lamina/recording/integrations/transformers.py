"""Recording inside of the `Trainer` of Transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import register_multi_grad_hook
from transformers import TrainerCallback
from transformers.training_args import ParallelMode

from lamina.errors import RecordingError
from lamina.modules.sharded import is_divided
from lamina.recording.autograd import behind_backward
from lamina.recording.elements import tensors
from lamina.recording.integrations.following import Following
from lamina.recording.sites import Sites

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from lamina.runs import Run


class LaminaCallback(TrainerCallback):
    """Records a model while `Trainer.train` trains it.

    The step is the Trainer's `global_step` when a batch begins; with `gradient_accumulation_steps` the batches of one
    update are micro-batches of the same step. Evaluation leaves no rows. What the Trainer logs is recorded at the
    step under which it logs it, by the first rank; so a training loss stands behind the steps that it is the mean of.
    A training that resumes from a checkpoint first rewinds the run to its step.

    A callback does not see batches, so they are read where the model is called. Names in `columns` are entries of the
    batch that the model does not get. Batches have them if the dataset does, the collator keeps them, and the
    `TrainingArguments` say `remove_unused_columns=False`; an evaluation set has none.

    The Trainer tells callbacks nothing of exceptions. As a context manager around it the callback takes its hooks away
    and closes the run as failed; else that waits until the next training, or the run remains `abandoned`.

    Args:
        run: Where to write.
        sites: As in `lamina.record`.
        columns: Entries of the batch that become columns of the rows, such as `["example"]`.
        mask: The entry that is false for padding, whose rows are left out; None keeps them. Batches without it have
            none.
        raw_gradients: Whether gradients of parameters are taken at the end of the backward pass, averaged over ranks
            and accumulated, before they are clipped (under float16 they carry the scale of the loss); otherwise
            they are what the optimizer gets.
        options: Every other option of `lamina.record`; the optimizer is the Trainer's.

    Raises:
        RecordingError: When the training starts: what `lamina.record` raises, or the run holds another training. In
            it: a batch lacks a column, or the model is called through a part of it.

    Example:
        >>> import lamina, tempfile
        >>> from lamina.recording.integrations.transformers import LaminaCallback
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> callback = LaminaCallback(run, sites="blocks.*.hook_resid_post", columns=["example"])
    """

    def __init__(
        self,
        run: Run,
        *,
        sites: Sites,
        columns: Iterable[str] = (),
        mask: str | None = "attention_mask",
        raw_gradients: bool = False,
        **options: Any,
    ) -> None:
        self._following = Following(run, {"sites": sites, **options})
        self._columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self._mask = mask
        self._raw = raw_gradients
        self._handles: list[RemovableHandle] = []
        self._optimizer: Any = None
        self._next: int | None = None
        """The step whose batch the model has not been called with yet."""

    def __enter__(self) -> LaminaCallback:
        """Return the callback: give it to the Trainer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close what an exception left open."""
        self._close(error)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: Any,
        **others: Any,
    ) -> None:
        """Attach the hooks; make room for what comes, if the training resumes."""
        if args.parallel_mode == ParallelMode.NOT_DISTRIBUTED:
            raise RecordingError(
                "the Trainer would split each batch among threads (DataParallel), whose rows have no order",
                hint="start it by torchrun, or let it see one GPU",
            )
        self._detach()
        self._optimizer = optimizer
        replicated = args.parallel_mode == ParallelMode.DISTRIBUTED and not is_divided(model)
        self._following.open(model, optimizer, replicated=replicated)
        self._following.goes_on_at(state.global_step)
        # Hooks of a compiled model run outside of its graph. Prepended: the step begins before the recorder's see it.
        before: Any = torch.compiler.disable(self._before)
        after: Any = torch.compiler.disable(self._after)
        self._handles = [model.register_forward_pre_hook(before, with_kwargs=True, prepend=True)]
        if self._raw:
            self._handles.append(model.register_forward_hook(after))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Await the first batch of a step."""
        self._next = state.global_step

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Write the rows of a micro-batch and await the next."""
        self._end()
        self._next = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Write the rows of the step's last batch."""
        self._end()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        """Record the numbers that the Trainer logs."""
        recorder, logs = self._following.recorder, logs or {}
        if recorder is not None and state.is_world_process_zero:
            recorder.log({name: one for name, one in logs.items() if _is_number(one)}, step=state.global_step)
        if "train_runtime" in logs:
            # Said once, at the end, and before the best model takes the place of the last.
            self._close(None)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Take what is due for the final state, take the hooks away, close the writer."""
        self._close(None)

    def _before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Begin the step with what the model is called with; keep from the model what it does not take."""
        step, self._next = self._next, None
        if step is not None:
            self._following.begin(step, self._of_batch(kwargs))
        return args, {name: value for name, value in kwargs.items() if name not in self._columns}

    def _of_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        for name in self._columns:
            if name not in batch:
                raise RecordingError(
                    f"the batch has no entry {name!r}: it has {', '.join(batch)}",
                    hint="the Trainer drops what the model does not take unless its TrainingArguments say "
                    "remove_unused_columns=False, and the collator has to keep it",
                )
        columns = {name: batch[name] for name in self._columns}
        mask = None if self._mask is None else batch.get(self._mask)
        # Masks of more dimensions tell of pairs of positions.
        return columns if mask is None or mask.ndim > 2 else columns | {"mask": mask.bool()}

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Await the end of the backward pass, if it is the last before an update."""
        recorder, state = self._following.recorder, getattr(self._optimizer, "gradient_state", None)
        if recorder is None or not self._following.stepping or (state is not None and not state.sync_gradients):
            return
        outputs = [one for _, one in tensors(output) if one.requires_grad]
        if outputs:
            take = recorder.take_gradients
            register_multi_grad_hook(outputs, lambda _: behind_backward(take), mode="any")

    def _end(self) -> None:
        if self._next is not None:
            raise RecordingError(
                f"in step {self._next} the Trainer never called the model itself",
                hint="a compute_loss that calls a part of it skips the hook in which the callback sees the batch",
            )
        self._following.end()

    def _close(self, error: BaseException | None) -> None:
        self._detach()
        self._following.close(error)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._next = [], None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.numel() == 1)
