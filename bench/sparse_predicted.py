"""How fast would sparse activations be on an H100, by the instructions that their compiled kernels have?

Nothing is measured here: see `predicted`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import predicted
from bench.command import is_quick
from bench.predicted import HERTZ, INSTRUCTIONS, PROCESSORS, PRODUCTS
from bench.table import Table

ROWS, UNITS, KEPT = 8192, 131_072, 32
SAMPLE = 4096
"""Units that are looked at beforehand."""
BYTES = 3.35e12
"""Of memory, a second."""
MEASURED = 816e12
"""Operations a second of cuBLAS, as others measured it on the same chip."""
WIDTHS = (1024, 2048, 4096)
PRODUCT = "% of own product"


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    rows = [*encoders(), *decoders()]
    beside_the_product(rows)
    Table(
        question="How fast would sparse activations be on an H100, by the instructions of their kernels?",
        columns=[
            *("what", "d", "instructions", "ms, in turn", "ms, at once", "TFLOP/s", "% of cuBLAS", PRODUCT),
            "% of bandwidth",
        ],
        rows=rows,
        notes=[
            *predicted.NOTES,
            f"bfloat16; encode: {ROWS:,} rows, {UNITS:,} units, {KEPT} of them kept, with a bias; decode: as many rows "
            f"of {KEPT} entries",
            f"instructions: those of a pre-activation, or of a gathered number; in turn: operations at {PRODUCTS} a "
            f"clock of a multiprocessor, and then all counted instructions at {INSTRUCTIONS}; at once: the longer of "
            "both. The truth lies between, where loads do not wait",
            f"with the product of the sample of {SAMPLE:,} units, and of what is stored and read of groups by their "
            f"room ({BYTES / 1e12} TB/s)",
            "left out: topk of the sample and of maxima, copies in torch, launches",
            "product, stored: the same walk by a kernel that stores all pre-activations in bfloat16, in such tiles; "
            f"{PRODUCT}: its time as a share of the encoder's, both in turn, both at once; goal 90 %",
            f"% of cuBLAS: of {MEASURED / 1e12:.0f} TFLOP/s, which others measured; goal 80 %. Goal of decoding: 80 % "
            "of bandwidth",
            "% of bandwidth: the bytes that are gathered and written, of what memory moves in the time; no row is "
            "taken to be in a cache, and none to be waited for",
            "`python -m bench.sparse_encode` measures encoders on a GPU, `bench.sparse_decode` the others",
        ],
        packages=["lamina-kernels"],
    ).publish("sparse_predicted", quick=quick)


def encoders() -> list[dict[str, Any]]:
    counts = predicted.counts("sparse_encode")
    found = []
    for name, row in (("encode, TopK", "bf16 d1024 bias"), ("encode, JumpReLU", "bf16 d1024 bias shift")):
        # What is done with a pre-activation does not depend on the width.
        more = counts[row] - counts["bf16 d1024 bias"]
        for d in WIDTHS:
            instructions = predicted.at_width(counts, "bf16 d{} bias", d) + more
            made = products(name, d, ROWS * UNITS, instructions)
            extra = sampled(d) + stored()
            found.append(told(made, 2.0 * ROWS * UNITS * d, {"ms, in turn": extra, "ms, at once": extra}))
    for d in WIDTHS:
        instructions = predicted.at_width(counts, "bf16 d{} product", d)
        made = products("product, stored", d, ROWS * UNITS, instructions)
        written = 2.0 * ROWS * UNITS / BYTES
        left = max(0.0, written - 1e-3 * made["ms, at once"])
        found.append(told(made, 2.0 * ROWS * UNITS * d, {"ms, in turn": written, "ms, at once": left}))
    return found


def beside_the_product(rows: list[dict[str, Any]]) -> None:
    """Say of encoders what share of their time the stored product takes."""
    product = {row["d"]: row for row in rows if row["what"] == "product, stored"}
    for row in rows:
        if row["what"].startswith("encode"):
            shares = [product[row["d"]][each] / row[each] for each in ("ms, in turn", "ms, at once")]
            row[PRODUCT] = " to ".join(f"{100 * share:.0f}" for share in shares)


def products(what: str, d: int, scores: int, instructions: float) -> dict[str, Any]:
    """Return a row with the times of all scores."""
    seconds = scores / (PROCESSORS * HERTZ)
    return {
        "what": what,
        "d": d,
        "instructions": instructions,
        "ms, in turn": 1e3 * seconds * predicted.clocks(2 * d, 0, instructions),
        "ms, at once": 1e3 * seconds * max(2 * d / PRODUCTS, instructions / INSTRUCTIONS),
    }


def told(row: dict[str, Any], operations: float, extra: Mapping[str, float]) -> dict[str, Any]:
    """Add seconds to both times, and say what speeds these are."""
    for each, seconds in extra.items():
        row[each] += 1e3 * seconds
    speeds = [operations / (1e-3 * row[each]) for each in ("ms, in turn", "ms, at once")]
    row["TFLOP/s"] = " to ".join(f"{speed / 1e12:.0f}" for speed in speeds)
    row["% of cuBLAS"] = " to ".join(f"{100 * speed / MEASURED:.0f}" for speed in speeds)
    return row


def sampled(d: int) -> float:
    """Return the seconds of the product with the sample, which is written and read."""
    return 2.0 * ROWS * SAMPLE * d / MEASURED + 3 * 4.0 * ROWS * SAMPLE / BYTES


def stored() -> float:
    """Return the seconds in which as many groups as a sample lets expect are stored, and maxima and k groups read."""
    step = UNITS // SAMPLE
    rank = KEPT // step + 3
    groups = 2 * rank * step
    return 4.0 * ROWS * (groups * 33 + 2 * (2 * groups) + KEPT * 33) / BYTES


def decoders() -> list[dict[str, Any]]:
    counts = predicted.counts("sparse_decode")
    d, entries = 2048, ROWS * KEPT
    found = []
    for name, row, written in (
        ("decode", "bf16 d2048 sums", ROWS * d),
        ("gradient of values", "bf16 d2048 products", 2 * entries),
        ("gradient of the dictionary", "bf16 d2048 by unit", UNITS * d),
    ):
        work = entries * d * counts[row] / (INSTRUCTIONS * PROCESSORS * HERTZ)
        memory = 2.0 * (entries * d + written) / BYTES
        found.append(
            {
                "what": name,
                "d": d,
                "instructions": counts[row],
                "ms, in turn": 1e3 * (work + memory),
                "ms, at once": 1e3 * max(work, memory),
                "% of bandwidth": f"{100 * memory / (work + memory):.0f} to {100 * memory / max(work, memory):.0f}",
            }
        )
    return found


if __name__ == "__main__":
    main()
