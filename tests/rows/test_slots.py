"""Batches of workers come in memory that is used again, and never while anybody sees them."""

from __future__ import annotations

import copy
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import lamina
from lamina.rows import slots
from lamina.rows.dataset import BatchDataset
from lamina.rows.slots import Batch, Slots
from tests.faults import broken

# torch warns that a fork of a process with threads may hang
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

N, SIZE, WIDTH = 700, 16, 3
BATCHES = -(-N // SIZE)
DTYPES = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = lamina.Run.create(tmp_path_factory.mktemp("slots") / "run")
    numbers = torch.arange(N * WIDTH).view(N, WIDTH)
    with run.writer() as writer:
        for dtype in DTYPES:
            values = numbers.float() if dtype == torch.float32 else numbers.to(torch.uint8) // 3
            writer.append({str(dtype).removeprefix("torch."): values.to(dtype)}, step=0)
    return run.path


@pytest.fixture
def dataset(path: Path) -> BatchDataset:
    return lamina.open(path).rows("float32").dataset(SIZE, seed=3)


@pytest.fixture
def expected(dataset: BatchDataset) -> list[list[list[float]]]:
    return listed(dataset)


def load(dataset: BatchDataset, workers: int = 1, start: str = "fork", **options: Any) -> DataLoader[Any]:
    options = {"multiprocessing_context": start, "persistent_workers": True} | options
    return DataLoader(dataset, batch_size=None, num_workers=workers, **options)


def listed(batches: Any) -> list[list[list[float]]]:
    """The values of batches, each of which is dropped when the next one comes."""
    return [batch.tolist() for batch in batches]


def places(loader: DataLoader[Any]) -> list[int]:
    """Where in memory the batches of an epoch lie that are dropped at once, but for the one before."""
    return [batch.data_ptr() for batch in loader]


def known() -> list[dict[int, np.ndarray]]:
    gc.collect()
    return list(slots._received.values())


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert not known()


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_batches_that_are_dropped_come_in_few_slots(dataset: BatchDataset, expected: Any, start: str) -> None:
    loader = load(dataset, start=start)
    assert [listed(loader) for _ in range(2)] == [expected] * 2
    assert len(set(places(loader))) <= len(known()[0]) < slots.MOST
    assert {type(batch) for batch in loader} == {torch.Tensor}


def check_reuse(dataset: BatchDataset) -> None:
    loader = load(dataset, 2)
    assert max(len(set(places(loader))) for _ in range(3)) < BATCHES / 2
    assert all(memory[slots._STATE] == slots._FREE for worker in known() for memory in worker.values())


def test_slots_are_free_when_an_epoch_is_over(dataset: BatchDataset) -> None:
    check_reuse(dataset)


def test_slots_that_stay_in_use_would_be_noticed(dataset: BatchDataset) -> None:
    with broken("slots_stay_in_use"), pytest.raises(AssertionError):
        check_reuse(dataset)


SHARERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "the batch": lambda batch: batch,
    "a view": lambda batch: batch[1:, 1],
    "other shape and dtype": lambda batch: batch.view(-1).view(torch.uint8).view(torch.float32),
    "detached": lambda batch: batch.detach(),
    "an array": lambda batch: batch.numpy(),
    "an array's view": lambda batch: batch.numpy()[::2],
    "a storage": lambda batch: batch.untyped_storage(),
    "dlpack": np.from_dlpack,
}


def check_kept(dataset: BatchDataset, *sharers: str) -> None:
    loader = load(dataset)
    kept = [(held := SHARERS[one](batch), held.tolist()) for one, batch in zip(sharers, loader, strict=False)]
    for _ in range(3):
        for _ in loader:
            pass
    for one, (held, values) in zip(sharers, kept, strict=True):
        assert held.tolist() == values, one


def test_what_shares_a_batchs_memory_keeps_it(dataset: BatchDataset) -> None:
    check_kept(dataset, *SHARERS)


@pytest.mark.parametrize("sharer", SHARERS)
def test_slots_that_are_used_while_held_would_be_noticed(dataset: BatchDataset, sharer: str) -> None:
    with broken("slots_are_used_while_held"), pytest.raises(AssertionError):
        check_kept(dataset, sharer)


