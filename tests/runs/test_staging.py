"""What does not lie in order on the CPU is copied once, into memory that the writer stores it from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina import _core
from lamina.runs import staging
from lamina.runs.buffers import flatten
from lamina.runs.staging import LARGE, Staging
from tests.faults import broken

NUMBERS = np.random.default_rng(0).standard_normal((3, 1000, 512), np.float32)


def tensor(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(NUMBERS).to(dtype)


STRIDED = {
    "transposed": lambda: tensor()[0].T,
    "every other column": lambda: tensor()[0, :, ::2],
    "every third row": lambda: tensor().reshape(3000, 512)[::3],
    "repeated": lambda: tensor()[0, :1].expand(900, 512),
    "half precision": lambda: tensor(torch.bfloat16).transpose(0, 2),
    "eight bits": lambda: tensor(torch.float8_e5m2)[:, :, 1:],
    "booleans": lambda: (tensor() > 0)[:, ::2],
    "positions last": lambda: tensor().transpose(1, 2),
    "negated": lambda: torch.complex(tensor()[0], tensor()[1]).conj().imag,
    "an image": lambda: tensor().reshape(3, 1000, 32, 16).transpose(0, 1),
    "columns first": lambda: np.asfortranarray(NUMBERS[0]),
    "backwards": lambda: NUMBERS[0, ::-1],
    "big-endian": lambda: NUMBERS[0].astype(">f4"),
    "big-endian and strided": lambda: NUMBERS.astype(">f4")[:, ::2, ::2],
}


def as_tensor(value: Any) -> torch.Tensor:
    value = value if isinstance(value, torch.Tensor) else torch.from_numpy(value.astype(np.float32))
    return value.resolve_neg().contiguous()


def bits(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def check_stored_from_one_copy(run: lamina.Run, value: Any) -> None:
    with run.writer(durable_seconds=None) as writer:
        writer.append({"x": value}, step=0)
        size = as_tensor(value).nbytes
        assert writer._staging._memory.held() == (size, 0), "it waits there"
        writer.flush()
        assert writer._staging._memory.held() == (0, size), "nobody has another copy that waits"
    rows = run.refresh().rows("x")
    assert torch.equal(bits(rows.gather(range(len(rows)))), bits(as_tensor(value)))
    run.verify()


@pytest.mark.parametrize("name", STRIDED)
def test_any_strides_are_stored_from_one_copy(run: lamina.Run, name: str) -> None:
    check_stored_from_one_copy(run, STRIDED[name]())


def test_another_order_would_be_noticed(run: lamina.Run) -> None:
    with broken("staging_copies_in_order_of_memory"), pytest.raises(AssertionError):
        check_stored_from_one_copy(run, STRIDED["every other column"]())


@pytest.mark.parametrize("value", [tensor(), NUMBERS, tensor()[:, :8, ::2], NUMBERS[:, :8, ::2], tensor()[:1, :, :0]])
def test_what_lies_in_order_or_is_small_takes_none_of_it(value: Any) -> None:
    own = Staging()
    assert isinstance(flatten(value, "x", own).bytes, np.ndarray)
    assert own._memory.held() == (0, 0)


@pytest.mark.parametrize("make", [tensor, lambda: NUMBERS, lambda: tensor().transpose(1, 2)])
def test_rows_behind_a_mask_are_stored_from_memory_of_their_own(run: lamina.Run, make: Any) -> None:
    value = make()
    mask = np.random.default_rng(1).random(value.shape[:2]) < 0.7
    with run.writer(durable_seconds=None) as writer:
        writer.append({"x": value}, step=0, mask=mask)
        kept = int(mask.sum()) * value.shape[2] * 4
        assert kept >= LARGE
        assert writer._staging._memory.held()[0] == kept
    expected = as_tensor(value)[torch.from_numpy(mask)]
    assert torch.equal(run.refresh().rows("x").gather(range(len(expected))), expected)


def test_appends_in_turns_use_the_memory_again(run: lamina.Run) -> None:
    with run.writer(durable_seconds=None) as writer:
        for step in range(6):
            writer.append({"x": tensor()[0, :, ::2] + step}, step=step)
            writer.append({"y": (tensor()[0] + step).T}, step=step)
            writer.flush()
        assert sum(writer._staging._memory.held()) <= 2 * 512 * 1000 * 4
    for step in range(6):
        assert torch.equal(run.refresh().rows("x", step=step).gather(range(1000)), tensor()[0, :, ::2] + step)
        assert torch.equal(run.rows("y", step=step).gather(range(512)), (tensor()[0] + step).T)


def test_sites_that_are_attached_take_the_same_way(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"x": np.ones((1000, 1), np.float32)}, step=0)
        writer.flush()
        writer.append({"y": tensor()[0, :, ::2]}, row=run.refresh().rows("x").ids)
        assert writer._staging._memory.held()[0] == 1000 * 256 * 4
    assert torch.equal(run.refresh().rows("y").gather(range(1000)), tensor()[0, :, ::2])


# There is no GPU where this is tested most: tensors that are said to lie on one, and memory that is said to be pinned.


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    memory: list[np.ndarray] = []

    def pinned(size: int) -> np.ndarray:
        memory.append(np.zeros(size, np.uint8))
        return memory[-1]

    monkeypatch.setattr(staging, "pinned", pinned)
    for module in (staging, lamina.runs.buffers):
        monkeypatch.setattr(module, "is_remote", lambda tensor: True)
    return memory


def test_tensors_of_a_gpu_go_straight_into_pinned_memory_that_is_used_again(
    run: lamina.Run, allocated: list[np.ndarray]
) -> None:
    with run.writer(durable_seconds=None) as writer:
        for step, value in enumerate([tensor()[0], tensor()[1], tensor()[2, :, ::2], tensor()[0]]):
            writer.append({"x" if value.shape[1] == 512 else "y": value}, step=step)
            stored = allocated[-1 if step == 2 else 0]
            assert torch.equal(torch.from_numpy(stored).view(torch.float32)[: value.numel()], value.reshape(-1))
            writer.flush()
    assert [memory.size for memory in allocated] == [512 * 1000 * 4]
    rows = run.refresh().rows("x")
    assert torch.equal(rows.gather(range(3000)), torch.cat([tensor()[0], tensor()[1], tensor()[0]]))


def test_memory_that_was_allocated_outside_goes_back_behind_its_pool_and_its_writer(
    run: lamina.Run, allocated: list[np.ndarray]
) -> None:
    with run.writer(durable_seconds=None) as writer:
        writer.append({"x": tensor()[0]}, step=0)
        writer._staging = Staging()
    assert torch.equal(run.refresh().rows("x").gather(range(1000)), tensor()[0])


def test_a_pool_refuses_memory_that_will_not_do() -> None:
    read_only = np.zeros(100, np.uint8)
    read_only.flags.writeable = False
    wrong: list[Any] = [read_only, np.zeros(99, np.uint8), np.zeros((100, 2), np.uint8)[:, 0], None]
    for one in wrong:
        with pytest.raises((ValueError, TypeError, BufferError)):
            _core.Pool(lambda size, one=one: one).take(100)
    pool = _core.Pool(lambda size: np.zeros(2 * size, np.uint8))
    memory = pool.take(100)
    assert len(memory) == 100
    assert pool.held() == (200, 0)
    del memory
    assert pool.held() == (0, 200)


def test_without_pinned_memory_any_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", refuse)
    assert staging.pinned(4096).nbytes == 4096
