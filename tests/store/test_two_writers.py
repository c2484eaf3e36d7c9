"""Two writers of one run: they agree on every name, or the loser is told; no row is lost and no name given twice."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina.errors import LaminaError, SchemaError
from tests.store import reader

ROWS, APPENDS = 5, 12


@pytest.fixture
def fresh(tmp_path: Path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def test_the_loser_of_a_race_for_a_dtype_raises(fresh: lamina.Run) -> None:
    with fresh.writer() as first, fresh.writer(rank=1) as second:
        first.append({"site": np.ones((2, 3), np.float32)}, step=0).wait()
        with pytest.raises(SchemaError, match="site") as caught:
            second.append({"site": np.ones((2, 3), np.float64)}, step=0).wait()
        assert "f32" in str(caught.value)
        assert "f64" in str(caught.value)
    assert fresh.refresh().rows("site").shape == (2, 3)


def test_the_loser_of_a_race_for_a_width_raises(fresh: lamina.Run) -> None:
    with fresh.writer() as first, fresh.writer(rank=1) as second:
        first.append({"site": np.ones((2, 3))}, step=0).wait()
        with pytest.raises(SchemaError, match="site"):
            second.append({"site": np.ones((2, 4))}, step=0).wait()


def test_the_loser_of_a_race_for_a_columns_type_raises(fresh: lamina.Run) -> None:
    with fresh.writer() as first, fresh.writer(rank=1) as second:
        first.append({"a": np.ones(2)}, step=0, label=["x", "y"]).wait()
        with pytest.raises(SchemaError, match="label"):
            second.append({"b": np.ones(2)}, step=0, label=[1, 2]).wait()


def test_the_loser_of_a_race_for_a_column_of_the_examples_raises(fresh: lamina.Run) -> None:
    with fresh.writer() as first, fresh.writer(rank=1) as second:
        first.examples({"example": [1], "label": ["x"]}).wait()
        with pytest.raises(SchemaError, match="label"):
            second.examples({"example": [1], "label": [7]}).wait()
        second.append({"site": np.ones(1)}, step=0, label=7).wait()  # the rows have names of their own
    assert fresh.refresh().activations("site").select("label").collect()["label"].to_list() == [7]


def test_one_name_is_not_a_site_and_a_column(fresh: lamina.Run) -> None:
    with fresh.writer() as first, fresh.writer(rank=1) as second:
        first.append({"loss": np.ones(2)}, step=0).wait()
        with pytest.raises(SchemaError, match="loss"):
            second.append({"other": np.ones(2)}, step=0, loss=[1.0, 2.0]).wait()


def test_the_loser_goes_on_with_what_fits(fresh: lamina.Run) -> None:
    with fresh.writer() as first, fresh.writer(rank=1) as second:
        first.append({"site": np.ones((2, 3), np.float32)}, step=0).wait()
        with pytest.raises(SchemaError):
            second.append({"site": np.ones((2, 3))}, step=0).wait()
        assert second.append({"site": np.full((2, 3), 7, np.float32)}, step=1).wait()
    assert fresh.refresh().status.state == "finished"
    assert fresh.activations("site", step=1).select("site").collect()["site"].to_list() == [[7.0] * 3] * 2


def test_threads_that_declare_at_once_agree(fresh: lamina.Run) -> None:
    barrier, failures = threading.Barrier(4), []

    def work(rank: int) -> None:
        try:
            with fresh.writer(rank=rank) as writer:
                barrier.wait()
                for site in range(8):
                    writer.append({f"site.{site}": np.full((1, 2), rank, np.float32)}, step=site).wait()
        except LaminaError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    declared = [name for name, _, _ in reader.read(fresh.path).sites.values()]
    assert sorted(declared) == [f"site.{site}" for site in range(8)]
    for site in range(8):
        frame = fresh.refresh().activations(f"site.{site}").select("rank", f"site.{site}").collect()
        assert sorted(frame.rows()) == [(rank, [float(rank)] * 2) for rank in range(4)]


def append_many(path: str, rank: int, barrier: threading.Barrier) -> None:
    """What a process does: appends, and now and then waits until it is durable."""
    with lamina.open(path).writer(rank=rank) as writer:
        barrier.wait(120)
        for step in range(APPENDS):
            values = np.full((ROWS, 3), rank * 1000 + step, np.float32)
            ticket = writer.append({"shared": values, f"own.{rank}": values}, step=step, example=list(range(ROWS)))
            writer.log({"loss": float(rank)}, step=step)
            if step % 5 == 0:
                ticket.wait()


def test_two_processes_that_append_at_once_lose_nothing(fresh: lamina.Run) -> None:
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(2)
    processes = [context.Process(target=append_many, args=(str(fresh.path), rank, barrier)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    frame = fresh.refresh().activations("shared").select("row", "rank", "step", "example", "shared").collect()
    assert frame["row"].n_unique() == frame.height == 2 * ROWS * APPENDS
    expected = [
        (rank, step, example, [float(rank * 1000 + step)] * 3)
        for rank in (0, 1)
        for step in range(APPENDS)
        for example in range(ROWS)
    ]
    assert sorted(frame.drop("row").rows()) == expected
    assert sorted(fresh.metrics().select("rank", "step").collect().rows()) == [
        (rank, step) for rank in (0, 1) for step in range(APPENDS)
    ]
    assert fresh.status.state == "finished"
    assert not fresh.problems
    names, found = [name for name, _, _ in reader.read(fresh.path).sites.values()], reader.read(fresh.path)
    assert sorted(names) == ["own.0", "own.1", "shared"]
    assert sum(len(group.columns["step"]) for group in found.groups) == frame.height
