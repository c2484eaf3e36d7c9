"""Checkpoints of the `Trainer` of Transformers in a run."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.training_args import ParallelMode

from lamina.recording import saving
from lamina.recording.ranks import own_rank
from lamina.recording.schedules import schedule_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from lamina.recording.schedules import Every
    from lamina.runs import Run, Writer


class LaminaCheckpoints(TrainerCallback):
    """Saves what `Trainer` trains into a run.

    The step is the number of updates so far. Parts are `model`, `optimizer`, `scheduler`, `trainer_state`, `rng_state`
    and, where the model has one, `config`. Saving returns when the bytes are copied, and what did not change since the
    last checkpoint is not stored again. With `save_strategy="no"` the Trainer writes no folders beside it;
    `lamina export RUN checkpoint-500 --step 500` writes one that it resumes from.

    Where ranks share one model the first saves it, with the tensors whole.

    Args:
        run: Where to save.
        every: At which steps, as `checkpoint_every` of `lamina.record`; None saves wherever the Trainer does. The final
            state is saved in any case.

    Raises:
        SchemaError: When it saves: a state holds objects that a checkpoint cannot.

    Example:
        >>> import lamina, tempfile
        >>> from lamina.recording.integrations.transformers_checkpoints import LaminaCheckpoints
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> callback = LaminaCheckpoints(run, every=100)
    """

    def __init__(self, run: Run, *, every: Every | None = None) -> None:
        self._run = run
        self._every = None if every is None else schedule_of(every)
        self._writer: Writer | None = None
        self._saved: int | None = None
        self._replicated = False
        self._awaited: str | None = None
        """The last that the Trainer does in this step, after which the state is that of the next."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any
    ) -> None:
        """Save the first state."""
        self._close()
        self._saved = None
        self._replicated = args.parallel_mode == ParallelMode.DISTRIBUTED
        if self._every is not None and self._every.due(state.global_step):
            self._save(state, **trained)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any
    ) -> None:
        """Save if the schedule says so, at the end of what the Trainer does in this step.

        An evaluation draws random numbers, and what is logged belongs to the state: without them a training that
        resumes would not go on as this one does.
        """
        if self._every is None or not self._every.due(state.global_step):
            return
        coming = {"save": control.should_save, "evaluate": control.should_evaluate, "log": control.should_log}
        self._awaited = next((name for name, comes in coming.items() if comes), None)
        if self._awaited is None:
            self._save(state, **trained)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any) -> None:
        """Save if that was awaited."""
        self._reached("log", state, trained)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any
    ) -> None:
        """Save if that was awaited."""
        self._reached("evaluate", state, trained)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any) -> None:
        """Save if that was awaited, and where the Trainer saved if there is no schedule."""
        self._reached("save", state, trained)
        if self._every is None:
            self._save(state, **trained)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any
    ) -> None:
        """Save the final state, and make everything durable."""
        self._save(state, **trained)
        self._close()

    def _reached(self, what: str, state: TrainerState, trained: dict[str, Any]) -> None:
        if self._awaited == what:
            self._awaited = None
            self._save(state, **trained)

    def _save(
        self, state: TrainerState, *, model: nn.Module, optimizer: Any = None, lr_scheduler: Any = None, **others: Any
    ) -> None:
        if self._saved == state.global_step:
            return
        self._saved = state.global_step
        holders = {"model": model, "optimizer": optimizer, "scheduler": lr_scheduler}
        holders |= {"trainer_state": _Held(_plain(dataclasses.asdict(state))), "rng_state": _Held(_random_state())}
        if hasattr(model, "config"):
            config: Any = model.config
            holders["config"] = _Held(json.loads(config.to_json_string(use_diff=False)))
        if self._writer is None:
            self._writer = self._run.writer(rank=own_rank())
        there = {name: one for name, one in holders.items() if one is not None}
        saving.save(self._writer, model, there, state.global_step, replicated=self._replicated)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class _Held:
    """A state that stands already."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        return self._state


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    # as the Trainer writes it itself
    return json.loads(json.dumps(state))


def _random_state() -> dict[str, Any]:
    """Under the names that the Trainer reads."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 (the global one, as the Trainer)
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        states["cuda"] = torch.cuda.get_rng_state_all() if shared else torch.cuda.get_rng_state()
    return states