def test_who_keeps_every_batch_gets_ordinary_ones_beyond_the_slots(dataset: BatchDataset, expected: Any) -> None:
    loader = load(dataset, 2)
    epochs = [list(loader) for _ in range(2)]
    assert [listed(epoch) for epoch in epochs] == [expected] * 2
    assert [len(worker) for worker in known()] == [slots.MOST] * 2
    # torch's own batches know that they are shared
    assert sum(not batch.is_shared() for epoch in epochs for batch in epoch) == 2 * slots.MOST
    assert all(batch.is_shared() for batch in epochs[1])
    del epochs
    assert not any(batch.is_shared() for batch in loader)


@pytest.mark.parametrize("persistent", [True, False])
def test_loops_that_end_early_leave_no_slot_in_use(dataset: BatchDataset, expected: Any, persistent: bool) -> None:
    loader = load(dataset, persistent_workers=persistent, prefetch_factor=4)
    for count in range(12 if persistent else 3):
        assert listed(itertools.islice(loader, count % 3)) == expected[: count % 3]
    if persistent:
        assert listed(loader) == expected
        assert [len(worker) < slots.MOST for worker in known()] == [True]
        assert all(memory[slots._STATE] == slots._FREE for memory in known()[0].values())


def kill(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    time.sleep(60)  # torch's handler of the signal that a child has ended raises


def test_a_batch_outlives_its_loader_and_a_worker_that_is_killed(dataset: BatchDataset, expected: Any) -> None:
    iterator: Any = iter(load(dataset))
    batch = next(iterator)
    with pytest.raises(RuntimeError, match="killed"):
        kill(iterator._workers[0].pid)
    del iterator
    assert not known()
    assert batch.tolist() == expected[0]


def test_two_loaders_of_one_dataset_have_slots_of_their_own(dataset: BatchDataset, expected: Any) -> None:
    one, other = load(dataset), load(dataset)
    pairs = [(mine, mine.tolist(), theirs, theirs.tolist()) for mine, theirs in zip(one, other, strict=True)]
    assert [pair[1] for pair in pairs] == [pair[3] for pair in pairs] == expected
    assert [pair[0].tolist() for pair in pairs] == [pair[2].tolist() for pair in pairs] == expected
    assert len(known()) == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_bit_by_bit(path: Path, dtype: torch.dtype) -> None:
    dataset = lamina.open(path).rows(str(dtype).removeprefix("torch.")).dataset(SIZE, seed=3)
    batches = list(load(dataset))
    assert not batches[0].is_shared()
    for batch, own in zip(batches, dataset, strict=True):
        assert batch.dtype == dtype
        assert torch.equal(batch.view(torch.uint8), own.view(torch.uint8))


def test_rows_in_memory_and_empty_rows_go_through_workers() -> None:
    values = torch.arange(100.0).view(50, 2)
    batches = list(load(lamina.Rows.of(values).dataset(8, seed=0)))
    assert torch.equal(torch.cat(batches).sort(0).values, values)
    assert not batches[0].is_shared()
    assert [list(batch.shape) for batch in load(lamina.Rows.of(torch.empty(9, 0)).dataset(8, seed=0))] == [
        [8, 0],
        [1, 0],
    ]


def test_without_workers_there_are_no_slots(dataset: BatchDataset) -> None:
    list(DataLoader(dataset, batch_size=None, num_workers=0))
    assert dataset._slots is None


class Remembering:
    """Sends each batch in every way that somebody may think of, and the one before with it."""

    def __init__(self) -> None:
        self.before = torch.zeros(1)

    def __call__(self, batch: torch.Tensor) -> dict[str, Any]:
        before, self.before = self.before, batch
        batch += 1
        return {"batch": batch, "view": batch[:, 1], "double": 2 * batch, "before": before, "twice": batch}


def check_functions(dataset: BatchDataset, expected: list[Any]) -> None:
    kept = list(load(dataset, collate_fn=Remembering()))
    for number, (sent, values) in enumerate(zip(kept, expected, strict=True)):
        plain = torch.tensor(values) + 1
        assert torch.equal(sent["batch"], plain)
        assert torch.equal(sent["twice"], plain)
        assert torch.equal(sent["view"], plain[:, 1])
        assert torch.equal(sent["double"], 2 * plain)
        if number:
            assert torch.equal(sent["before"], torch.tensor(expected[number - 1]) + 1)


def test_a_function_in_the_worker_may_do_with_a_batch_what_it_likes(dataset: BatchDataset, expected: Any) -> None:
    check_functions(dataset, expected)


def check_lending() -> None:
    lender = Slots(64)
    shape = (4, 4)
    first = lender.empty(shape, torch.float32)
    assert type(first) is Batch
    view = first[:2].fill_(1)
    assert type(view) is torch.Tensor
    del first
    second = lender.empty(shape, torch.float32)
    assert second is not None
    second.fill_(2)
    assert view.unique().tolist() == [1]
    del view
    # never sent, it was free when nobody saw it any more
    third = lender.empty(shape, torch.float32)
    assert third is not None
    assert third.data_ptr() != second.data_ptr()
    assert len(lender._slots) == 2


def test_a_slot_is_in_use_as_long_as_its_worker_sees_it() -> None:
    check_lending()


def test_slots_that_are_used_while_lent_would_be_noticed() -> None:
    with broken("slots_are_used_while_lent"), pytest.raises(AssertionError):
        check_lending()


def test_copies_and_pickles_of_a_batch_are_plain() -> None:
    batch = Slots(64).empty((4, 4), torch.float32)
    assert batch is not None
    batch.copy_(torch.arange(16.0).view(4, 4))
    for other in (copy.deepcopy(batch), copy.copy(batch), pickle.loads(pickle.dumps(batch)), batch.clone()):
        assert type(other) is torch.Tensor
        assert torch.equal(other, batch)
        assert other.data_ptr() != batch.data_ptr()


def test_a_batch_that_wants_a_gradient_is_sent_as_torch_sends_it() -> None:
    batch = Slots(64).empty((4, 4), torch.float32)
    assert batch is not None
    received = pickle.loads(ForkingPickler.dumps(batch.fill_(1).requires_grad_()))
    assert received.requires_grad
    assert torch.equal(received, batch)


def test_who_did_not_start_the_worker_receives_a_copy() -> None:
    lender = Slots(64)
    for number in range(3):
        batch = lender.empty((4, 4), torch.float32)
        assert batch is not None
        received = pickle.loads(ForkingPickler.dumps(batch.fill_(number)))
        assert received.data_ptr() != batch.data_ptr()
        assert received.unique().tolist() == [number]
        del batch
    assert len(lender._slots) == 1


def test_a_slot_holds_no_more_than_its_bytes_and_a_worker_no_more_than_its_share() -> None:
    assert Slots(64).empty((5, 4), torch.float32) is None
    assert Slots(slots.KEPT_BYTES + 4).empty((1, 1), torch.float32) is None


def child_sees(batch: torch.Tensor, go_on: Any, answers: Any) -> None:
    go_on.wait(30)
    answers.put(batch.tolist())


def check_fork(dataset: BatchDataset) -> None:
    loader, context = load(dataset), multiprocessing.get_context("fork")
    go_on, answers = context.Event(), context.SimpleQueue()
    batch = next(iter(loader))
    values = batch.tolist()
    child = context.Process(target=child_sees, args=(batch, go_on, answers))
    child.start()
    del batch
    for _ in range(2):
        for _ in loader:
            pass
    go_on.set()
    seen = answers.get()
    child.join()
    assert seen == values
    # what the child saw is used no more, the worker has others
    assert len(set(places(loader))) < BATCHES / 2


def test_a_fork_keeps_what_it_inherits(dataset: BatchDataset) -> None:
    check_fork(dataset)


def test_slots_that_forget_forks_would_be_noticed(dataset: BatchDataset) -> None:
    with broken("slots_forget_forks"), pytest.raises(AssertionError):
        check_fork(dataset)


def check_dropping_fork(dataset: BatchDataset) -> None:
    loader = load(dataset)
    batch = next(iter(loader))
    values = batch.tolist()
    with broken("slots_forget_forks"):  # as if it were received between the hook and the fork
        child = os.fork()
    if not child:
        try:
            del batch
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    for _ in range(2):
        for _ in loader:
            pass
    assert batch.tolist() == values


def test_a_fork_that_drops_a_batch_frees_nothing(dataset: BatchDataset) -> None:
    check_dropping_fork(dataset)


def test_slots_that_are_freed_by_forks_would_be_noticed(dataset: BatchDataset) -> None:
    with broken("slots_are_freed_by_forks"), pytest.raises(AssertionError):
        check_dropping_fork(dataset)
