"""What the processes of `test_processes` do: a model of known numbers, divided among them, saved and loaded."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import lamina
from lamina.distributed import StorageReader, StorageWriter, save
from lamina.distributed.staged import Staged
from lamina.errors import LaminaError

dcp: Any = checkpoint
DCP, ASYNC, OWN, COLUMNS, WRONG, DIES, FIRST_DIES = range(1, 8)
SHAPES: list[tuple[list[Any], tuple[int, ...]]] = [
    ([Shard(0), Shard(1)], (5, 6)),
    ([Replicate(), Shard(1)], (3, 4)),
    ([Shard(1), Replicate()], (2, 3, 2)),
    ([Shard(0), Shard(0)], (3, 2)),
    ([Replicate(), Replicate()], (2,)),
    ([Shard(0), Shard(2)], (4, 2, 300_000)),
]


def trained(divide: Callable[[nn.Module], Any] = lambda model: None, start: float = 0.0) -> tuple[nn.Module, Any]:
    """Return a model whose every number is known, and its optimizer after an update; rows are 7, 3 and 1."""
    model = nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) + start)
    divide(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.25)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    return model, optimizer


def columns(divide: bool = True) -> dict[str, Any]:
    """Return tensors of all placements on a mesh of two by two; every element is its number."""
    state: dict[str, Any] = {
        str(at): torch.arange(torch.Size(shape).numel()).reshape(shape) for at, (_, shape) in enumerate(SHAPES)
    }
    state["0-d"] = torch.tensor(2.5)
    state["float"] = -0.0
    if divide:
        mesh = init_device_mesh("cpu", (2, 2))
        for at, (placements, _) in enumerate(SHAPES):
            state[str(at)] = distribute_tensor(state[str(at)], mesh, placements)
    return state


def state_of(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def saved(run: lamina.Run, rank: int) -> None:
    model, optimizer = trained(fully_shard)
    with run.writer(rank=rank) as writer:
        storage = StorageWriter(writer)
        state = state_of(model, optimizer) | {"numbers": {"step": 7, "rate": 0.1, "betas": (0.5, float("nan"))}}
        dcp.save(state, checkpoint_id=DCP, storage_writer=storage)
        assert DCP in lamina.open(run.path).checkpoints().collect()["step"], "save returns when it is there"
        future = dcp.async_save(state, checkpoint_id=ASYNC, storage_writer=storage)
        old = [parameter.detach().clone() for parameter in model.parameters()]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()  # what was staged has the old values
            future.result()
            for parameter, value in zip(model.parameters(), old, strict=True):
                parameter.copy_(value)
        ticket = save(writer, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, step=OWN)
        assert (ticket is not None) == (rank == 0)
        dcp.save({"state": columns()}, checkpoint_id=COLUMNS, storage_writer=storage)
        save(writer, {"own": columns()}, step=COLUMNS)
        # what one process cannot save nobody saves, and everybody is told
        bad: dict[str, Any] = {"model": model.state_dict(), "odd": {"x": object() if rank == 1 else 1}}
        with pytest.raises(LaminaError, match="object"):
            save(writer, bad, step=WRONG)
        with pytest.raises(LaminaError, match="different tensors"):
            save(writer, {"x": columns()["0"] if rank else columns()["1"]}, step=WRONG)
        with pytest.raises(dcp.CheckpointException, match="only a pickle could"):
            dcp.save({"odd": {f"x{rank}": object()}}, checkpoint_id=WRONG, storage_writer=storage)
        dies(writer, model, rank)


def dies(writer: lamina.Writer, model: nn.Module, rank: int) -> None:
    """The last process ends when its shards are durable, and before it has told so."""
    keys = Staged.keys

    def end(self: Staged) -> list[bytes]:
        keys(self)
        os._exit(3)

    if rank == 3:
        Staged.keys = end
    with pytest.raises((dcp.CheckpointException, RuntimeError)):
        dcp.save({"model": model.state_dict()}, checkpoint_id=DIES, storage_writer=StorageWriter(writer))


def loaded(run: lamina.Run, rank: int) -> None:
    expected, optimizer = trained()
    expected = state_of(expected, optimizer)
    for step in (DCP, ASYNC, OWN):
        model, other = trained(fully_shard, start=100)
        state = state_of(model, other) if step != OWN else {"model": model.state_dict()}
        dcp.load(state, checkpoint_id=step, storage_reader=StorageReader(run))
        if step != OWN:
            set_state_dict(model, other, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
            moments = state_of(model, other)["optimizer"]["state"]
            for name, of_parameter in expected["optimizer"]["state"].items():
                for key, value in of_parameter.items():
                    found = moments[name][key]
                    assert torch.equal(found.full_tensor() if isinstance(found, DTensor) else found, value), (name, key)
        for name, value in model.state_dict().items():
            assert torch.equal(value.full_tensor(), expected["model"][name]), (step, name)
    mesh, whole = init_device_mesh("cpu", (2,)), columns(divide=False)
    for part in ("state", "own"):
        for dim in (0, 1):
            target: dict[str, Any] = {
                str(at): distribute_tensor(torch.full(shape, -1), mesh, [Shard(min(dim, len(shape) - 1))])
                for at, (_, shape) in enumerate(SHAPES)
            }
            dcp.load(target, storage_reader=StorageReader(run, step=COLUMNS, part=part))
            for name, value in target.items():
                assert torch.equal(value.full_tensor(), whole[name]), (part, dim, name)
    first_dies(run, rank)


def first_dies(run: lamina.Run, rank: int) -> None:
    """The coordinator ends when all shards are durable, and before it has stored the checkpoint."""
    StorageWriter.finish = lambda self, metadata, results: os._exit(3)
    model, _ = trained(fully_shard)
    writer = run.writer(rank=rank)
    with pytest.raises((dcp.CheckpointException, RuntimeError)):
        dcp.save({"model": model.state_dict()}, checkpoint_id=FIRST_DIES, storage_writer=StorageWriter(writer))
    writer.close()


def one(work: str, rank: int, ranks: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=(folder / work).as_uri(), rank=rank, world_size=ranks, timeout=timedelta(seconds=120)
    )
    {"saved": saved, "loaded": loaded}[work](lamina.open(folder / "run"), rank)


def start(work: str, rank: int, ranks: int, folder: Path) -> int:
    """Fork a process that does its part, and prints into a file of its own."""
    if process := os.fork():
        return process
    output = os.open(folder / f"{work}-{rank}.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        one(work, rank, ranks, folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # the others of the group are gone: there is nothing to take down
    os._exit(0)


def main(folder: Path) -> None:
    """Four processes save, two load; prints how each ended. What they import, which takes longest, is imported once."""
    torch.set_num_threads(1)
    trained()  # the rest of what torch imports
    codes = {}
    for work, ranks in (("saved", 4), ("loaded", 2)):
        started = [start(work, rank, ranks, folder) for rank in range(ranks)]
        codes[work] = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
    print(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
