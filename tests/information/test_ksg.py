"""KSG against the definition in loops, closed forms, and its errors against draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import digamma

import lamina
from lamina import information
from lamina.errors import SchemaError
from tests.faults import broken
from tests.measures.cases import normal


def pair(seed: int, n: int, d: int, by: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of d features each that correlate one by one."""
    x, y = normal(2 * seed, n, d), normal(2 * seed + 1, n, d)
    return x, by * x + math.sqrt(1 - by * by) * y


def truth(d: int, by: float) -> float:
    return -d / 2 * math.log(1 - by * by)


def reference(x: torch.Tensor, y: torch.Tensor, k: int, algorithm: int, groups: np.ndarray) -> float:
    """The definition, row by row."""
    x, y = (side.double() - side.double().mean(0) for side in (x, y))
    y = y * float(np.float32((x.square().mean() / y.square().mean()).sqrt()))
    total = 0.0
    for i in range(len(x)):
        other = torch.from_numpy(groups != groups[i])
        dx, dy = ((side[other] - side[i]).abs().amax(1) for side in (x, y))
        order = torch.maximum(dx, dy).argsort()[:k]
        if algorithm == 1:
            far = torch.maximum(dx, dy)[order[-1]]
            counts = [int((apart < far).sum()) + 1 for apart in (dx, dy)]
        else:
            counts = [int((apart <= apart[order].max()).sum()) for apart in (dx, dy)]
        total += digamma(len(dx) + 1.0) - digamma(counts[0]) - digamma(counts[1])
    return float(digamma(k) - (algorithm - 1) / k + total / len(x))


SINGLE, TEXTS = np.arange(150), np.arange(150) // 7


def check_definition() -> None:
    for d, k in ((1, 1), (1, 4), (2, 3), (4, 3)):
        for groups in (SINGLE, TEXTS):
            x, y = pair(d, 150, d, 0.7)
            for algorithm in (1, 2):
                found = information.ksg(x, y[:, :2], k=k, algorithm=algorithm, groups=groups)  # type: ignore[arg-type]
                expected = reference(x, y[:, :2], k, algorithm, groups)
                assert found.value == pytest.approx(expected, abs=1e-10), (d, k, algorithm)


def test_it_is_the_definition() -> None:
    check_definition()


@pytest.mark.parametrize("name", ["ksg_counts_its_neighbor", "neighbors_are_of_any_group", "ksg_forgets_the_nearest"])
def test_faults_are_noticed(name: str) -> None:
    with broken(name), pytest.raises(AssertionError):
        check_definition()


