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
        family: The table.
        goal: What is to be reached: "% of exp" is of one exponential a pair, "% of peak" of bfloat16's, "% of FADD" of
            2 additions a pair and dimension.
    """

    name: str
    dim: int
    row: str
    operations: float
    exponentials: float = 1
    family: str = "gram_sums"
    goal: str = ""


RBF = "RBF product, 16 columns"
REDUCTIONS = [
    Reduction(RBF, 64, "bf16 d64 rbf", 2 * (64 + VALUES), goal="40 % of exp"),
    Reduction(RBF, 128, "bf16 d128 rbf", 2 * (128 + VALUES), goal="33 % of exp"),
    *(
        Reduction(RBF, dim, f"bf16 d{dim} rbf", 2 * (dim + VALUES), goal="65 % of peak")
        for dim in (512, 1024, 2048, 4096)
    ),
    Reduction("RBF row sums", 64, "bf16 d64 rbf row sums", 2 * 64),
    Reduction(f"{RBF}, as 3 products of bfloat16", 64, "fp32 d64 rbf bf16x3", 6 * (64 + VALUES)),
    Reduction(f"{RBF}, as 6 products of bfloat16", 64, "fp32 d64 rbf", 12 * (64 + VALUES)),
    Reduction("Laplace product, 16 columns", 64, "bf16 d64 laplace", 2 * (64 + VALUES), 2),
    Reduction("softmax of squared distances, 64 columns", 64, "bf16 d64 softmax v64", 2 * (64 + 64)),
    Reduction("row sums of L1", 64, "fp32 d64 norm 1 row sums", 0, goal="70 % of FADD"),
    Reduction("argmin", 512, "bf16 d512 k1", 2 * 512, 0, "nearest", "450 TFLOP/s"),
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    rows: list[dict[str, Any]] = []
    for one in REDUCTIONS:
        instructions = counted(one)
        took = predicted.clocks(one.operations, one.exponentials, instructions)
        row: dict[str, Any] = {"what": one.name, "d": one.dim, "instructions a pair": instructions}
        row |= {"clocks a pair": took, "G pairs/s": PROCESSORS * HERTZ / took / 1e9}
        row["% of exp"] = f"{100 / EXPONENTIALS / took:.0f}" if one.exponentials else None
        peak = one.operations / PRODUCTS / took
        row["TFLOP/s"] = peak * PRODUCTS * PROCESSORS * HERTZ / 1e12 if one.operations else None
        row["% of peak"] = f"{100 * peak:.0f}" if one.operations else None
        row["% of FADD"] = None if one.operations else f"{100 * 2 * one.dim / INSTRUCTIONS / took:.0f}"
        rows.append(row | {"goal": one.goal})
    Table(
        question="How fast would sums over pairs of rows be on an H100, by the instructions of their kernels?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            *predicted.NOTES,
            f"clocks of a multiprocessor a pair, one after the other: operations of half precision at {PRODUCTS}, "
            f"exponentials and square roots at {EXPONENTIALS}, all counted instructions at {INSTRUCTIONS}",
            "% of exp: of one exponential a pair; % of peak: of bfloat16's products; % of FADD: of 2 additions a pair "
            "and dimension",
            "rows wider than a tile: those of widths that are not compiled lie on the line through two that are; what "
            "loads the next columns beside the products of these is counted behind them",
            "left out: the diagonal, launches, and whatever the kernels wait for; of argmin also groups that enter its "
            "lists, and the distances of candidates in float64",
            "`python -m bench.gram_sums` measures them on a GPU",
        ],
        packages=["lamina-kernels"],
    ).publish("gram_predicted", quick=quick)


def counted(one: Reduction) -> float:
    """Return the instructions a pair."""
    counts = predicted.counts(one.family)
    return counts[one.row] if one.row in counts else predicted.at_width(counts, "bf16 d{} rbf", one.dim)


if __name__ == "__main__":
    main()
