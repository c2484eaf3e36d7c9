"""TwoNN: known dimensions, errors that cover, duplicates that are counted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import lamina
from lamina import geometry
from lamina.errors import SchemaError
from tests.faults import broken
from tests.measures.cases import normal
from tests.measures.errors import compare_with_draws
from tests.meter import peak_bytes


def torus(seed: int, n: int, d: int) -> torch.Tensor:
    """Rows spread evenly over a flat torus, which has no edge."""
    angles = 2 * math.pi * torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([angles.cos(), angles.sin()], 1)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_dimension_of_a_torus(d: int) -> None:
    estimate = geometry.twonn(torus(0, 3000, d))
    assert abs(estimate.value - d) < 3 * estimate.stderr + 0.02 * d
    assert estimate.stderr < 0.05 * d


def check_errors(draws: int = 120) -> None:
    """The claimed error is that of the estimator, and its interval covers the estimator's mean."""
    for d, texts in ((2, 1), (6, 1), (2, 10)):
        groups = np.arange(300) // texts
        compare_with_draws(geometry.twonn(normal(at, 300, d), groups=groups, exclude="self") for at in range(draws))


def test_errors() -> None:
    check_errors()


def test_ratios_taken_for_independent_are_noticed() -> None:
    with broken("twonn_takes_ratios_for_independent"), pytest.raises(AssertionError):
        check_errors(60)


def check_duplicates() -> None:
    x = torus(1, 400, 2)
    estimate = geometry.twonn(torch.cat([x, x[:30], x[:10]]))
    assert estimate.dropped == {"zero_distance": 70}
    assert estimate.n == 370
    assert math.isfinite(estimate.value)
    # near, but not the same: below the rounding of products in float32
    near = torch.cat([x, x + 1e-6 * normal(0, 400, 4)]).float() * 50
    assert "zero_distance" not in geometry.twonn(near).dropped


def test_duplicates_are_left_out_and_counted() -> None:
    check_duplicates()


@pytest.mark.parametrize("name", ["twonn_keeps_zero_distances", "nearest_trusts_products"])
def test_faults_are_noticed(name: str) -> None:
    with broken(name), pytest.raises((AssertionError, SchemaError)):
        check_duplicates()


def test_neighbors_within_a_text_tell_of_the_text() -> None:
    texts = np.arange(1200) // 6
    x = normal(0, 200, 6)[texts] + 0.05 * normal(1, 1200, 1) * normal(2, 1, 6)  # a line through each text's place
    across, within = geometry.twonn(x, groups=texts), geometry.twonn(x, groups=texts, exclude="self")
    assert within.value < 1.5
    assert across.value > within.value + 4 * within.stderr
    assert across.options["exclude"] == "group"


def test_ties_are_counted() -> None:
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0))
    with pytest.raises(SchemaError, match="different distances"):
        geometry.twonn(grid)
    estimate = geometry.twonn(torch.cat([grid, grid[:100] + 0.3]))
    assert estimate.parts["ties"] > 100


def test_ties_in_all_groups_but_one_leave_a_value() -> None:
    """As among embeddings of tokens, most of which stand in several texts: without that one group there is no value."""
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0))
    estimate = geometry.twonn(torch.cat([grid, torch.tensor([[5.3, 5.1]])]), groups=[*range(200), *range(200), 200])
    assert estimate.value > 0
    assert estimate.parts["ties"] > 300


def test_some_queries_among_all_rows() -> None:
    x = torus(2, 2000, 3)
    whole, some = geometry.twonn(x), geometry.twonn(x, queries=700, seed=1)
    assert (some.n, some.seed) == (700, 1)
    assert abs((some.value - whole.value) / some.stderr) < 4
    assert geometry.twonn(x, queries=700, seed=1).value == some.value
    assert geometry.twonn(x, queries=9999).value == whole.value


def test_a_difference_has_the_paired_error() -> None:
    """The same rows, moved a little: the error of the difference is that of its draws, not of two separate values."""
    differences, errors, apart = [], [], []
    for seed in range(60):
        x = normal(seed, 400, 3)
        first, second = geometry.twonn(x), geometry.twonn(x + 0.01 * normal(1000 + seed, 400, 3))
        differences.append(second.value - first.value)
        errors.append((second - first).stderr)
        apart.append(math.hypot(first.stderr, second.stderr))
    assert 0.6 < np.mean(errors) / np.std(differences) < 1.6
    assert np.mean(apart) > 1.5 * np.mean(errors)


def test_a_stored_site(tmp_path: Path) -> None:
    x, texts = torus(3, 300, 2).float(), np.arange(300) // 3
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": x}, step=0, example=texts, position=np.arange(300) % 3)
    stored = geometry.twonn(run.refresh().rows("x"))
    assert stored == geometry.twonn(x, groups=texts)


SNIPPET = """
import torch
from lamina import geometry
from lamina.rows import Rows, centering
from lamina.geometry import nearest
centering.BLOCK, nearest.BLOCK = 2**20, 2**20  # smaller blocks, so that few rows are many of them
class Noise:
    # rows that are made when they are read
    def __init__(self):
        import numpy as np
        self.ids, self.shape, self.dtype, self.columns = np.arange({n}), ({n}, 512), torch.float32, ["row"]
    def gather(self, positions, out, threads):
        out.copy_(torch.sin(torch.as_tensor(positions)[:, None] * torch.arange(1, 513) * 0.37))
    def narrow(self, positions):
        raise NotImplementedError
assert geometry.twonn(Rows(Noise()), queries=64).n == 64
"""


def test_memory_does_not_hold_the_rows() -> None:
    small, large = (peak_bytes(SNIPPET.format(n=n)) for n in (12_000, 36_000))
    a_row = (large - small) / 24_000
    assert a_row < 1500, f"{a_row:.0f} bytes a row; the rows themselves are 2048"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": "text"}, "exclude='text'"),
        ({"queries": 1}, "queries=1"),
        ({"groups": np.arange(50) // 25}, "50 rows in 2 groups"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        geometry.twonn(normal(0, 50, 2), **options)  # type: ignore[arg-type]


def test_what_is_no_matrix() -> None:
    with pytest.raises(SchemaError, match="iterable"):
        geometry.twonn([torch.zeros(4, 2), torch.zeros(4, 2)])
    with pytest.raises(SchemaError, match="different distances"):
        geometry.twonn(torch.zeros(10, 3))