@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("by", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("d", [1, 2])
def test_the_information_of_normal_numbers(d: int, by: float, algorithm: Any) -> None:
    found = information.ksg(*pair(0, 3000, d, by), algorithm=algorithm)
    assert abs(found.value - truth(d, by)) < 3 * found.stderr + 0.02 * d
    assert found.stderr < 0.04


def test_a_map_of_each_feature_changes_little() -> None:
    x, y = pair(1, 3000, 1, 0.8)
    plain, bent = information.ksg(x, y), information.ksg((x / 2).exp(), y + y.pow(3) / 9)
    assert abs(plain.value - bent.value) < 0.05


def test_a_constant_feature_tells_nothing() -> None:
    x, y = pair(2, 400, 1, 0.6)
    wide = torch.cat([y, torch.full((400, 1), 3.0)], 1)
    found = information.ksg(x * math.sqrt(2), wide, exclude="self")  # the spread of y is a mean over features
    assert found.parts["ties"] == 400
    assert found.value == pytest.approx(information.ksg(x, y).value, abs=0.02)
    almost = torch.zeros(400, 1)
    almost[7] = 1
    assert abs(information.ksg(x, almost).value) < 0.02


def check_ties() -> None:
    """Rows on a grid, coarse and fine: what is known of discrete rows comes out."""
    draw = np.random.default_rng(0)
    ten = draw.integers(0, 10, (2000, 1))
    same = information.ksg(ten, ten.copy())
    assert abs(same.value - math.log(10)) < 4 * same.stderr + 0.02
    assert same.parts == {"ties": 2000.0, "duplicates": 2000.0}
    assert same.seed == 0
    independent = information.ksg(ten, draw.integers(0, 10, (2000, 1)))
    assert abs(independent.value) < 4 * independent.stderr + 0.02
    x, y = pair(3, 2000, 1, 0.6)
    for step in (0.02, 0.1, 0.3):
        for algorithm in (1, 2):
            found = information.ksg((x / step).round(), (y / step).round(), algorithm=algorithm)  # type: ignore[arg-type]
            assert abs(found.value - truth(1, 0.6)) < 4 * found.stderr + 0.03, (step, algorithm, found)


def test_ties() -> None:
    check_ties()


def test_ties_that_stay_are_noticed() -> None:
    with broken("ksg_leaves_ties"), pytest.raises(AssertionError):
        check_ties()


def test_rows_at_even_distances_tie() -> None:
    found = information.ksg(torch.arange(500.0), normal(0, 500, 1))
    assert found.parts["ties"] > 0
    assert found.parts["duplicates"] == 0
    assert abs(found.value) < 4 * found.stderr
    assert information.ksg(*pair(0, 100, 1, 0.5)).seed is None


def test_the_seed_decides_ties() -> None:
    x, y = ((10 * side).round() for side in pair(4, 300, 1, 0.6))
    first, again, other = (information.ksg(x, y, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.value != other.value
    assert abs(first.value - other.value) < 3 * first.stderr


def documents(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Independent rows of 40 documents of 10, and what each document adds to both."""
    of_rows = np.repeat(np.arange(40), 10)
    x, y = (normal(4 * seed + i, 400, 1) + normal(4 * seed + 2 + i, 40, 1)[of_rows] for i in range(2))
    return x, y, of_rows


def check_errors(draws: int = 120) -> None:
    """The claimed error is that of the estimator, and its interval covers the estimator's mean."""
    for draw in (
        lambda seed: (*pair(seed, 250, 1, 0.6), None),
        lambda seed: (*pair(seed, 250, 2, 0.0), None),
        documents,
    ):
        estimates = [information.ksg(x, y, groups=groups) for x, y, groups in map(draw, range(draws))]
        values = [estimate.value for estimate in estimates]
        ends = [estimate.interval() for estimate in estimates]
        assert 0.85 < np.mean([estimate.stderr for estimate in estimates]) / np.std(values) < 1.45
        assert 0.9 <= np.mean([low < np.mean(values) < high for low, high in ends]) <= 1


def test_errors() -> None:
    check_errors()


def test_terms_taken_for_independent_are_noticed() -> None:
    with broken("ksg_takes_terms_for_independent"), pytest.raises(AssertionError):
        check_errors(60)


def test_a_difference_has_the_paired_error() -> None:
    """The same rows, moved a little: the error of the difference is that of its draws, not of two separate values."""
    differences, errors, apart = [], [], []
    for seed in range(60):
        x, y = pair(seed, 300, 1, 0.8)
        first, second = information.ksg(x, y), information.ksg(x, y + 0.3 * normal(999 + seed, 300, 1))
        differences.append(second.value - first.value)
        errors.append((second - first).stderr)
        apart.append(math.hypot(first.stderr, second.stderr))
    assert 0.75 < np.mean(errors) / np.std(differences) < 1.5
    assert np.mean(apart) > 1.2 * np.mean(errors)


def test_tokens_of_a_text_tell_of_the_text() -> None:
    texts = np.arange(600) // 6
    of_texts = normal(0, 100, 2)[texts]
    x, y = (of_texts[:, :1] + 0.01 * normal(1, 600, 1), normal(2, 100, 1)[texts] + 0.01 * normal(3, 600, 1))
    across, within = information.ksg(x, y, groups=texts), information.ksg(x, y, groups=texts, exclude="self")
    assert abs(across.value) < 0.4
    assert within.value > 1


def test_a_stored_site(tmp_path: Path) -> None:
    x, y = (side.float() for side in pair(5, 200, 2, 0.7))
    texts = np.arange(200) // 4
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": x, "y": y}, step=0, example=texts, position=np.arange(200) % 4)
    run.refresh()
    assert information.ksg(run.rows("x"), run.rows("y")) == information.ksg(x, y, groups=texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 .*give at least 1"),
        ({"k": 50}, "k=50 .* 49 rows"),
        ({"k": 30, "groups": np.arange(50) // 25}, "k=30 .* 25 rows of other groups"),
        ({"algorithm": 3}, "algorithm=3"),
        ({"exclude": "text"}, "exclude='text'"),
        ({"x": torch.ones(50, 2)}, "x does not vary"),
        ({"x": [torch.zeros(25, 2), torch.zeros(25, 2)]}, "iterable"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    x, y = pair(0, 50, 2, 0.5)
    given: dict[str, Any] = {"x": x, "y": y} | options
    with pytest.raises(SchemaError, match=message):
        information.ksg(**given)


def test_two_rows() -> None:
    found = information.ksg(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0]), k=1)
    assert found.value == pytest.approx(0)  # as far in x as in y, but for the rounding of the scale
    with pytest.raises(SchemaError, match=r"k=3 .* 2 rows"):
        information.ksg(torch.arange(3.0), torch.arange(3.0))


def test_single_precision_with_a_mean_of_a_thousand() -> None:
    x, y = pair(6, 1000, 2, 0.7)
    exact, far = information.ksg(x, y), information.ksg((x + 1000).float(), (y - 1000).float())
    assert far.parts["ties"] > 0
    assert abs(far.value - exact.value) < 0.2 * exact.stderr


def test_as_many_neighbors_as_rows() -> None:
    found = information.ksg(*pair(0, 12, 1, 0.5), k=11)
    # every row is the neighbor of every other: one of x and y reaches the farthest, and what is left is little
    assert abs(found.value) < 0.5
    assert math.isfinite(found.stderr)
