"""What `torch.distributed.checkpoint` loads from: a run."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner
from torch.futures import Future

from lamina.distributed.leaves import Leaves, Stored
from lamina.distributed.writing import step_of
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.runs import Run


class StorageReader(storage.StorageReader):
    """Loads from a run: `dcp.load(state, storage_reader=StorageReader(run, step=step))`.

    Any checkpoint will do, whoever saved it: by any number of processes, or with `writer.save`. Each process reads what
    its own shards overlap and no more. `StorageWriter` has an example.

    Args:
        run: The run, as it was when it was opened.
        step: The step, or "last". `dcp.load(checkpoint_id=)` gives it as well.
        part: The state is this part's; None: its top level are the parts.

    Raises:
        NotFoundError: There is no such checkpoint or part. DCP wraps this and what follows into a CheckpointException.
        DamagedError: Bytes do not match their checksum.
    """

    def __init__(self, run: Run, *, step: int | Literal["last"] = "last", part: str | None = None) -> None:
        self._run = run
        self._step: int | Literal["last"] = step
        self._part = part
        self._leaves: Leaves | None = None

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        """Take `checkpoint_id` for the step, if there is one."""
        if checkpoint_id is not None:
            self._step = "last" if checkpoint_id == "last" else step_of(checkpoint_id)
        self._leaves = None

    def read_metadata(self) -> Metadata:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what is there. Every tensor is told of as one piece, of which any box can be read."""
        saved = self._leaves = Leaves(self._run, self._step, self._part)
        entries: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        for name, leaf in saved.leaves.items():
            if not isinstance(leaf, Stored | torch.Tensor):
                entries[name] = BytesStorageMetadata()
                continue
            size = torch.Size(leaf.shape)
            whole = ChunkStorageMetadata(offsets=torch.Size([0] * len(size)), sizes=size)
            entries[name] = TensorStorageMetadata(TensorProperties(dtype=leaf.dtype), size, [whole])
        return Metadata(entries, planner_data=saved.paths)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Tell the coordinator which checkpoint this process reads."""
        assert self._leaves is not None
        plan.storage_data = self._leaves.step
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Refuse to read different checkpoints."""
        if len(steps := {plan.storage_data for plan in plans}) > 1:
            raise LaminaError(
                f"the processes would load different checkpoints: of the steps {sorted(steps)}",
                hint="some opened the run before the last one was there; give the step",
            )
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what this process's shards overlap."""
        saved = self._leaves
        assert saved is not None
        for item in plan.items:
            leaf = saved.leaves[item.storage_index.fqn]
            if item.type is LoadItemType.BYTE_IO:
                data = io.BytesIO()
                torch.save(leaf, data)
                data.seek(0)
                planner.load_bytes(item, data)
                continue
            target = planner.resolve_tensor(item).detach()
            if isinstance(leaf, torch.Tensor):
                target.copy_(_box(leaf, item.storage_offsets, item.lengths))
            elif leaf.dtype == target.dtype and target.device.type == "cpu" and target.is_contiguous():
                saved.read(leaf, item.storage_offsets, target)
            else:
                read = torch.empty(tuple(item.lengths), dtype=leaf.dtype)
                saved.read(leaf, item.storage_offsets, read)
                target.copy_(read)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        """Whether it names a step."""
        try:
            return checkpoint_id == "last" or step_of(checkpoint_id) is not None
        except LaminaError:
            return False


def _box(tensor: torch.Tensor, offsets: torch.Size, lengths: torch.Size) -> torch.Tensor:
    for dim, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        tensor = tensor.narrow(dim, offset, length)
    return tensor
