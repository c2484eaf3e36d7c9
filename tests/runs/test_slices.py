"""One tensor over many steps: the right values, and few bytes read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import lamina
from lamina.errors import DamagedError, NotFoundError, SchemaError
from tests.faults import broken
from tests.runs.test_writer import random_bits, same_bits

STEPS = [0, 3, 10, 11]
BLOCK = 128 * 1024


@cache
def weights(step: int) -> torch.Tensor:
    """400 rows of 3,000 bytes: rows lie across blocks, and blocks across rows; more than one chunk."""
    return torch.randn(400, 30, 50, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16)


def save_all(folder: Path) -> lamina.Run:
    run = lamina.Run.create(folder / "run")
    with run.writer() as writer:
        for step in STEPS:
            w = weights(step)
            model = {"0.w": w, "tied": w, "part": w[7:9], "column": w[:, 0], "count": torch.tensor(step)}
            writer.save({"model": model, "optimizer": {"state": {0: {"exp_avg": w + 1}}}}, step=step)
        writer.save({"batch": [torch.ones(3)]}, step=12)
    return run.refresh()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> lamina.Run:
    """A run that is only read."""
    return save_all(tmp_path_factory.mktemp("saved"))


def expected(steps: Sequence[int]) -> torch.Tensor:
    return torch.stack([weights(step) for step in steps])


ROWS: list[Any] = [
    slice(None),
    slice(43, 44),
    slice(-5, None),
    slice(10, 300, 7),
    slice(300, 10, -50),
    slice(5, 5),
    [399, 0, 0, -1],
    range(349, 352),
    torch.tensor([1, 399]),
    [],
]


def check_rows(run: lamina.Run, rows: Any) -> None:
    got = run.tensor("0.w", rows=rows)
    # torch takes no slices that go backwards
    there = torch.arange(400).tolist()[rows] if isinstance(rows, slice) else [int(row) for row in rows]
    assert same_bits(got, expected(STEPS)[:, there])


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize(("io", "verify"), [("auto", "first"), ("pread", "always"), ("mmap", "never")])
def test_rows_are_those_that_were_saved(saved: lamina.Run, rows: Any, io: Any, verify: Any) -> None:
    run = lamina.open(saved.path, io=io, verify=verify)
    for _ in range(2):  # once unverified, once verified
        check_rows(run, rows)


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> lamina.Run:
    """The same, as planes and differences alone: steps that lie close together, so that there are differences."""
    run = save_all(tmp_path_factory.mktemp("compacted"))
    with run.writer() as writer:
        for step in range(20, 28):
            w = weights(3) * (1 + (step - 20) * 2**-7)
            writer.save({"near": {"w": w}}, step=step)
    run.refresh().compact(progress=False)
    for _ in range(2):
        run.gc(grace=0, progress=False)
    return run


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize(("io", "verify"), [("auto", "first"), ("pread", "always"), ("mmap", "never")])
def test_rows_of_coded_chunks_are_those_that_were_saved(compacted: lamina.Run, rows: Any, io: Any, verify: Any) -> None:
    stored = compacted.checkpoints().filter(part="near").collect()["stored"].to_list()
    assert max(stored[1:]) < 0.8 * 1_200_000, "they are coded"
    run = lamina.open(compacted.path, io=io, verify=verify)
    for _ in range(2):
        check_rows(run, rows)
    near = run.tensor("w", part="near", rows=slice(43, 45))
    assert same_bits(near, torch.stack([weights(3)[43:45] * (1 + at * 2**-7) for at in range(8)]))


def test_rows_beside_the_right_ones_would_be_noticed(saved: lamina.Run) -> None:
    with broken("slices_begin_at_their_block"), pytest.raises(AssertionError):
        check_rows(saved, slice(43, 44))


@pytest.mark.parametrize(
    ("steps", "got"),
    [(None, STEPS), (3, [3]), ([11, 0, 11], [11, 0, 11]), (slice(1, 11), [3, 10]), (slice(0, None, 10), [0, 10])],
    ids=str,
)
def test_steps_are_those_asked_for_in_their_order(saved: lamina.Run, steps: Any, got: list[int]) -> None:
    assert torch.equal(saved.tensor("0.w", steps=steps, rows=slice(1)), expected(got)[:, :1])
    assert saved.saved_steps("0.w", steps=steps) == sorted(set(got))


def test_names_of_every_kind_find_their_tensor(saved: lamina.Run) -> None:
    assert torch.equal(saved.tensor("tied"), expected(STEPS))
    assert torch.equal(saved.tensor("part", rows=[1]), expected(STEPS)[:, 8:9])
    assert saved.tensor("count").tolist() == STEPS
    nested = saved.tensor("state.0.exp_avg", part="optimizer", steps=3)
    assert torch.equal(nested[0], weights(3) + 1)
    assert saved.saved_steps() == STEPS
    assert saved.saved_steps(part="batch") == [12]
    assert saved.tensor("0", part="batch").tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("kind", ["float64", "float8_e5m2", "int8", "bool", "complex128", "uint16"])
def test_every_dtype_bit_for_bit(run: lamina.Run, kind: str) -> None:
    made = [random_bits(getattr(torch, kind), (70, 3)) for _ in range(3)]
    with run.writer() as writer:
        for step, value in enumerate(made):
            writer.save({"model": {"x": value}}, step=step)
    got = run.refresh().tensor("x", rows=slice(5, 60))
    assert all(same_bits(got[step], value[5:60]) for step, value in enumerate(made))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"name": "0.v"}, NotFoundError, r"no tensor '0.v'.*nearest: 0.w"),
        ({"name": "0.w", "part": "modle"}, NotFoundError, r"part 'modle'.*nearest: model"),
        ({"name": "0.w", "steps": [3, 4]}, NotFoundError, r"step 4.*nearest: 0, 3, 10"),
        ({"name": "0.w", "steps": 12}, NotFoundError, "step 12"),
        ({"name": "0.w", "steps": slice(20, None)}, NotFoundError, "at such a step"),
        ({"name": "0.w", "rows": [400]}, SchemaError, "400 rows, and no row 400"),
        ({"name": "0.w", "rows": 3.5}, SchemaError, r"rows=3.5"),
        ({"name": "count", "rows": [0]}, SchemaError, "single number"),
        ({"name": "column"}, SchemaError, "view"),
    ],
)
def test_what_is_not_there_is_named(
    saved: lamina.Run, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        saved.tensor(**arguments)


def test_a_shape_that_changes_is_an_error_and_a_slice_of_steps_passes_over_who_lacks_it(run: lamina.Run) -> None:
    with run.writer() as writer:
        for step, size in enumerate([2, 2, 3]):
            writer.save({"model": {"x": torch.ones(size), f"only {step}": torch.zeros(1)}}, step=step)
    run.refresh()
    with pytest.raises(SchemaError, match=r"\[2\] at step 0 and f32 \[3\] at step 2"):
        run.tensor("x")
    assert run.tensor("x", steps=slice(0, 2)).shape == (2, 2)
    assert run.saved_steps("only 1") == [1]
    with pytest.raises(NotFoundError, match="no tensor 'only 1'"):
        run.tensor("only 1", steps=[1, 2])


def check_bytes(path: Any, io: Literal["auto", "pread"]) -> None:
    run = lamina.open(path, io=io)
    asked = len(STEPS) * 40 * 3000
    run.tensor("0.w", rows=slice(100, 140))
    assert asked <= run._snapshot.chunk_bytes_read <= 2 * asked + 2 * len(STEPS) * BLOCK
    again = run._snapshot.chunk_bytes_read
    run.tensor("0.w", rows=slice(100, 140))
    assert run._snapshot.chunk_bytes_read - again == asked, "what was verified is not read beyond what is asked for"


@pytest.mark.parametrize("io", ["auto", "pread"])
def test_little_more_is_read_than_was_asked_for(saved: lamina.Run, io: Literal["auto", "pread"]) -> None:
    check_bytes(saved.path, io)


def test_reading_whole_chunks_would_be_noticed(saved: lamina.Run) -> None:
    with broken("slices_read_whole_tensors"), pytest.raises(AssertionError):
        check_bytes(saved.path, "pread")


def test_damage_is_named_where_it_is_read_and_nowhere_else(run: lamina.Run) -> None:
    with run.writer() as writer:
        for step in range(2):
            rows = torch.tensor([0.0, 1.0, 2.0]) + 10 * step
            writer.save({"model": {"w": rows.repeat_interleave(1 << 18).view(3, -1)}}, step=step)
    (pack,) = run.path.glob("chunks/*")
    data = bytearray(pack.read_bytes())
    data[(4 << 20) + BLOCK + 5] ^= 1  # step 1, the second chunk, the second block
    pack.write_bytes(data)
    for io, start in product(["auto", "pread"], [0, 2]):
        damaged = lamina.open(run.path, io=io)  # pyright: ignore[reportArgumentType]
        assert damaged.tensor("w", rows=[start]).shape == (2, 1, 1 << 18)
        assert damaged.tensor("w", steps=0, rows=[1]).unique().tolist() == [1]
        with pytest.raises(
            DamagedError, match=r'chunk 1 of tensor "w" in part "model" at step 1: .*checksum'
        ) as caught:
            damaged.tensor("w", rows=slice(1, 3))
        assert (caught.value.file, caught.value.offset) == (f"chunks/{pack.name}", (4 << 20) + BLOCK)
