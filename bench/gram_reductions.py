"""The reductions over pairs of rows whose speed is predicted: the work of each, its compiled kernel, and its goal."""

from __future__ import annotations

from typing import NamedTuple

from bench import predicted

VALUES = 16
"""Columns of what kernel values are multiplied with."""
LAYERS = 32
PERMUTATIONS = 99


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
            2 additions a pair and dimension, "row sums" of the time of row sums of each layer.
        products: How rows are multiplied: "half", "bf16x3", "fp16x3", "bf16x6", or "none".
        passes: How often the pairs are gone through: 1/2 where one stands for its mirror image.
        room: Bytes that each pair of a pass moves through the cache, beside its rows.
        beside: What it is told as a multiple of.
    """

    name: str
    dim: int
    row: str
    operations: float
    exponentials: float = 1
    family: str = "gram_sums"
    goal: str = ""
    products: str = "half"
    passes: float = 1
    room: float = 0
    beside: str = ""


RBF, SUMS = "RBF product, 16 columns", "RBF row sums"
GOALS = {64: "40 % of exp", 128: "33 % of exp", 256: "10 x KeOps"}
SIXFOLD, THRICE, FLOAT16, ELEVEN = (f"fp32 d{{}} rbf{how}" for how in ("", " bf16x3", " fp16x3", " tf32"))
REDUCTIONS = [
    *(
        Reduction(RBF, dim, f"bf16 d{dim} rbf", 2 * (dim + VALUES), goal=GOALS.get(dim, "65 % of peak"))
        for dim in (64, 128, 256, 512, 1024, 2048, 4096)
    ),
    Reduction(SUMS, 64, "bf16 d64 rbf row sums", 2 * 64),
    Reduction(
        f"{RBF}, as 3 products of bfloat16",
        64,
        THRICE.format(64),
        6 * (64 + VALUES),
        goal="3 x KeOps",
        products="bf16x3",
    ),
    # Weights and V are three products of bfloat16.
    Reduction(
        f"{RBF}, as TF32 (rows of float16, scaled)", 256, ELEVEN.format(256), 2 * (256 + 3 * VALUES), goal="10 x KeOps"
    ),
    *(
        Reduction(f"{RBF}, as 6 products of bfloat16", dim, SIXFOLD.format(dim), 12 * (dim + VALUES), products="bf16x6")
        for dim in (64, 512)
    ),
    # The products with V are six of bfloat16.
    Reduction(f"{RBF}, as 3 products of float16", 512, FLOAT16.format(512), 6 * 512 + 12 * VALUES, products="fp16x3"),
    Reduction("Laplace product, 16 columns", 64, "bf16 d64 laplace", 2 * (64 + VALUES), 2),
    Reduction("softmax of squared distances, 64 columns", 64, "bf16 d64 softmax v64", 2 * (64 + 64)),
    Reduction("row sums of L1", 64, "fp32 d64 norm 1 row sums", 0, goal="70 % of FADD", products="none"),
    Reduction("argmin", 512, "bf16 d512 k1", 2 * 512, 0, "nearest", "450 TFLOP/s"),
    Reduction("argmin, as 6 products of bfloat16", 768, "fp32 d768 k1", 12 * 768, 0, "nearest", products="bf16x6"),
    Reduction("nearest, k = 16", 128, "bf16 d128 k16", 2 * 128, 0, "nearest", "the split path"),
    Reduction(
        "nearest, k = 16, as 6 products of bfloat16", 128, "fp32 d128 k16", 12 * 128, 0, "nearest", products="bf16x6"
    ),
    # Of two blocks of columns, each makes the kernel values anew; their products are of TF32, half as fast.
    Reduction(
        f"mmd, {PERMUTATIONS} permutations", 64, "bf16 d64 mmd 99 permutations", 2 * 64 + 4 * 64, 1, "losses", passes=2
    ),
    Reduction("sigmoid loss", 512, "bf16 d512 sigmoid", 2 * 512, 1, "losses"),
    Reduction(
        "sigmoid loss, as 6 products of bfloat16", 512, "fp32 d512 sigmoid", 12 * 512, 1, "losses", products="bf16x6"
    ),
    # One exponential for the row, one for the column.
    Reduction("InfoNCE", 512, "bf16 d512 infonce", 2 * 512, 2, "losses"),
    Reduction("InfoNCE, as 6 products of bfloat16", 512, "fp32 d512 infonce", 12 * 512, 2, "losses", products="bf16x6"),
    Reduction("harmonic", 768, "bf16 d768 harmonic", 2 * 768, 3, "losses"),
    Reduction(
        f"cka_matrix, RBF, {LAYERS} layers, each",
        64,
        "bf16 d64 rbf 32 layers",
        2 * 64 + 2 * LAYERS,
        family="layers",
        goal="2 x row sums",
        passes=0.5,
        room=2 + 4,
        beside=SUMS,
    ),
    # Beside the products of rows, <g, v>: in TF32, half as fast. Those by y are as those by x, those by V the product.
    *(
        Reduction(
            f"gradients of an {RBF}, by {by}", 64, row, operations + 4 * VALUES, family="gram_gradients", beside=SUMS
        )
        for by, row, operations in (
            ("x and the bandwidth", "bf16 d64 rbf", 4 * 64),
            ("x alone", "bf16 d64 rbf alone", 4 * 64),
            ("the bandwidth alone", "bf16 d64 rbf parameters", 2 * 64),
        )
    ),
    Reduction(
        "gradients of hsic, RBF, each kernel",
        64,
        "bf16 d64 rbf 2 layers",
        6 * 64,
        2,
        "layers_gradients",
        room=2 + 2 * 2 + 4,
        beside=SUMS,
    ),
    Reduction(
        f"gradients of cka_matrix, RBF, {LAYERS} layers, each",
        64,
        "bf16 d64 rbf 32 layers",
        6 * 64,
        2,
        "layers_gradients",
        room=2 + 2 * LAYERS + 4,
        beside=SUMS,
    ),
]


def counted(one: Reduction) -> float:
    """Return the instructions a pair, of one pass."""
    counts = predicted.counts(one.family)
    return counts[one.row] if one.row in counts else predicted.at_width(counts, "bf16 d{} rbf", one.dim)


def clocks(one: Reduction) -> float:
    """Return the clocks of a multiprocessor a pair."""
    return one.passes * predicted.clocks(one.operations, one.exponentials, counted(one))
