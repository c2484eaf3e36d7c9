"""How fast would reductions over pairs of rows be on an H100, by the instructions that their compiled kernels have?

Nothing is measured here: see `predicted`, and `split_predicted` for what stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import predicted, split_predicted
from bench.command import is_quick
from bench.gram_reductions import RBF, REDUCTIONS, VALUES, Reduction, clocks, counted
from bench.predicted import EXPONENTIALS, INSTRUCTIONS, PRODUCTS
from bench.split_predicted import CACHE, CLOCKS, MEMORY
from bench.table import Table


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    rows = [told(one) for one in REDUCTIONS]
    Table(
        question="How fast would reductions over pairs of rows be on an H100, by the instructions of their kernels?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            *predicted.NOTES,
            f"clocks of a multiprocessor a pair, one after the other: operations of half precision at {PRODUCTS}, "
            f"exponentials and square roots at {EXPONENTIALS}, all counted instructions at {INSTRUCTIONS}",
            "% of exp: of one exponential a pair; % of peak: of bfloat16's products; % of FADD: of 2 additions a pair "
            "and dimension; x KeOps: beside the subtraction and multiplication a dimension that it cannot do without",
            "x row sums: the time of a layer beside row sums of it; where a program moves values through a room of its "
            "own, first as if nothing waited for these bytes, then with them behind all else (a store of 2 bytes a "
            "value, and the loads of all layers' values for a product, or for a mixture); all other columns are of the "
            "former",
            "rows wider than a tile: those of widths that are not compiled lie on the line through two that are; what "
            "loads the next columns beside the products of these is counted behind them",
            "left out: the diagonal, launches, and whatever the kernels wait for; of argmin and nearest also groups "
            "that enter their lists",
            *split_predicted.NOTES,
            *nearest_notes(rows),
            "`python -m bench.gram_sums` measures them on a GPU",
        ],
        packages=["lamina-kernels"],
    ).publish("gram_predicted", quick=quick)


def told(one: Reduction) -> dict[str, Any]:
    """Return the row of a reduction."""
    instructions, took = counted(one), clocks(one)
    row: dict[str, Any] = {"what": one.name, "d": one.dim, "instructions a pair": instructions}
    row |= {"clocks a pair": took, "G pairs/s": CLOCKS / took / 1e9}
    row["% of exp"] = f"{100 / EXPONENTIALS / took:.0f}" if one.exponentials else None
    peak = one.passes * one.operations / PRODUCTS / took
    row["TFLOP/s"] = peak * PRODUCTS * CLOCKS / 1e12 if one.operations else None
    row["% of peak"] = f"{100 * peak:.0f}" if one.operations else None
    row["% of FADD"] = None if one.operations else f"{100 * 2 * one.dim / INSTRUCTIONS / took:.0f}"
    row["x row sums"] = None
    if one.beside:
        other = clocks(next(each for each in REDUCTIONS if each.name == one.beside))
        behind = took + one.passes * split_predicted.room(one.room)
        row["x row sums"] = " to ".join(dict.fromkeys(f"{each / other:.1f}" for each in (took, behind)))
    row["x KeOps"] = f"{split_predicted.keops(one.dim, VALUES) / took:.1f}" if one.name.startswith(RBF) else None
    row |= beside_split(one, took)
    return row | {"goal": one.goal}


def beside_split(one: Reduction, took: float) -> dict[str, Any]:
    """Return the cells of the split path."""
    names = ["split, G pairs/s", "break-even, % of peak"]
    if one.beside:
        return dict.fromkeys(names)
    if one.products == "none":
        return {names[0]: f"{CLOCKS / split_predicted.of_differences(one.dim) / 1e9:.0f}", names[1]: None}
    # Without a pass for each block of columns, or for each side.
    operations = one.operations
    splits = [split_predicted.clocks(operations, one.products, bandwidth) for bandwidth in (MEMORY, CACHE)]
    even = [split_predicted.break_even(one.passes * operations, took, split) for split in splits]
    told = [CLOCKS / splits[0] / 1e9, CLOCKS / splits[1] / 1e9]
    return {
        names[0]: " to ".join(f"{each:,.0f}" for each in told),
        # One word where neither can be reached.
        names[1]: " to ".join(dict.fromkeys("never" if share > 1 else f"{100 * share:.0f}" for share in even)),
    }


def nearest_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say how long the nearest rows of a million take, and what others published."""
    n, d, candidates = 1e6, 128, 256
    by_name = {row["what"]: row for row in rows}
    half, single = (
        n * n / 1e9 / by_name[f"nearest, k = 16{more}"]["G pairs/s"] for more in ("", ", as 6 products of bfloat16")
    )
    # Torch reads rows, writes them twice, and goes over what it wrote in float64 three times.
    measured = n * candidates * d * (2 * 3 + 8 * 6) / MEMORY
    return [
        f"nearest, a million rows of {d} among themselves: {half:.2f} s in bfloat16, {single:.2f} s in float32, and "
        f"{measured:.2f} s more for the distances of {candidates} candidates a row in float64, by the bytes that torch "
        "moves for them",
        "published, a million rows among a million, other GPUs: on an A30, k = 32, RAFT (now cuVS) fused 11.2 s, "
        "FAISS 16.1 s; k = 64, 11.6 s and 23.9 s (NVIDIA/raft#324, width not said); flashlib's `knn_build` sustains "
        "600 TFLOP/s in bfloat16 and 260 in float32 on an H200 (its roofline.py), 0.43 s and 0.98 s of this product; "
        "cuVS 1.38 ms where torch takes 0.40 on an H100 with few queries (NVIDIA/cuvs#277); on Blackwell a split "
        "1-nearest is ahead of a fused one on many shapes (NVIDIA/cuvs#1768)",
    ]


if __name__ == "__main__":
    main()
