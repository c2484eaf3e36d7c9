"""What `torch.distributed.checkpoint` saves to: a run."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from lamina.distributed.staged import Staged, check_parts, complete
from lamina.errors import DamagedError, SchemaError, WriterError
from lamina.runs.buffers import flatten, name_of_torch
from lamina.runs.divided import Divided, StoredShard
from lamina.runs.steps import recorded_step
from lamina.runs.tree import take_apart
from lamina.runs.trusted import load_trusted

if TYPE_CHECKING:
    from lamina.runs import Writer


class _Stored(NamedTuple):
    """What a process tells the coordinator of an item that it has stored, or, of an object, hands over."""

    condemned: int
    shard: StoredShard | None
    object: bytes | None


class StorageWriter(storage.StorageWriter):
    """Saves into a run: `dcp.save(state, storage_writer=StorageWriter(writer, step=step))`, likewise `async_save`.

    Every process stores the shards that the plan gives it, each into its own log, and waits until they are durable.
    Then the coordinator stores the checkpoint, which is there from then on: whole, or not at all if any process died
    before. `run.load`, `run.checkpoints` and everything else see whole tensors. The state's top level are the parts,
    such as `{"model": …, "optimizer": …}`.

    Args:
        writer: This process's writer, `run.writer()`. It stays open; one is enough for all checkpoints.
        step: The step whose state it is. `dcp.save(checkpoint_id=)` gives it as well, so that one StorageWriter does
            for all checkpoints.
        part: Make the whole state one part of this name, such as "model" for `dcp.save(model.state_dict(), …)`.

    Raises:
        SchemaError: The state holds what a checkpoint cannot; DCP wraps it into a CheckpointException on all processes.

    Cost:
        One copy of a process's shards, piece by piece through the writer's queue, and two syncs.

    Example:
        >>> import lamina, tempfile, torch
        >>> import torch.distributed.checkpoint as dcp
        >>> from lamina.distributed import StorageReader, StorageWriter
        >>> store = torch.distributed.HashStore()  # a training of one process
        >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     state = {"model": {"weight": torch.ones(2, 3)}}
        ...     done = dcp.save(state, storage_writer=StorageWriter(writer, step=5))
        >>> run.refresh().load(5)["weight"].sum()
        tensor(6.)
        >>> state = {"model": {"weight": torch.zeros(2, 3)}}
        >>> dcp.load(state, storage_reader=StorageReader(run, step=5))
        >>> state["model"]["weight"].sum()
        tensor(6.)
        >>> torch.distributed.destroy_process_group()
    """

    def __init__(self, writer: Writer, *, step: int | None = None, part: str | None = None) -> None:
        self._writer = writer
        self._step = None if step is None else recorded_step(step)
        self._part = part

    def __getstate__(self) -> object:
        raise WriterError(
            "a writer cannot be sent to another process", hint="async_save in a thread, which is its default"
        )

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        """Take `checkpoint_id` for the step, if there is one."""
        if checkpoint_id is not None:
            self._step = step_of(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot be saved."""
        if self._step is None:
            raise SchemaError("a checkpoint needs a step", hint="StorageWriter(writer, step=…), or checkpoint_id=")
        if not kwargs.get("use_collectives", True):
            raise SchemaError(
                "without collectives nobody knows when all shards are there", hint="leave use_collectives=True"
            )
        self._writer._core.check()

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing to prepare."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Nothing to prepare."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Store this process's shards, and return when they are durable. Objects go to the coordinator."""
        objects, tensors = [], []
        for item in plan.items:
            if item.type is WriteItemType.BYTE_IO:
                data = planner.resolve_data(item)
                assert isinstance(data, io.BytesIO)
                objects.append((item.index, data.getvalue()))
                # what the coordinator could not store is refused here, before anything is staged
                take_apart(_object(data.getvalue(), item.index.fqn))
            else:
                tensors.append(item)
        staged, shards = Staged(self._writer._core), []
        for item in tensors:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, torch.Tensor)
            shards.append((item.index, tuple(tensor.shape)))
            staged.add(item.index.fqn, flatten(tensor, f"tensor {item.index.fqn!r}"))
        results = stored_results(staged, shards, objects)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Store the checkpoint, and return when it is durable: the coordinator, when all shards are."""
        assert self._step is not None
        shards: dict[str, list[StoredShard]] = {}
        leaves: dict[str, Any] = {}
        condemned = None
        for result in (result for of_rank in results for result in of_rank):
            stored: _Stored = result.storage_data
            condemned = stored.condemned if condemned is None else min(condemned, stored.condemned)
            if stored.shard is not None:
                shards.setdefault(result.index.fqn, []).append(stored.shard)
            else:
                assert stored.object is not None
                leaves[result.index.fqn] = _object(stored.object, result.index.fqn)
        for fqn, entry in metadata.state_dict_metadata.items():
            if isinstance(entry, TensorStorageMetadata):
                dtype = name_of_torch(entry.properties.dtype)
                assert dtype is not None, "its shards had a name"
                # a process may have none of a tensor's rows
                held = [shard for shard in shards.get(fqn, []) if 0 not in shard.sizes]
                leaves[fqn] = Divided(dtype, tuple(entry.size), held)
        pieces = {name: take_apart(state) for name, state in self._parts(metadata, leaves).items()}
        core = self._writer._core
        if condemned is None:
            condemned = core.condemned()
        complete(core, pieces, self._step, condemned).wait()

    def _parts(self, metadata: Metadata, leaves: dict[str, Any]) -> dict[str, Any]:
        paths = metadata.planner_data
        state: dict[str, Any] = {}
        if isinstance(paths, dict) and leaves.keys() <= paths.keys():
            for fqn in (fqn for fqn in paths if fqn in leaves):
                set_element(state, paths[fqn], leaves[fqn])
        else:
            state = leaves
        if self._part is not None:
            return {self._part: state}
        check_parts(state)
        if bare := [name for name, value in state.items() if isinstance(value, Divided)]:
            raise SchemaError(
                f"the state's top level, which are a checkpoint's parts, holds the tensor {bare[0]!r}",
                hint='StorageWriter(part="model") makes the whole state one part',
            )
        return state

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        """Whether it names a step."""
        try:
            step_of(checkpoint_id)
        except SchemaError:
            return False
        return True


def stored_results(
    staged: Staged,
    shards: Sequence[tuple[MetadataIndex, tuple[int, ...]]],
    objects: Sequence[tuple[MetadataIndex, bytes]],
) -> list[WriteResult]:
    """What `StorageWriter.finish` has to know of one process, when all that it staged is durable.

    Args:
        staged: Its shards.
        shards: Which they are, in order of staging, with their shapes.
        objects: Everything else, as DCP has pickled it.
    """
    results = []
    for (index, shape), keys in zip(shards, staged.keys(), strict=True):
        offsets = (0,) * len(shape) if index.offset is None else tuple(index.offset)
        results.append(
            WriteResult(index, len(keys), _Stored(staged.condemned, StoredShard(offsets, shape, keys), None))
        )
    return results + [WriteResult(index, len(data), _Stored(staged.condemned, None, data)) for index, data in objects]


def step_of(checkpoint_id: object) -> int:
    """The step that a checkpoint's id is. SchemaError if it is none."""
    try:
        return recorded_step(int(checkpoint_id))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise SchemaError(f"checkpoint_id is {checkpoint_id!r}", hint="in a run it is the step") from None


def _object(data: bytes, fqn: str) -> Any:
    """What DCP has pickled. SchemaError for anything that could run code when it is read."""
    import pickle

    try:
        return load_trusted(io.BytesIO(data))
    except pickle.UnpicklingError as error:
        text = f"the state holds something at {fqn!r} that only a pickle could: {str(error).splitlines()[0]}"
        raise SchemaError(text, hint="a checkpoint holds tensors, numbers, texts, and containers of them") from error
    except (EOFError, RuntimeError, ValueError, LookupError) as error:
        raise DamagedError(f"the object {fqn!r} is not understood: {error}", fqn) from error
