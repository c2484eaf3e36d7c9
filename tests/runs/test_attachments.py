"""Attachments: values of no step, as they were, whatever becomes of the run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina import _core
from lamina.errors import DamagedError, NotFoundError, SchemaError, StorageError


def save(run: lamina.Run, steps: range) -> None:
    with run.writer() as writer:
        for step in steps:
            writer.append({"x": np.full((1, 2), step)}, step=step)
            writer.save({"model": {"w": torch.full((4,), float(step))}}, step=step)
    run.refresh()


VALUES: list[Any] = [
    b"",
    b"\x00\xff" * 700_000,
    "a tokenizer ☃",
    {"lr": 1e-3, "layers": [1, 2], 3: (None, True)},
    [torch.arange(3), torch.zeros(2, 2, dtype=torch.bfloat16)],
    np.arange(6).reshape(2, 3),
    float("inf"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(run: lamina.Run, value: Any) -> None:
    run.attach("it", value)
    found = lamina.open(run.path, strict=True).attachment("it")
    assert type(found) is type(value)
    if isinstance(value, list):
        assert all(
            torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(found, value, strict=True)
        )
    else:
        assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value


def test_a_file_is_attached_by_its_path_and_listed(run: lamina.Run, tmp_path: Path) -> None:
    assert run.attachments().is_empty()
    (tmp_path / "tokenizer.json").write_bytes(b'{"a": 0}')
    run.attach("tokenizer.json", tmp_path / "tokenizer.json").attach("again", b'{"a": 0}')
    assert run.attachments().drop("time").rows() == [("again", 8, 0), ("tokenizer.json", 8, 8)], "stored once"
    assert run.attachment("tokenizer.json") == b'{"a": 0}'
    assert all(time >= run.created for time in run.attachments()["time"])
    assert run.status.state == "empty", "whoever attaches does not record"


@pytest.mark.parametrize("name", ["", "a\nb", 3, "x" * 513])
def test_what_is_no_name(run: lamina.Run, name: Any) -> None:
    with pytest.raises(SchemaError, match=r"named.*tokenizer.json"):
        run.attach(name, b"")


def test_what_cannot_be_attached(run: lamina.Run) -> None:
    with pytest.raises(SchemaError, match="holds a lock"):
        run.attach("lock", {"a": threading.Lock()})
    with pytest.raises(SchemaError, match=r"1 MiB.*encode"):
        run.attach("text", "a" * (1 << 20))
    assert run.refresh().attachments().is_empty()
    assert not list((run.path / "logs").iterdir()), "refused before a log is opened"


def test_it_is_of_no_step(run: lamina.Run) -> None:
    run.attach("w", torch.ones(4))
    save(run, range(3))
    assert run.steps() == [0, 1, 2]
    assert list(run.saved_parts()) == run.saved_steps() == [0, 1, 2]
    assert run.checkpoints().select(pl.col("step").min()).collect().item() == 0
    assert run.load(part=None).keys() == {"model"}
    with pytest.raises(NotFoundError, match="no checkpoint at step"):
        run.load(_core.ATTACHED)
    assert lamina.open_runs([run]).attachments().select("run", "name").rows() == [("run", "w")]


def test_the_later_value_counts_until_it_is_taken_out(run: lamina.Run) -> None:
    run.attach("v", b"one").attach("w", b"other").attach("v", b"two")
    assert run.attachment("v") == b"two"
    assert run.detach("v").attachments()["name"].to_list() == ["w"]
    with pytest.raises(NotFoundError, match=r"attached as 'v'.*w"):
        run.attachment("v")
    with pytest.raises(NotFoundError, match="attached as 'v'"):
        run.detach("v")
    assert run.attach("v", b"three").attachment("v") == b"three"


def test_what_hides_checkpoints_leaves_it(run: lamina.Run) -> None:
    run.attach("w", torch.arange(1000))
    save(run, range(5))
    run.retain(last=1).apply().rewind(0).delete(steps=slice(None))
    run.compact()
    run.gc(grace=0)
    assert run.gc(grace=0).left.is_empty()
    assert torch.equal(lamina.open(run.path, strict=True).attachment("w"), torch.arange(1000))
    assert run.verify().ok


def test_what_is_taken_out_is_collected(run: lamina.Run) -> None:
    run.attach("w", np.random.default_rng(0).bytes(300_000)).detach("w")
    run.gc(grace=0)
    assert not list((run.path / "chunks").iterdir())


def test_copies_and_merged_runs_have_it(tmp_path: Path) -> None:
    runs = [lamina.Run.create(tmp_path / name) for name in "ab"]
    runs[0].attach("a", b"of a").attach("both", {"x": torch.ones(2)})
    runs[1].attach("b", "of b").attach("both", {"x": torch.ones(2)})
    copy = lamina.merge(runs, tmp_path / "all").copy(tmp_path / "copy")
    assert copy.attachments()["name"].to_list() == ["a", "b", "both"]
    assert (copy.attachment("a"), copy.attachment("b")) == (b"of a", "of b")
    assert copy.status.state == "empty"
    runs[1].attach("both", b"else")
    with pytest.raises(SchemaError, match=r"different attachments \"both\".*run.detach"):
        lamina.merge(runs, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_several_attach_at_once_while_a_writer_is_at_work(run: lamina.Run) -> None:
    with run.writer() as writer, ThreadPoolExecutor(4) as pool:
        writer.append({"x": np.zeros((1, 2))}, step=0)
        list(pool.map(lambda number: lamina.open(run.path).attach(f"{number}", [number] * number), range(8)))
    found = lamina.open(run.path, strict=True)
    assert [found.attachment(name) for name in found.attachments()["name"]] == [[n] * n for n in range(8)]
    assert found.status.state == "finished"


def test_a_failure_leaves_nothing(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.attach("v", b"before")
    whole = _core.CheckpointStream

    class Stream:
        def __init__(self, *arguments: str) -> None:
            self.inner = whole(*arguments)
            self.put, self.save, self.close = self.inner.put, self.inner.save, self.inner.close

        def commit(self) -> None:
            raise StorageError("the disk is full")

    monkeypatch.setattr(_core, "CheckpointStream", Stream)
    with pytest.raises(StorageError, match="full"):
        run.attach("v", b"after")
    assert lamina.open(run.path, strict=True).attachment("v") == b"before"
    assert run.refresh().status.state == "empty"


def test_damage_is_named(run: lamina.Run) -> None:
    run.attach("tokenizer.json", np.random.default_rng(0).bytes(1000))
    (pack,) = (run.path / "chunks").iterdir()
    data = bytearray(pack.read_bytes())
    data[50] ^= 1
    pack.write_bytes(data)
    with pytest.raises(DamagedError, match=r'attachment "tokenizer.json".*checksum'):
        lamina.open(run.path).attachment("tokenizer.json")
    assert not run.verify().ok
