"""Checkpoints of shards, by one process: what is seen of them, how they are read, and what DCP makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, WriteItem, WriteItemType

import lamina
from lamina.distributed import StorageReader, StorageWriter
from lamina.distributed.staged import Staged, complete
from lamina.errors import NotFoundError, SchemaError, WriterError
from lamina.runs.buffers import flatten
from lamina.runs.divided import Divided, StoredShard
from lamina.runs.tree import take_apart
from tests.faults import broken
from tests.store import reader

dcp: Any = checkpoint
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SHAPE = (70, 5000)
CUTS = {
    "rows": [((0, 0), (30, 5000)), ((30, 0), (40, 5000))],
    "columns": [((0, 700), (70, 4300)), ((0, 0), (70, 700))],
    "blocks": [((0, 0), (60, 1)), ((0, 1), (60, 4999)), ((60, 0), (10, 4999)), ((60, 4999), (10, 1))],
    "one": [((0, 0), SHAPE)],
}


@pytest.fixture
def run(tmp_path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def numbers() -> torch.Tensor:
    return torch.arange(SHAPE[0] * SHAPE[1], dtype=torch.float32).reshape(SHAPE)


def save_cut(writer: lamina.Writer, cut: list, step: int) -> None:
    staged = Staged(writer._core)
    for offsets, sizes in cut:
        box = tuple(slice(at, at + size) for at, size in zip(offsets, sizes, strict=True))
        staged.add("w", flatten(numbers()[box], "w"))
    shards = [StoredShard(*box, keys) for box, keys in zip(cut, staged.keys(), strict=True)]  # pyright: ignore
    pieces = take_apart({"w": Divided("f32", SHAPE, shards), "b": torch.ones(3), "rate": 0.5})
    complete(writer._core, {"model": pieces}, step, staged.condemned).wait()


@pytest.fixture
def cut(run) -> lamina.Run:
    with run.writer() as writer:
        for step, boxes in enumerate(CUTS.values()):
            save_cut(writer, boxes, step)
    return run.refresh()


def test_a_tensor_is_whole_again_however_it_was_cut(cut):
    recorded = reader.read(cut.path)
    for step in range(len(CUTS)):
        state = cut.load(step)
        assert torch.equal(state["w"], numbers())
        assert torch.equal(state["b"], torch.ones(3))
        assert state["rate"] == 0.5
        np.testing.assert_array_equal(recorded.checkpoints[step]["model"][2][0], numbers().numpy())
    frame = cut.checkpoints().collect()
    assert frame["tensor"].to_list() == ["w", "b"] * len(CUTS)
    assert frame.filter(step=0)["stored"].to_list() == [70 * 5000 * 4, 12]


@pytest.mark.parametrize("verify", ["first", "always", "never"])
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_any_box_is_read(cut, io, verify):
    run = lamina.open(cut.path, io=io, verify=verify)
    for step in range(len(CUTS)):
        for offsets, sizes in [((0, 0), SHAPE), ((29, 0), (2, 5000)), ((3, 699), (60, 2)), ((69, 4999), (1, 1))]:
            out = torch.full(sizes, -1.0)
            data = out.view(torch.uint8).numpy().reshape(-1)
            run._snapshot.box(step, "model", 0, offsets, sizes, data, 2)
            box = tuple(slice(at, at + size) for at, size in zip(offsets, sizes, strict=True))
            assert torch.equal(out, numbers()[box]), (step, offsets)


def test_stretches_that_do_not_end_with_rows_are_read(cut):
    whole = numbers().numpy().reshape(-1).view(np.uint8)
    for step in range(len(CUTS)):
        for start, length in [(0, 1), (3, 20_001), (599_999, 300_000), (len(whole) - 7, 7)]:
            out = np.zeros(length, np.uint8)
            assert cut._snapshot.stretches("model", [(step, 0, start, out)], 2) == []
            np.testing.assert_array_equal(out, whole[start : start + length])


def test_shards_that_do_not_fill_a_tensor_are_refused(run):
    with run.writer() as writer:
        with pytest.raises(SchemaError, match="hold 600000 of 1400000 bytes"):
            save_cut(writer, CUTS["rows"][:1], 0)
        with pytest.raises(SchemaError, match="does not lie in it"):
            save_cut(writer, [((0, 1), SHAPE)], 0)
        staged = Staged(writer._core)
        staged.add("w", flatten(numbers(), "w"))
        shard = StoredShard((0, 0), SHAPE, staged.keys()[0] + bytes(32))
        pieces = {"m": take_apart({"w": Divided("f32", SHAPE, [shard])})}
        with pytest.raises(SchemaError, match="not the keys of its chunks"):
            complete(writer._core, pieces, 0, 0)
    assert run.refresh().checkpoints().collect().height == 0


def test_a_damaged_piece_is_named_and_the_rest_loads(cut):
    (pack,) = (cut.path / "chunks").iterdir()
    data = bytearray(pack.read_bytes())
    data[10] ^= 1
    pack.write_bytes(data)
    run = lamina.open(cut.path)
    with pytest.raises(lamina.errors.DamagedError, match=r"chunk 0 of tensor .w. in part .model. at step 0"):
        run.load(0)
    assert torch.equal(run.load(1)["w"], numbers())


def test_old_versions_are_told(cut):
    needs = [need for commit in reader.read_commits(cut.path) for need in commit[5]]
    assert needs == ["pieces"]


def walk(steps: int) -> list[torch.Tensor]:
    """Weights of a training in bf16, a walk: a shard of each of two processes is a chunk of half a mebibyte."""
    generator = torch.Generator().manual_seed(0)
    weight, saved = 0.02 * torch.randn(512, 1024, generator=generator), []
    for _ in range(steps):
        saved.append(weight.bfloat16())
        weight = weight + 2e-5 * torch.randn(512, 1024, generator=generator)
    return saved


def save_walk(run: lamina.Run, weights: list[torch.Tensor]) -> None:
    """Two writers store halves of each, and the first of them the checkpoint; the last one by other halves."""
    with run.writer() as first, run.writer() as other:
        for step, weight in enumerate(weights):
            shards, condemned = [], []
            last = step == len(weights) - 1
            for at, writer in enumerate((first, other)):
                staged = Staged(writer._core)
                offsets, half = (
                    ((0, 512 * at), weight[:, 512 * at :][:, :512])
                    if last
                    else ((256 * at, 0), weight[256 * at :][:256])
                )
                staged.add("w", flatten(half, "w"))
                shards.append(StoredShard(offsets, tuple(half.shape), staged.keys()[0]))
                condemned.append(staged.condemned)
            pieces = take_apart({"w": Divided("bf16", (512, 1024), shards), "step": step})
            complete(first._core, {"model": pieces}, step, min(condemned)).wait()


def test_what_two_processes_store_is_compacted_like_what_one_saves(run, tmp_path):
    weights = walk(10)
    save_walk(run, weights)
    alone = lamina.Run.create(tmp_path / "alone")
    with alone.writer() as writer:
        for step, weight in enumerate(weights[:-1]):
            writer.save({"model": {"w": weight, "step": step}}, step=step)
    done, other = run.refresh().compact(progress=False), alone.refresh().compact(progress=False)
    assert (done.chunks, done.chunk_bytes_before, other.chunks) == (20, 10 << 20, 9)
    # the last save was cut otherwise, and has nothing to be the difference from
    whole = 2 / 3 * (1 << 20)
    assert abs(done.chunk_bytes_after - whole - other.chunk_bytes_after) < 0.05 * other.chunk_bytes_after
    for _ in range(2):
        run.gc(grace=0, progress=False)
    assert sum(file.stat().st_size for file in (run.path / "chunks").iterdir()) < done.chunk_bytes_before / 2.5
    assert run.verify(progress=False).ok
    copied = run.copy(tmp_path / "copy", progress=False)
    recorded = reader.read(run.path)
    for step, weight in enumerate(weights):
        for one in (run, copied):
            state = one.load(step)
            assert torch.equal(state["w"], weight)
            assert state["step"] == step
        np.testing.assert_array_equal(recorded.checkpoints[step]["model"][2][0], weight.view(torch.uint16).numpy())
    rows = run.tensor("w", rows=slice(250, 260))
    assert torch.equal(rows, torch.stack(weights)[:, 250:260])
    assert run.compact(progress=False).chunks == 0


class SaveHalves(DefaultSavePlanner):
    """Plans two pieces of every tensor, as two processes would."""

    def create_local_plan(self) -> SavePlan:
        items = []
        for item in super().create_local_plan().items:
            data = item.tensor_data
            assert data is not None
            for start, length in halves(data.size[0]):
                chunk = ChunkStorageMetadata(torch.Size((start, 0)), torch.Size((length, data.size[1])))
                index = MetadataIndex(item.index.fqn, chunk.offsets)
                data = dataclasses.replace(data, chunk=chunk)
                items.append(dataclasses.replace(item, index=index, type=WriteItemType.SHARD, tensor_data=data))
        return SavePlan(items, planner_data=self.mappings)

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        assert write_item.tensor_data is not None
        chunk = write_item.tensor_data.chunk
        return self.state_dict[write_item.index.fqn][chunk.offsets[0] :][: chunk.sizes[0]]


class LoadHalves(DefaultLoadPlanner):
    """Asks for two pieces of every tensor."""

    def create_local_plan(self) -> LoadPlan:
        items = []
        for item in super().create_local_plan().items:
            for start, length in halves(item.lengths[0]):
                at, sizes = torch.Size((start, 0)), torch.Size((length, item.lengths[1]))
                items.append(dataclasses.replace(item, storage_offsets=at, dest_offsets=at, lengths=sizes))
        return LoadPlan(items)


def halves(rows: int) -> list[tuple[int, int]]:
    return [(0, rows // 3), (rows // 3, rows - rows // 3)]


def in_halves(run: lamina.Run) -> bool:
    with run.writer() as writer:
        storage = StorageWriter(writer, step=1)
        dcp.save({"m": {"w": numbers()}}, storage_writer=storage, planner=SaveHalves(), no_dist=True)
    target = {"m": {"w": torch.zeros(SHAPE)}}
    dcp.load(target, storage_reader=StorageReader(run.refresh()), planner=LoadHalves(), no_dist=True)
    return torch.equal(target["m"]["w"], numbers()) and torch.equal(run.load(1, part="m")["w"], numbers())


def test_pieces_go_where_they_belong(run):
    assert in_halves(run)
    assert [tensor[0] for tensor in run._snapshot.checkpoints()[0][0]] == ["w"]


@pytest.mark.parametrize("fault", ["shards_begin_at_nothing", "boxes_begin_at_nothing"])
def test_pieces_that_go_elsewhere_are_found(run, fault):
    with broken(fault):
        assert not in_halves(run)


def save(run: lamina.Run, state: dict, step: int = 1, **options) -> None:
    with run.writer() as writer:
        dcp.save(state, storage_writer=StorageWriter(writer, step=step, **options), no_dist=True)
    run.refresh()


def test_a_state_with_objects_returns(run):
    numbers = {"x": torch.tensor(-0.0), "empty": torch.empty(0, 4), "bf16": torch.ones(3, dtype=torch.bfloat16)}
    odd = {"text": "é", "none": None, "list": [1, [2.5, True]], "size": torch.Size([2])}
    state = {"odd": odd, "random": {"states": (torch.arange(3), 7)}, "epoch": 3, "0-d": numbers}
    save(run, state)
    assert repr(run.load(1, part=None)) == repr(state)
    empty = {name: torch.ones_like(tensor) for name, tensor in numbers.items()}
    target = {"odd": dict.fromkeys(odd), "random": {"states": None}, "epoch": 0, "0-d": empty}
    dcp.load(target, storage_reader=StorageReader(run), no_dist=True)
    assert repr(target) == repr(state)


def test_what_lamina_saved_loads_through_dcp_and_the_other_way(run):
    model = nn.Linear(3, 2)
    with run.writer() as writer:
        writer.save({"model": model.state_dict(), "view": {"a": numbers(), "b": numbers()[3:5]}}, step=4)
    save(run, model.state_dict(), step=5, part="model")
    for step in (4, 5):
        other = nn.Linear(3, 2)
        state = other.state_dict()
        dcp.load(state, checkpoint_id=step, storage_reader=StorageReader(run, part="model"), no_dist=True)
        assert torch.equal(other.weight, model.weight)
        other.load_state_dict(run.load(step))
    shared = numbers()
    with run.writer() as writer:
        writer.save({"x": {"whole": shared, "part": shared[3:5, 1:], "turned": shared.T}}, step=6)
    target = {"whole": torch.zeros(SHAPE), "part": torch.zeros(2, 4999), "turned": torch.zeros(SHAPE[::-1])}
    dcp.load(target, storage_reader=StorageReader(run.refresh(), step=6, part="x"), no_dist=True)
    assert torch.equal(target["part"], shared[3:5, 1:])
    assert torch.equal(target["turned"], shared.T)


def test_a_load_casts_as_torch_does(run):
    save(run, {"m": {"w": numbers()}})
    target = {"m": {"w": torch.zeros(SHAPE, dtype=torch.float64).T.contiguous().T}}
    dcp.load(target, storage_reader=StorageReader(run), no_dist=True)
    assert torch.equal(target["m"]["w"], numbers().double())


def test_what_cannot_be_done_is_said(run):
    with run.writer() as writer:
        with pytest.raises(dcp.CheckpointException, match="needs a step"):
            dcp.save({"m": {}}, storage_writer=StorageWriter(writer), no_dist=True)
        with pytest.raises(SchemaError, match="checkpoint_id is 'runs/x'"):
            StorageWriter(writer).reset("runs/x")
        with pytest.raises(WriterError, match="another process"):
            StorageWriter(writer).__getstate__()
        with pytest.raises(dcp.CheckpointException, match="holds the tensor 'w'"):
            dcp.save({"w": numbers()}, storage_writer=StorageWriter(writer, step=1), no_dist=True)
        with pytest.raises(dcp.CheckpointException, match="needs at least one part"):
            dcp.save({}, storage_writer=StorageWriter(writer, step=1), no_dist=True)
    assert run.refresh().checkpoints().collect().height == 0
    with pytest.raises(NotFoundError, match="no checkpoint"):
        StorageReader(run).read_metadata()
    assert StorageReader.validate_checkpoint_id("12")
    assert not StorageWriter.validate_checkpoint_id("runs/12")
