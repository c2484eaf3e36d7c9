"""Plans: what takes least time, and what fits."""

from __future__ import annotations

import pytest

from lamina.measures.registry import measures
from lamina.similarity.planning import CALLS, FEATURES, TILES, Work, components, plan

GIB = 2**30


def every_pair(count: int) -> list[tuple[int, int]]:
    return [(a, b) for b in range(count) for a in range(b)]


@pytest.mark.parametrize(
    ("n", "d", "name"),
    [(20_000, 384, FEATURES), (200_000, 64, FEATURES), (2_000, 384, TILES), (2_000, 4_096, TILES), (500, 64, TILES)],
)
def test_what_is_cheaper_is_chosen(n: int, d: int, name: str) -> None:
    chosen = plan([(n, d)] * 24, every_pair(24), 8 * GIB)
    assert chosen.name == name
    assert (chosen.passes, chosen.bytes) == (1, 24 * n * d * 4)
    assert chosen.seconds > 0
    assert str(chosen).startswith(f"{name}: 1 pass over the rows, ")


def test_steps_that_share_no_pair_are_planned_one_by_one() -> None:
    pairs = [(24 * step + a, 24 * step + b) for step in range(20) for a, b in every_pair(24)]
    one, twenty = plan([(20_000, 384)] * 24, every_pair(24)), plan([(20_000, 384)] * 480, pairs)
    assert (twenty.name, twenty.passes, twenty.bytes) == (one.name, 1, 20 * one.bytes)
    assert twenty.seconds == pytest.approx(20 * one.seconds)


def test_what_does_not_fit_is_held_a_block_at_a_time_and_read_again() -> None:
    shapes, pairs = dict.fromkeys(range(48), (20000, 384)), every_pair(48)
    whole, half = (Work.of(shapes, pairs, budget) for budget in (8 * GIB, GIB))
    assert (len(whole.blocks), whole.passes) == (1, 1)
    assert len(half.blocks) > 1
    assert half.passes == len(half.blocks)
    assert sorted(one for block in half.blocks for one in block) == list(range(48))
    # every pair has its turn, once, and while both of it are held
    met = []
    for block, beside in half.turns(pairs):
        for other, found in beside:
            assert all({a, b} <= {*block, *other} for a, b in found)
            met += found
    assert sorted(met) == sorted(pairs)


def test_what_cannot_be_held_is_called_one_by_one() -> None:
    chosen = plan([(20_000_000, 384)] * 3, every_pair(3), GIB)
    assert (chosen.name, chosen.passes) == (CALLS, 4)


def test_kernels_without_features_are_made_in_tiles() -> None:
    pairs = every_pair(24)
    linear, rbf = (plan([(200_000, 64)] * 24, pairs, 8 * GIB, kernel=kernel) for kernel in ("linear", "rbf"))
    assert (linear.name, rbf.name) == (FEATURES, TILES)
    assert rbf.seconds > linear.seconds


def test_components_share_no_matrix() -> None:
    assert components([(5, 6), (1, 2), (3, 1), (6, 6), (7, 7)]) == [[(5, 6), (6, 6)], [(1, 2), (3, 1)], [(7, 7)]]


def test_cka_says_that_it_has_a_grid() -> None:
    grid = measures()["similarity.cka"].grid
    assert grid is not None
    assert grid.plan([(2_000, 384)] * 24, every_pair(24)).name == TILES
