"""Batches through a DataLoader: alike at any number of workers, however they are started."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader

import lamina
from lamina.errors import SchemaError
from lamina.rows.dataset import BatchDataset
from tests.faults import broken

N = 400


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = lamina.Run.create(tmp_path_factory.mktemp("dataset") / "run")
    with run.writer() as writer:
        for start in range(0, N, 100):
            numbers = np.arange(start, start + 100)
            writer.append({"x": numbers[:, None].astype(np.float32)}, step=0, example=numbers)
            writer.flush()
    return run.path


def loaded(loader: DataLoader[torch.Tensor]) -> list[list[int]]:
    return [batch.flatten().int().tolist() for batch in loader]


# torch warns that a fork of a process with threads may hang; that it does not is what is tested
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_workers_give_what_the_main_process_gives(path: Path, start: str) -> None:
    rows = lamina.open(path).rows("x", where=pl.col("example") >= 20)
    expected = [batch.flatten().int().tolist() for batch in rows.batches(32, seed=1)]
    dataset = rows.dataset(32, seed=1)
    assert len(dataset) == len(expected)
    assert loaded(DataLoader(dataset, batch_size=None)) == expected
    context = torch.multiprocessing.get_context(start)
    assert loaded(DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=context)) == expected


def persistent(dataset: BatchDataset, workers: int) -> DataLoader[torch.Tensor]:
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork"}
    return DataLoader(dataset, batch_size=None, **options)


def check_epochs(path: Path) -> None:
    rows = lamina.open(path).rows("x")
    whole = rows.batches(32, seed=1)
    expected = [batch.flatten().int().tolist() for _ in range(2) for batch in whole]
    dataset = rows.dataset(32, seed=1)
    received = itertools.islice(dataset.through(persistent(dataset, 2)), 5)
    got = [batch.flatten().int().tolist() for batch in received]
    state = dataset.state_dict()
    resumed = rows.dataset(32, seed=1)
    resumed.load_state_dict(state)
    loader = persistent(resumed, 1)
    while resumed.epoch < 2:
        got += [batch.flatten().int().tolist() for batch in resumed.through(loader)]
    assert got == expected
    with pytest.raises(SchemaError):
        rows.dataset(32, seed=2).load_state_dict(state)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_loader_goes_on_at_another_number_of_workers(path: Path) -> None:
    check_epochs(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_that_all_make_all_batches_would_be_noticed(path: Path) -> None:
    with broken("workers_all_make_all_batches"), pytest.raises(AssertionError):
        check_epochs(path)


def test_a_run_that_grows_does_not_change_what_was_selected(path: Path) -> None:
    dataset = lamina.open(path).rows("x", where=pl.col("example") < 50).dataset(10, seed=0)
    expected = loaded(DataLoader(dataset, batch_size=None))
    with lamina.open(path).writer() as writer:
        writer.append({"x": np.zeros((5, 1), np.float32)}, step=1, example=np.zeros(5, dtype=np.int64))
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert loaded(loader) == expected
