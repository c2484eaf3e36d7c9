"""How fast would attention be on an H100, by the instructions that its compiled kernels have?

Nothing is measured here: see `predicted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import predicted
from bench.command import is_quick
from bench.predicted import EXPONENTIALS, HERTZ, INSTRUCTIONS, PROCESSORS, PRODUCTS
from bench.table import Table


class Kernel(NamedTuple):
    """A kernel that a pass launches.

    Attributes:
        family: Its table.
        row: What the table calls it.
        products: Products of a score.
        exponentials: Exponentials of a score.
    """

    family: str
    row: str
    products: int
    exponentials: int = 1


class Pass(NamedTuple):
    """A pass over all scores.

    Attributes:
        name: How the table calls it.
        dim: The width of the heads.
        kernels: What is launched.
        convention: Operations of the pass by convention, in units of those of one product.
    """

    name: str
    dim: int
    kernels: Sequence[Kernel]
    convention: int


FORWARD, BACKWARD, DIVERGENCE = "attention", "attention_backward", "attention_divergence"
ENTROPY = Kernel(FORWARD, "bf16 d128 entropy", 2)
PASSES = [
    Pass("forward: lse, max", 128, [Kernel(FORWARD, "bf16 d128", 2)], 2),
    Pass("forward: lse, max, entropy", 128, [ENTROPY], 2),
    Pass("without values: lse, max, entropy", 128, [Kernel(FORWARD, "bf16 d128 entropy without values", 1)], 1),
    Pass("forward: these, argmax, sum p2, distance", 128, [Kernel(FORWARD, "bf16 d128 distance", 2)], 2),
    Pass("forward: these, causal", 128, [Kernel(FORWARD, "bf16 d128 distance causal", 2)], 2),
    Pass("forward: lse, max", 64, [Kernel(FORWARD, "bf16 d64", 2)], 2),
    Pass("forward: lse, max, entropy", 64, [Kernel(FORWARD, "bf16 d64 entropy", 2)], 2),
    Pass("forward: these, argmax, sum p2, distance", 64, [Kernel(FORWARD, "bf16 d64 distance", 2)], 2),
    Pass("forward: these, argmax, sum p2, distance, causal", 64, [Kernel(FORWARD, "bf16 d64 distance causal", 2)], 2),
    Pass("forward: lse, max, entropy, causal", 256, [Kernel(FORWARD, "bf16 d256 entropy causal", 2)], 2),
    Pass(
        "forward: lse, max and received",
        128,
        [Kernel(FORWARD, "bf16 d128", 2), Kernel(BACKWARD, "bf16 d128 received", 1)],
        2,
    ),
    Pass(
        "both: entropy",
        128,
        [
            ENTROPY,
            Kernel(BACKWARD, "bf16 d128 queries entropy causal", 3),
            Kernel(BACKWARD, "bf16 d128 keys entropy", 4),
        ],
        7,
    ),
    Pass("divergence: KL", 128, [Kernel(DIVERGENCE, "bf16 d128 kl", 2, 2)], 2),
    Pass("divergence: KL, log-sum-exps known", 128, [Kernel(DIVERGENCE, "bf16 d128 kl known", 2)], 2),
    Pass("divergence: JS, log-sum-exps known", 128, [Kernel(DIVERGENCE, "bf16 d128 js known", 2, 2)], 2),
    Pass("divergence: TV, log-sum-exps known", 128, [Kernel(DIVERGENCE, "bf16 d128 tv known", 2)], 2),
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    plain = {one.dim: clocks(one)[0] for one in PASSES if one.name == "forward: lse, max"}
    rows: list[dict[str, Any]] = []
    for one in PASSES:
        took, instructions = clocks(one)
        operations = 2 * one.dim * one.convention
        row: dict[str, Any] = {"pass": one.name, "D": one.dim, "instructions a score": instructions}
        row |= {"clocks a score": took, "TFLOP/s": operations / took * PROCESSORS * HERTZ / 1e12}
        row["x forward"] = took / plain[one.dim] if one.dim in plain else None
        rows.append(row)
    Table(
        question="How fast would attention be on an H100, by the instructions that its compiled kernels have?",
        columns=["pass", "D", "instructions a score", "clocks a score", "TFLOP/s", "x forward"],
        rows=rows,
        notes=[
            *predicted.NOTES,
            f"clocks of a multiprocessor a score, one after the other: 2 D operations a product at {PRODUCTS}, "
            f"exponentials (two of KL and of JS, one of any other kernel) at {EXPONENTIALS}, all counted instructions "
            f"at {INSTRUCTIONS}",
            "bfloat16; TFLOP/s by convention: 2 products forward, 1 without values, 7 forward and backward, where both "
            "kernels of the backward pass execute 7 by themselves; of causal attention the tiles that are visited",
            "left out: the edges of windows, launches, and whatever the kernels wait for; the same formula gives 660 "
            "TFLOP/s for products and exponentials alone at D = 128, where FlashAttention-3's authors measured 648",
            "goals: 420 forward with entropy at D = 128, which adds at most 5 % (7 % at D = 64); with argmax, sum of "
            "squares and distance at most 15 % (20 %); with received at most 1.7 times the forward pass; both passes "
            "300; a divergence at most 2.2 times the forward pass",
            "JS and TV whose log-sum-exps are not known walk over the keys twice, of which the tables count one: they "
            "are left out",
        ],
        packages=["lamina-kernels"],
    ).publish("attention_predicted", quick=quick)


def clocks(one: Pass) -> tuple[float, float]:
    """Return the clocks and the instructions of a multiprocessor a score."""
    took = counted = 0.0
    for family, row, products, exponentials in one.kernels:
        instructions = predicted.counts(family)[row]
        took += predicted.clocks(products * 2 * one.dim, exponentials, instructions)
        counted += instructions
    return took, counted


if __name__ == "__main__":
    main()
