"""Epochs of batches: what comes, when, and where a loop goes on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import NotARunError, SchemaError
from lamina.rows import mixing
from lamina.rows.ahead import ahead
from tests.faults import broken

N = 3000
ORDERS: list[dict[str, Any]] = [
    {"order": "exact", "seed": 3},
    {"order": "block", "seed": 3, "window_bytes": 600_000},
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> lamina.Rows:
    """3,000 rows of 1,200 bytes that hold their number, in seven groups: 219 of them make a run."""
    run = lamina.Run.create(tmp_path_factory.mktemp("batches") / "run")
    with run.writer() as writer:
        for start in range(0, N, 450):
            numbers = np.arange(start, min(start + 450, N), dtype=np.float32)
            writer.append({"x": np.repeat(numbers[:, None], 300, axis=1)}, step=0, example=numbers.astype(np.int64))
            writer.flush()
    return run.refresh().rows("x")


def numbers(batch: torch.Tensor) -> list[int]:
    assert bool((batch == batch[:, :1]).all())
    return batch[:, 0].int().tolist()


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize("options", ORDERS)
def test_every_row_comes_once_an_epoch_and_epochs_differ(rows: lamina.Rows, options: dict[str, Any]) -> None:
    batches = rows.batches(64, **options)
    assert len(batches) == 47
    epochs = []
    for epoch in range(3):
        assert batches.epoch == epoch
        got = [numbers(batch) for batch in batches]
        assert [len(batch) for batch in got] == [64] * 46 + [56]
        epochs.append(flat(got))
        assert sorted(epochs[-1]) == list(range(N))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] == flat(map(numbers, rows.batches(100, **options))), "batches are cut from one order"
    assert epochs[0] != flat(map(numbers, rows.batches(64, **{**options, "seed": 4})))


def test_a_last_batch_can_be_left_out(rows: lamina.Rows) -> None:
    batches = rows.batches(64, seed=0, drop_last=True)
    assert [len(batch) for batch in batches] == [64] * len(batches) == [64] * 46


def test_positions_say_which_rows_came(rows: lamina.Rows) -> None:
    odd = rows[np.arange(N) % 2 == 1]
    batches = odd.batches(50, seed=0)
    for batch in batches:
        assert numbers(batch) == odd.metadata(["example"])["example"][batches.positions].to_list()


def check_resuming(rows: lamina.Rows, options: dict[str, Any]) -> None:
    whole = rows.batches(64, **options)
    expected = [numbers(batch) for _ in range(2) for batch in whole]
    for received in (0, 1, 20, 46, 47, 60):
        first = rows.batches(64, **options)
        got = [numbers(b) for b in itertools.islice(itertools.chain(first, first), received)]
        second = rows.batches(64, **options)
        second.load_state_dict(first.state_dict())
        assert second.state_dict() == first.state_dict()
        while second.epoch < 2:
            got += [numbers(batch) for batch in second]
        assert got == expected, f"{received} batches were received"


@pytest.mark.parametrize("options", ORDERS)
def test_a_state_counts_what_the_consumer_received(rows: lamina.Rows, options: dict[str, Any]) -> None:
    check_resuming(rows, options)


def test_counting_what_was_gathered_ahead_would_be_noticed(rows: lamina.Rows) -> None:
    with broken("batches_count_what_is_gathered"), pytest.raises(AssertionError):
        check_resuming(rows, ORDERS[0])


def test_a_loop_that_stopped_early_goes_on(rows: lamina.Rows) -> None:
    batches = rows.batches(64, seed=0)
    first = [numbers(batch) for batch in itertools.islice(batches, 5)]
    rest = [numbers(batch) for batch in batches]
    assert sorted(flat(first + rest)) == list(range(N))
    assert (batches.epoch, batches.position) == (1, 0)
    old = iter(batches)
    next(old)
    next(iter(batches))
    with pytest.raises(SchemaError, match="another loop"):
        next(old)


def test_a_state_of_other_batches_is_refused(rows: lamina.Rows) -> None:
    state = rows.batches(64, seed=0).state_dict()
    for other in (
        rows.batches(64, seed=1),
        rows[:5].batches(64, seed=0),
        rows.batches(64, seed=0, order="block"),
    ):
        with pytest.raises(SchemaError, match="the state was taken with"):
            other.load_state_dict(state)
    with pytest.raises(SchemaError, match="position"):
        rows.batches(64, seed=0).load_state_dict(state | {"position": N + 1})
    rows.batches(32, seed=0).load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0, "seed": 0},
        {"size": 1},
        {"size": 1, "seed": 2**63},
        {"size": 1, "seed": 0, "order": "random"},
        {"size": 1, "seed": 0, "order": "block", "window_bytes": 1000},
        {"size": 1, "order": "preshuffled"},
    ],
)
def test_impossible_options_are_refused(rows: lamina.Rows, options: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        rows.batches(**options)


def test_a_selection_is_shuffled_like_all_rows(rows: lamina.Rows) -> None:
    run = lamina.open(str(rows.stored))
    some = run.rows("x", where=pl.col("example") % 3 == 0)
    assert sorted(flat(map(numbers, some.batches(64, seed=0)))) == list(range(0, N, 3))


def test_batches_stay_as_they_came(rows: lamina.Rows) -> None:
    wide = torch.arange(4096, dtype=torch.float32).repeat_interleave(512).reshape(4096, 512)
    batches = lamina.Rows.of(wide).batches(1024, seed=0)
    kept = list(batches)
    copies = [batch.clone() for batch in kept]
    for _ in range(3):
        list(batches)
    assert all(map(torch.equal, kept, copies))


def check_small_batches_stay(rows: lamina.Rows) -> None:
    batches = rows.batches(64, seed=0)
    kept = [(batch, batch.clone()) for at, batch in enumerate(batches) if at % 9 == 0]
    assert all(batch.untyped_storage().nbytes() == batch.nbytes for batch, _ in kept)
    for _ in range(3):
        list(batches)
    assert all(torch.equal(batch, copy) for batch, copy in kept)


def test_small_batches_that_are_gathered_together_stay_as_they_came(rows: lamina.Rows) -> None:
    check_small_batches_stay(rows)


def test_memory_that_comes_back_too_early_would_be_noticed(rows: lamina.Rows) -> None:
    with broken("pool_lends_what_is_seen"), pytest.raises(AssertionError):
        check_small_batches_stay(rows)


def test_mixing_tells_orders_apart() -> None:
    rows = lamina.Rows.of(torch.zeros(200_000, 64))
    exact = mixing(rows.batches(64, seed=0))
    assert abs(exact.runs - 1) < 0.02
    assert exact.correlation < 0.02
    window = [mixing(rows.batches(64, seed=0, order="block", window_bytes=size << 20)).runs for size in (1, 8, 32)]
    # 64 draws from 4, 32 and 128 of 196 runs, by the expected number of distinct ones
    ideal = 196 * (1 - (1 - 1 / 196) ** 64)
    assert window == pytest.approx([k * (1 - (1 - 1 / k) ** 64) / ideal for k in (4, 32, 128)], rel=0.08)


def test_no_shuffle_at_all_would_be_noticed() -> None:
    with broken("orders_are_stored_order"):
        plain = mixing(lamina.Rows.of(torch.zeros(200_000, 64)).batches(64, seed=0))
    assert plain.runs < 0.05
    assert plain.correlation == pytest.approx(1)
    with broken("orders_are_stored_order"), pytest.raises(AssertionError):
        test_mixing_tells_orders_apart()


def test_a_preshuffled_copy_is_read_as_it_lies(rows: lamina.Rows, tmp_path: Path) -> None:
    run = lamina.open(str(rows.stored))
    copy = run.preshuffle(tmp_path / "copy", "x", seed=7, where=pl.col("example") < 1000).rows("x")
    assert copy.preshuffled
    first = [numbers(batch) for batch in copy.batches(64, order="preshuffled")]
    assert sorted(flat(first)) == list(range(1000))
    assert np.abs(np.corrcoef(flat(first), range(1000))[0, 1]) < 0.2
    assert flat(first) == copy.metadata(["example"])["example"].to_list()
    assert copy.metadata(["original_row", "step"]).rows() == [(row, 0) for row in flat(first)]
    assert copy[:10].preshuffled
    assert not copy[[1, 0]].preshuffled
    with pytest.raises(NotARunError):
        run.preshuffle(tmp_path / "copy", "x", seed=7)


def test_a_thread_ahead_passes_on_errors_and_ends_with_its_consumer() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("five")

    assert list(itertools.islice(ahead(items(), 2), 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        list(ahead(items(), 2))
    endless = ahead(itertools.count(), 2)
    assert next(endless) == 0
    assert any(thread.name == "lamina-ahead" for thread in threading.enumerate())
    endless.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "lamina-ahead" for thread in threading.enumerate())
