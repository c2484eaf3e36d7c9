"""CKA of what a run holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lamina
from lamina import similarity
from tests.faults import broken
from tests.meter import peak_bytes

GROUPS = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 2, 9, 1, 1, 3, 3])
X = torch.randn(len(GROUPS), 5, generator=torch.Generator().manual_seed(0))
Y = torch.cat([X[:, :3], torch.randn(len(GROUPS), 3, generator=torch.Generator().manual_seed(1))], 1)
POSITION = np.concatenate([np.arange(size) for size in np.bincount(GROUPS)])


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    """Step 0 in one order, step 1 in another, without the last example."""
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        topics = [f"topic {group // 2}" for group in GROUPS]
        writer.append({"x": X, "y": Y}, step=0, example=GROUPS, position=POSITION, topic=topics)
        order = np.random.default_rng(2).permutation(np.flatnonzero(GROUPS < 11))
        columns = {"example": GROUPS[order], "position": POSITION[order]}
        writer.append({"x": X[order], "y": Y[order]}, step=1, **columns)
    return run.refresh()


def test_two_sites_are_grouped_by_example(run: lamina.Run) -> None:
    stored = similarity.cka(run.rows("x", step=0), run.rows("y", step=0))
    memory = similarity.cka(X, Y, groups=GROUPS)
    assert stored.value == pytest.approx(memory.value, abs=1e-12)
    assert stored.replicates == memory.replicates
    assert (stored.n, stored.n_groups, dict(stored.dropped)) == (40, 12, {})


def test_a_column_names_the_groups(run: lamina.Run) -> None:
    stored = similarity.cka(run.rows("x", step=0), run.rows("y", step=0), groups="topic")
    assert stored.n_groups == 6
    assert stored.value == pytest.approx(similarity.cka(X, Y, groups=GROUPS // 2).value, abs=1e-12)
    assert stored.replicates is not None
    assert stored.replicates.keys[:2] == ("topic 0", "topic 1")


def check_steps_in_another_order(run: lamina.Run) -> None:
    first = GROUPS < 11
    across = similarity.cka(run.rows("x", step=0), run.rows("y", step=1))
    expected = similarity.cka(X[torch.from_numpy(first)], Y[torch.from_numpy(first)], groups=GROUPS[first])
    assert across.value == pytest.approx(expected.value, abs=1e-6)
    assert across.dropped == {"unpaired_x": 3}
    # written in another order, the value is the same
    again = similarity.cka(run.rows("x", step=1), run.rows("y", step=1))
    assert again.value == pytest.approx(expected.value, abs=1e-6)
    assert again.stderr == pytest.approx(expected.stderr, abs=1e-6)


def test_steps_pair_by_example_and_position(run: lamina.Run) -> None:
    check_steps_in_another_order(run)


def test_pairing_by_order_is_noticed(run: lamina.Run) -> None:
    with broken("rows_pair_by_order"), pytest.raises((AssertionError, lamina.errors.SchemaError)):
        check_steps_in_another_order(run)


WRITE = """
import sys, torch, lamina
n, d = {n}, 256
run = lamina.Run.create({path!r})
with run.writer() as writer:
    for first in range(0, n, 20_000):
        generator = torch.Generator().manual_seed(first)
        x = torch.randn(20_000, d, generator=generator)
        y = torch.cat([x[:, :128], torch.randn(20_000, 128, generator=generator)], 1)
        writer.append({{"x": x, "y": y}}, step=0, example=range(first, first + 20_000))
"""
COMPARE = """
import lamina
from lamina import similarity
run = lamina.open({path!r}, io="pread")
estimate = similarity.cka(run.rows("x"), run.rows("y"))
assert estimate.n == {n} and 0.3 < estimate.value < 0.9, estimate
"""


def peak_of_linear(path: Path, n: int) -> int:
    peak_bytes(WRITE.format(path=str(path), n=n))
    return peak_bytes(COMPARE.format(path=str(path), n=n))


def test_memory_of_linear_does_not_hold_the_rows(tmp_path: Path) -> None:
    # of fewer rows, blocks are not whole
    small, large = peak_of_linear(tmp_path / "small", 80_000), peak_of_linear(tmp_path / "large", 140_000)
    a_row = (large - small) / 60_000
    # the two matrices are 2,048 bytes a row; names, examples and groups are what grows, however wide the rows are
    assert a_row < 1000, f"{a_row:.0f} bytes a row"


RBF = """
import torch
from lamina import similarity
from lamina.rows import Rows

class Noise:
    # rows that are made when they are read
    def __init__(self, seed):
        import numpy as np
        self.seed, self.ids, self.shape, self.dtype = seed, np.arange({n}), ({n}, 64), torch.float32
        self.columns = ["row"]

    def gather(self, positions, out, threads):
        out.copy_(torch.sin(torch.as_tensor(positions)[:, None] * torch.arange(1, 65) * (0.37 + self.seed)))

estimate = similarity.cka(Rows(Noise(0)), Rows(Noise(1)), kernel="rbf")
assert estimate.n == {n}
"""


def test_memory_of_rbf_does_not_grow_with_the_pairs_or_the_rows() -> None:
    small, large = (peak_bytes(RBF.format(n=n)) for n in (4_000, 24_000))
    a_row = (large - small) / 20_000
    # a kernel matrix of 24,000 rows is 2 GB in float32, the rows themselves are 512 bytes
    assert a_row < 1000, f"{a_row:.0f} bytes a row"
