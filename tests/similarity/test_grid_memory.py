"""A grid holds no more than its budget, whatever it is to compare."""

from __future__ import annotations

from tests.meter import peak_bytes

NOISE = """
import numpy as np, torch
from lamina.rows import Rows
from lamina.similarity import grid

class Noise:
    # rows that are made when they are read
    def __init__(self, seed):
        self.seed, self.shape, self.dtype, self.columns = seed, ({n}, {d}), torch.float32, ["row"]

    @property
    def ids(self):
        return np.arange({n})

    def gather(self, positions, out, threads):
        at = torch.arange(positions.start, positions.stop)
        torch.sin(at[:, None] * torch.arange(1, {d} + 1) * (0.37 + self.seed), out=out)

rows = [Rows(Noise(seed)) for seed in range({count})]
pairs = [(a, b) for b in range({count}) for a in range(b) if b - a < 3]
assert sum(1 for _ in grid.compute(rows, pairs, budget={budget} * 2**20)) == len(pairs)
"""


def test_rows_that_do_not_fit_are_not_all_held() -> None:
    options = {"n": 12_000, "d": 256, "budget": 110}
    least = peak_bytes(NOISE.format(count=2, **options))
    most = peak_bytes(NOISE.format(count=16, **options))
    # together the matrices take 187 MiB; two of them are held in either case
    assert most - least < 110 * 2**20
