"""What a run answers about its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from lamina.runs import attachments, differences, loading, restoring, slices
from lamina.runs.opened import Opened
from lamina.runs.steps import Steps

if TYPE_CHECKING:
    import torch


class Checkpointed(Opened):
    """A run, as far as its checkpoints go: what they are, loading and comparing them."""

    def checkpoints(self) -> pl.LazyFrame:
        """One row a step, part and tensor: step, part, tensor, shape, dtype, bytes, stored (newly, by this save)."""
        return self._saved.frame()

    def saved_parts(self) -> dict[int, list[str]]:
        """The names of the parts of each checkpoint, by step, ascending; also of those that hold no tensors."""
        return self._saved.parts_by_step()

    def saved_steps(self, name: str | None = None, *, steps: Steps = None, part: str = "model") -> list[int]:
        """The steps of the checkpoints that hold a part, ascending; with `name`, of those that have such a tensor."""
        return slices.saved_steps(self._saved, name, steps=steps, part=part)

    def load(
        self,
        step: int | Literal["last"] = "last",
        *,
        part: str | None = "model",
        strict: bool = True,
        mmap: bool = False,
    ) -> Any:
        """A checkpoint's part as it was saved, with torch tensors on the CPU: see `lamina.runs.loading.load`.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     ticket = writer.save({"model": {"weight": torch.eye(2)}}, step=0)
            >>> run.refresh().load(0)
            {'weight': tensor([[1., 0.],
                    [0., 1.]])}
        """
        return loading.load(self._saved, step, part, strict=strict, mmap=mmap)

    def tensor(self, name: str, *, steps: Steps = None, rows: slices.Rows = None, part: str = "model") -> torch.Tensor:
        """One tensor, or some of its rows, at many steps, [steps, rows, …]: see `lamina.runs.slices.tensor`.

        Only the blocks that are asked for are read, from each checkpoint. `saved_steps(name, steps=…)` lists the steps.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     for step in range(3):
            ...         ticket = writer.save({"model": {"weight": step * torch.eye(4)}}, step=step)
            >>> run.refresh().tensor("weight", steps=slice(1, None), rows=slice(0, 1))
            tensor([[[1., 0., 0., 0.]],
            <BLANKLINE>
                    [[2., 0., 0., 0.]]])
        """
        return slices.tensor(self._saved, name, steps=steps, rows=rows, part=part)

    def restore(
        self,
        step: int | Literal["last"] = "last",
        model: torch.nn.Module | None = None,
        optimizer: Any = None,
        *,
        strict: bool = True,
        **others: Any,
    ) -> int:
        """Puts a checkpoint into a model, an optimizer and others, on any device; returns its step.

        See `lamina.runs.restoring.restore`.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(2, 1), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     ticket = writer.save({"model": model.state_dict()}, step=7)
            >>> run.refresh().restore("last", model)
            7
        """
        given = {"model": model, "optimizer": optimizer, **others}
        return restoring.restore(
            self._saved, step, {part: one for part, one in given.items() if one is not None}, strict
        )

    def attachments(self) -> pl.DataFrame:
        """One row a value that is attached (see `Run.attach`): name, time, bytes, stored (newly, by attaching it).

        Bytes are those of tensors, arrays and bytes; numbers and texts stand in the log.
        """
        return attachments.table(self._saved)

    def attachment(self, name: str) -> Any:
        """What was attached last under a name, as it was, with torch tensors on the CPU.

        Raises:
            NotFoundError: Nothing is attached under this name; the hint lists the nearest.
            DamagedError: A block does not match its checksum.
        """
        return attachments.load(self._saved, name)

    def diff(self, step: int, other: int, *, part: str = "model", progress: bool = True) -> pl.DataFrame:
        """How far each tensor of a part moved from a step to another: see `lamina.runs.differences.differences`."""
        return differences.differences(self._saved, step, other, part, progress=progress)
