"""How fast would sums over pairs of rows be on an H100, by the instructions that their compiled kernels have?

Nothing is measured here: see `predicted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import predicted
from bench.command import is_quick
from bench.predicted import EXPONENTIALS, HERTZ, INSTRUCTIONS, PROCESSORS, PRODUCTS
from bench.table import Table

VALUES = 16
"""Columns of what kernel values are multiplied with."""


class Reduction(NamedTuple):
    """A reduction over all pairs.

    Attributes:
        name: How the table calls it.
        dim: The width of the rows.
        row: What the table of compiled kernels calls it.
        operations: Operations of half precision a pair.
        exponentials: Exponentials, square roots and logarithms a pair.
    """

    name: str
    dim: int
    row: str
    operations: float
    exponentials: float = 1


REDUCTIONS = [
    Reduction("RBF product, 16 columns", 64, "bf16 d64 rbf", 2 * (64 + VALUES)),
    Reduction("RBF product, 16 columns", 128, "bf16 d128 rbf", 2 * (128 + VALUES)),
    Reduction("RBF row sums", 64, "bf16 d64 rbf row sums", 2 * 64),
    Reduction("RBF product, 16 columns, as 3 products of bfloat16", 64, "fp32 d64 rbf bf16x3", 6 * (64 + VALUES)),
    Reduction("RBF product, 16 columns, as 6 products of bfloat16", 64, "fp32 d64 rbf", 12 * (64 + VALUES)),
    Reduction("Laplace product, 16 columns", 64, "bf16 d64 laplace", 2 * (64 + VALUES), 2),
    Reduction("softmax of squared distances, 64 columns", 64, "bf16 d64 softmax v64", 2 * (64 + 64)),
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    counts = predicted.counts("gram_sums")
    rows: list[dict[str, Any]] = []
    for one in REDUCTIONS:
        took = predicted.clocks(one.operations, one.exponentials, counts[one.row])
        row: dict[str, Any] = {"what": one.name, "d": one.dim, "instructions a pair": counts[one.row]}
        row |= {"clocks a pair": took, "G pairs/s": PROCESSORS * HERTZ / took / 1e9}
        row["% of one exponential a pair"] = f"{100 / EXPONENTIALS / took:.0f}"
        rows.append(row)
    Table(
        question="How fast would sums over pairs of rows be on an H100, by the instructions of their kernels?",
        columns=["what", "d", "instructions a pair", "clocks a pair", "G pairs/s", "% of one exponential a pair"],
        rows=rows,
        notes=[
            *predicted.NOTES,
            f"clocks of a multiprocessor a pair, one after the other: operations of half precision at {PRODUCTS}, "
            f"exponentials and square roots at {EXPONENTIALS}, all counted instructions at {INSTRUCTIONS}",
            "left out: the diagonal, launches, and whatever the kernels wait for; and what the tables do not count: "
            "rows wider than a tile, and L1",
            "goals, of the limit of exponentials: 40 % at d = 64, 33 % at d = 128",
            "`python -m bench.gram_sums` measures them on a GPU",
        ],
        packages=["lamina-kernels"],
    ).publish("gram_predicted", quick=quick)


if __name__ == "__main__":
    main()
