"""Which matrices have the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.rows import Rows
from lamina.rows.cohorts import cohorts
from tests.faults import broken


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    """Examples 0 to 9 at steps 0 and 1, the second in another order, and 0 to 8 at step 2."""
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step, examples in enumerate([np.arange(10), np.arange(10)[::-1].copy(), np.arange(9)]):
            rows = torch.from_numpy(examples)[:, None].float()
            topics = [f"topic {example // 3}" for example in examples]
            writer.append({"x": rows, "y": -rows}, step=step, example=examples, topic=topics)
    return run.refresh()


def found(rows: list[Rows], **options: Any) -> list[list[int]]:
    """Return who is together, having seen that the rows of a cohort are those of the first, one by one."""
    together = list(cohorts(rows, **options))
    for cohort in together:
        first = rows[cohort.members[0]].gather(slice(None)).abs()
        for member, order in zip(cohort.members, cohort.orders, strict=True):
            here = rows[member].gather(slice(None) if order is None else order).abs()
            assert torch.equal(here, first)
        assert cohort.groups.codes.size == len(first)
    return [cohort.members for cohort in together]


def check_sites_and_steps(run: lamina.Run) -> None:
    rows = [run.rows(site, step=step) for step in range(3) for site in "xy"]
    assert found(rows) == [[0, 1, 2, 3], [4, 5]]
    assert found(rows, groups="topic") == [[0, 1, 2, 3], [4, 5]]
    assert found(rows[::-1]) == [[0, 1], [2, 3, 4, 5]]


def test_sites_of_a_step_and_steps_in_another_order_are_together(run: lamina.Run) -> None:
    check_sites_and_steps(run)


def test_pairing_by_order_is_noticed(run: lamina.Run) -> None:
    with broken("rows_pair_by_order"), pytest.raises(AssertionError):
        check_sites_and_steps(run)


def test_runs_with_the_same_examples_are_together(run: lamina.Run, tmp_path: Path) -> None:
    other = lamina.Run.create(tmp_path / "other")
    with other.writer() as writer:
        order = np.random.default_rng(0).permutation(10)
        writer.append({"x": torch.from_numpy(order)[:, None].float()}, step=7, example=order)
    rows = [run.rows("x", step=0), other.refresh().rows("x"), run.rows("y", step=1)]
    assert found(rows) == [[0, 1, 2]]
    # a column that one of them lacks groups the others
    assert found(rows, groups="topic") == [[0, 2]]


def test_rows_that_share_some_names_pair_otherwise_and_are_apart(run: lamina.Run) -> None:
    whole = run.rows("x", step=0)
    assert found([whole, whole[:5], whole[3:]]) == [[0], [1], [2]]


def test_matrices_in_memory_pair_by_order_where_they_are_as_long() -> None:
    rows = [Rows.of(torch.zeros(n, d)) for n, d in ((5, 2), (6, 2), (5, 7), (6, 1))]
    assert [cohort.members for cohort in cohorts(rows)] == [[0, 2], [1, 3]]
    assert [cohort.members for cohort in cohorts(rows, groups=[1, 1, 2, 2, 3])] == [[0, 2]]


def test_groups_that_differ_are_apart() -> None:
    rows = [
        Rows.of(torch.zeros(4, 2), {"example": examples}) for examples in ([1, 1, 2, 2], [1, 2, 2, 2], [1, 1, 2, 2])
    ]
    assert [cohort.members for cohort in cohorts(rows)] == [[0, 2], [1]]
