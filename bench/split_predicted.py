"""What others would take for a reduction over pairs on the GPU of `predicted`: a split path, and KeOps.

Nothing is measured here. A split path multiplies with a library, writes the products, and reduces what it reads again:
it is taken to hide everything but its bytes behind these, and needs as few of them as keep the digits of an exponent.
"""

from __future__ import annotations

from bench import predicted
from bench.predicted import HERTZ, PROCESSORS, PRODUCTS

RATES = {"half": 816e12, "bf16x3": 228e12, "bf16x6": 120e12, "fp16x3": 120e12}
"""Operations a second of the library's products of half precision, and of those of float32 as accurate as ours."""
TERMS = {"half": 1, "bf16x3": 3, "bf16x6": 6, "fp16x3": 3}
"""Products of half precision that one of ours takes."""
MEMORY, CACHE = 3.35e12, 5.5e12
"""Bytes a second, of memory and of the second-level cache."""
BYTES = 8.0
"""Of a pair, whose product is written and read in float32."""
CLOCKS = PROCESSORS * HERTZ
"""Clocks of a multiprocessor, a second."""

NOTES = [
    f"split: a product at {RATES['half'] / 1e12:.0f} TFLOP/s, as others measured cuBLAS's of bfloat16 on an H200 "
    f"(flashlib's `_SUSTAINED_TFLOPS`; {RATES['bf16x3'] / 1e12:.0f} of its three products of bfloat16, "
    f"{RATES['bf16x6'] / 1e12:.0f} of three of TF32 for six of ours, or three of float16), whose float32 results are "
    "written and read once, "
    f"{BYTES:.0f} bytes a pair from memory at {MEMORY / 1e12} TB/s or from the cache at {CACHE / 1e12} (an assumption; "
    "tiles of 32 MiB, whose launches are left out); the reduction itself and V are free. L1 has no product: what "
    "kermac published of its distances (30,000 rows of 1,024, 82 ms on a GH200) stands for it",
    "break-even: the share of bfloat16's peak that our own products must reach, all other work behind them, to be as "
    "fast as the split path from memory and from the cache; above 100 the split path is ahead whatever they reach. "
    "Plain Triton is published at 40 to 48 % (attention), the best fused product and row reduction at 71 to 75 %",
]


def clocks(operations: float, products: str, bandwidth: float) -> float:
    """Return the clocks of a multiprocessor that a split path takes for a pair.

    Args:
        operations: Those of half precision that ours takes.
        products: How rows are multiplied.
        bandwidth: Where the products wait.
    """
    return (operations / TERMS[products] / RATES[products] + BYTES / bandwidth) * CLOCKS


def of_differences(d: int) -> float:
    """Return the same of sums of absolute differences."""
    return (0.082 / 30_000**2 * d / 1024 + BYTES / MEMORY) * CLOCKS


def break_even(operations: float, fused: float, split: float) -> float:
    """Return the share of the peak at which our products make up for a split path.

    Args:
        operations: Of half precision.
        fused: The clocks of ours, with products at the peak.
        split: Those of the split path.
    """
    at_peak = operations / PRODUCTS
    left = split - (fused - at_peak)
    return at_peak / left if left > 0 else float("inf")


def keops(d: int, columns: int) -> float:
    """Return the clocks of a multiprocessor that KeOps takes at least: it multiplies no matrices.

    A subtraction and a multiplication with addition a dimension, another one a column of values, one exponential.
    """
    return predicted.clocks(0, 1, 2 * d + columns)


def room(bytes_: float) -> float:
    """Return the clocks of a multiprocessor in which the cache moves some bytes."""
    return bytes_ * CLOCKS / CACHE
