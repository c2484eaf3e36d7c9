"""Folders of torch.distributed.checkpoint, in and out; hostile ones run nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import checkpoint

import lamina
from lamina.errors import DamagedError, NotFoundError, SchemaError, StorageError
from lamina.interchange import from_dcp, to_checkpoint, to_dcp

dcp: Any = checkpoint
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def state() -> dict[str, Any]:
    weights = {
        "w": torch.arange(12.0).reshape(3, 4),
        "b": torch.ones(2, dtype=torch.bfloat16),
        "0-d": torch.tensor(-0.0),
    }
    return {"model": weights, "progress": {"tokens": 7, "rate": 0.1, "seen": [1, 2], "empty": torch.empty(0, 3)}}


def saved(folder: Path, what: dict[str, Any]) -> Path:
    dcp.save(what, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


def test_a_folder_comes_in(tmp_path):
    from_dcp(tmp_path / "run", saved(tmp_path / "dcp", state()), step=3)
    run = lamina.open(tmp_path / "run", strict=True)
    assert repr(run.load(3, part=None)) == repr(state())
    from_dcp(run, tmp_path / "dcp", step=4, part="all")
    assert repr(run.load(4, part="all")) == repr(state())
    assert run.checkpoints().collect().filter(step=4)["stored"].sum() == 0
    from_dcp(run, saved(tmp_path / "flat", state()["model"]), step=5)
    assert repr(run.load(5)) == repr(state()["model"])


def test_a_checkpoint_goes_out_and_dcp_loads_it(tmp_path):
    run = lamina.Run.create(tmp_path / "run")
    shared = torch.arange(6.0)
    with run.writer() as writer:
        writer.save(state() | {"tied": {"x": shared, "y": shared[2:]}}, step=3)
    to_dcp(run.refresh(), tmp_path / "dcp")
    target = state() | {"tied": {"x": torch.zeros(6), "y": torch.zeros(4)}}
    target["model"]["w"].zero_()
    dcp.load(target, storage_reader=dcp.FileSystemReader(tmp_path / "dcp"), no_dist=True)
    assert repr(target) == repr(state() | {"tied": {"x": shared, "y": shared[2:]}})
    to_dcp(run, tmp_path / "model", part="model")
    from_dcp(run, tmp_path / "model", step=9)
    assert repr(run.load(9)) == repr(state()["model"])
    with pytest.raises(StorageError, match="exists"):
        to_dcp(run, tmp_path / "dcp")
    with pytest.raises(NotFoundError, match="no checkpoint at step 77"):
        to_dcp(run, tmp_path / "none", step=77)
    assert not (tmp_path / "none").exists()


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def metadata(folder: Path) -> Any:
    return pickle.loads((folder / ".metadata").read_bytes())


def evil_metadata(folder: Path) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))


def evil_within(folder: Path) -> None:
    changed = metadata(folder)
    changed.planner_data["x"] = Evil()
    (folder / ".metadata").write_bytes(pickle.dumps(changed))


def evil_shard(folder: Path) -> None:
    replace(folder, "model.w", Evil())


def elsewhere(folder: Path) -> None:
    changed = metadata(folder)
    for info in changed.storage_data.values():
        info.relative_path = "../other/" + info.relative_path
    (folder / ".metadata").write_bytes(pickle.dumps(changed))


def cut(folder: Path) -> None:
    file = next(folder.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-900])


def cut_metadata(folder: Path) -> None:
    (folder / ".metadata").write_bytes((folder / ".metadata").read_bytes()[:-9])


def no_metadata(folder: Path) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps({"a": 1}))


def other_dtype(folder: Path) -> None:
    replace(folder, "model.w", torch.zeros(3, 4, dtype=torch.float64))


def other_shape(folder: Path) -> None:
    replace(folder, "model.w", torch.zeros(4, 3))


def replace(folder: Path, name: str, value: Any) -> None:
    """Put another object in the place of a shard, in a file of its own."""
    changed = metadata(folder)
    torch.save(value, folder / "new.distcp")
    for index, info in changed.storage_data.items():
        if index.fqn == name:
            info.relative_path, info.offset, info.length = "new.distcp", 0, (folder / "new.distcp").stat().st_size
    (folder / ".metadata").write_bytes(pickle.dumps(changed))


HARMS = {
    evil_metadata: r"names (posix|nt)\.mkdir",
    evil_within: r"names (posix|nt)\.mkdir",
    evil_shard: "a shard of 'model.w' is not understood",
    elsewhere: "names a file elsewhere",
    cut: "not understood",
    cut_metadata: "metadata is not understood",
    no_metadata: "metadata is not understood",
    other_dtype: "not what the metadata says",
    other_shape: "does not lie in it",
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_hostile_folder_is_refused_and_leaves_nothing(tmp_path, monkeypatch, harm):
    monkeypatch.chdir(tmp_path)
    harm(saved(tmp_path / "dcp", state()))
    with pytest.raises((DamagedError, SchemaError), match=HARMS[harm]):
        from_dcp(tmp_path / "run", tmp_path / "dcp", step=3)
    assert {path.name for path in tmp_path.iterdir()} == {"dcp"}
    run = lamina.Run.create(tmp_path / "run")
    with pytest.raises((DamagedError, SchemaError)):
        from_dcp(run, tmp_path / "dcp", step=3)
    assert run.refresh().checkpoints().collect().height == 0


def test_objects_that_only_a_pickle_holds_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="only a pickle could"):
        from_dcp(tmp_path / "run", saved(tmp_path / "dcp", {"odd": {"x": Evil}}), step=1)
    with pytest.raises(StorageError, match="no folder of"):
        from_dcp(tmp_path / "run", tmp_path, step=1)


def test_what_came_from_dcp_goes_out_as_safetensors_and_is_thinned_out(tmp_path):
    run = lamina.Run.create(tmp_path / "run")
    from_dcp(run, saved(tmp_path / "dcp", state()), step=3)
    from_dcp(run, saved(tmp_path / "again", {"model": {"w": torch.zeros(300_000)}}), step=4)
    to_checkpoint(run, tmp_path / "x.safetensors", step=3)
    found = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], value) for name, value in state()["model"].items())
    run.retain(last=1, parts="model").apply()
    assert sorted({(step, part) for step, part in run.checkpoints().select("step", "part").collect().rows()}) == [
        (3, "progress"),
        (4, "model"),
    ]
    run.gc(grace=0, progress=False)
    assert run.load(4)["w"].shape == (300_000,)
    assert run.verify(progress=False).ok


def test_bars_go_over_all_bytes_of_tensors(tmp_path, monkeypatch):
    told: list[tuple[str, int, int]] = []

    @contextmanager
    def bar(description: str, progress: bool) -> Iterator[Callable[[int, int], None]]:
        assert progress
        yield lambda done, total: told.append((description, done, total))

    monkeypatch.setattr("lamina.interchange.dcp.byte_bar", bar)
    folder = saved(tmp_path / "dcp", state())
    from_dcp(tmp_path / "run", folder, step=3)
    size = sum(file.stat().st_size for file in folder.glob("*.distcp"))
    assert told[0] == ("importing dcp", 0, told[0][2])
    assert told[-1][1] == told[-1][2]
    assert 0.5 * size < told[-1][2] <= size
    told.clear()
    to_dcp(lamina.open(tmp_path / "run"), tmp_path / "out")
    tensors = [*state()["model"].values(), state()["progress"]["empty"]]
    size = sum(tensor.nbytes for tensor in tensors)
    assert told[-1] == ("exporting run", size, size)
    assert len(told) == len(tensors)
