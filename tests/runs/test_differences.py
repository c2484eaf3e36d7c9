"""What differs between two checkpoints, against the numbers that torch gives of whole tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import lamina
from lamina.errors import NotFoundError
from lamina.runs import differences
from tests.faults import broken


def states() -> tuple[dict[str, Any], dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(100, 700, generator=generator)
    moved = w + 0.1 * (torch.rand(100, 700, generator=generator) < 0.25)
    bf16 = torch.tensor([1.0, 2.0, -0.0, math.nan], dtype=torch.bfloat16)
    other = torch.tensor([1.0, 2.5, 0.0, math.nan], dtype=torch.bfloat16)
    first = {"w": w, "tied": w, "bf16": bf16, "c": torch.tensor([3 + 4j]), "n": torch.tensor(2), "same": w[0].clone()}
    second = {"w": moved, "tied": moved, "bf16": other, "c": torch.tensor([3 + 5j]), "n": torch.tensor(6)}
    first |= {"empty": torch.empty(0, 3), "shape": torch.ones(2), "gone": torch.ones(1), "zero": torch.zeros(2)}
    second |= {"same": w[0].clone(), "empty": torch.empty(0, 3), "shape": torch.ones(3), "zero": torch.ones(2)}
    return first, second | {"new": torch.ones(4)}


@pytest.fixture
def saved(run: lamina.Run) -> lamina.Run:
    with run.writer() as writer:
        for step, state in enumerate(states()):
            writer.save({"model": state}, step=step)
    return run.refresh()


def check(run: lamina.Run) -> None:
    rows = {row["tensor"]: row for row in run.diff(0, 1).to_dicts()}
    first, second = states()
    assert list(rows) == ["w", "bf16", "c", "n", "same", "empty", "shape", "gone", "zero", "new"]
    w, moved = first["w"].double(), second["w"].double()
    assert rows["w"]["norm"] == pytest.approx(float(w.norm()), rel=1e-12)
    assert rows["w"]["change"] == pytest.approx(float((moved - w).norm()), rel=1e-12)
    assert rows["w"]["relative"] == pytest.approx(float((moved - w).norm() / w.norm()), rel=1e-12)
    assert rows["w"]["unchanged"] == float((w == moved).double().mean())
    differing = (first["w"].view(torch.int32) ^ second["w"].view(torch.int32)).flatten().tolist()
    count = sum((number & 0xFFFFFFFF).bit_count() for number in differing)
    assert rows["w"]["bits"] == pytest.approx(1 - count / (32 * len(differing)), rel=1e-12)
    assert (rows["bf16"]["unchanged"], rows["bf16"]["bits"]) == (0.5, 1 - 2 / 64), "2.5 differs from 2 by a bit"
    assert math.isnan(rows["bf16"]["norm"])
    assert (rows["c"]["norm"], rows["c"]["change"]) == (5, 1)
    assert (rows["n"]["norm"], rows["n"]["change"], rows["n"]["relative"]) == (2, 4, 2)
    assert (rows["same"]["change"], rows["same"]["unchanged"], rows["same"]["bits"]) == (0, 1, 1)
    assert (rows["empty"]["norm"], rows["empty"]["unchanged"]) == (0, None)
    assert (rows["shape"]["norm"], rows["shape"]["only"], rows["shape"]["shape"]) == (None, None, [2])
    assert (rows["gone"]["only"], rows["new"]["only"], rows["new"]["norm"]) == (0, 1, None)
    assert (rows["zero"]["relative"], rows["zero"]["unchanged"]) == (None, 0)


def test_norms_and_shares_are_those_of_whole_tensors(saved: lamina.Run) -> None:
    check(saved)


def test_so_they_are_piece_by_piece(saved: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "_AT_ONCE", 10_000)
    check(saved)


def test_a_lost_piece_would_be_noticed(saved: lamina.Run) -> None:
    with broken("differences_stop_after_a_piece"), pytest.raises(AssertionError):
        check(saved)


def test_a_step_that_is_not_there_is_named(saved: lamina.Run) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint at step 2"):
        saved.diff(0, 2)
    with pytest.raises(NotFoundError, match="no part 'modle'"):
        saved.diff(0, 1, part="modle")


def test_a_bar_goes_over_all_that_is_compared(saved, monkeypatch):
    told: list[tuple[int, int]] = []

    @contextmanager
    def bar(description: str, progress: bool) -> Iterator[Callable[[int, int], None]]:
        assert (description, progress) == ("comparing step 0 with 1", True)
        yield lambda done, total: told.append((done, total))

    monkeypatch.setattr(differences, "byte_bar", bar)
    monkeypatch.setattr(differences, "_AT_ONCE", 1 << 16)
    saved.diff(0, 1)
    first, second = states()
    alike = [name for name in first if name in second and first[name].shape == second[name].shape and name != "tied"]
    size = sum(first[name].nbytes for name in alike)
    done = [at for at, _ in told]
    assert done == sorted(done)
    assert len(done) > len(alike)
    assert told[-1] == (size, size)
