"""How fast is each reduction over pairs of rows on a GPU, beside a product that is written and a reduction of it?

Without a GPU, what counted instructions predict is printed instead (`gram_predicted`); nothing is measured then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from bench import gram_predicted, limits, paths
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.gram_ways import FIRST, NEAREST, PERMUTATIONS, SPLIT, bandwidth, some
from bench.harness import TIMES, Contender, Question, answers, peers_of, speeds
from bench.nearest import differences, normal
from bench.table import Table

VALUES = 16
LAYERS = 32
REPETITIONS = 7
RULES = {"bfloat16": Within(2e-2), "float32": Within(1e-4)}
WAYS = {"bfloat16": ("",), "float32": ("", "bf16x6", "fp16x3", "bf16x3")}
ELEVEN_BITS = 256
"""The width from which on products of rows of 11 bits keep the rule."""
KEOPS_WIDEST = 1024


class Work(NamedTuple):
    """An op and its rows.

    Attributes:
        what: How the table calls it.
        op: Its name in `gram_ways`.
        form: What `lamina_kernels.gram.forms` calls whoever chooses the form.
        n: Rows.
        m: Rows of y, which is another cloud; 0 where y is x.
        d: Their width.
        flops: Operations of a pair but for 2 d, those with the values.
        passes: How often the pairs are gone through.
        dtypes: Of which rows.
    """

    what: str
    op: str
    form: str
    n: int
    m: int
    d: int
    flops: float = 0
    passes: int = 1
    dtypes: Sequence[str] = ("bfloat16",)


BOTH = ("bfloat16", "float32")
RBF = {64: 131_072, 128: 131_072, 512: 65_536, 1024: 32_768, 2048: 32_768, 4096: 16_384}
"""Rows of an RBF product, by their width."""
WORK = [
    *(Work("RBF product", "product", "product", n, 0, d, 2 * VALUES, dtypes=BOTH) for d, n in RBF.items()),
    Work("row sums of a Laplace kernel of L1", "row_sums", "row_sums", 65_536, 0, 64, dtypes=("float32",)),
    Work("argmin", "argmin", "argmin", 131_072, 131_072, 512),
    Work(f"nearest, k = {NEAREST}", "nearest", "nearest", 1_000_000, 0, 128, dtypes=BOTH),
    Work(f"cka_matrix, RBF, {LAYERS} layers", "cka_matrix", "cka_matrix", 16_384, 0, 64, 2 * LAYERS, LAYERS),
    Work(f"mmd, {PERMUTATIONS} permutations", "mmd", "mmd", 32_768, 32_768, 64, 2 * PERMUTATIONS),
    Work("sigmoid loss", "sigmoid loss", "pairwise_loss", 32_768, 32_768, 512),
    Work("InfoNCE", "InfoNCE", "pairwise_loss", 32_768, 32_768, 512),
    Work("harmonic", "harmonic", "logsumexp", 16_384, 49_152, 768),
]

GOALS = [
    "goals on an H100: an RBF product of at most 16 columns at 40 % of one exponential a pair (3870 G pairs/s) at "
    "d = 64, 33 % at d = 128; beside KeOps, in bfloat16 and within 1e-4, 3 times as fast at d = 64, 10 times from "
    "d = 256 on; 65 % of bfloat16's products from d = 512 to 4096; argmin of 131,072 codes of 512 at 450 TFLOP/s, or "
    "439 G pairs/s; L1 at 70 % of two additions a pair and dimension (15.5e12 a second), or 170 G pairs/s at d = 64; "
    "the nearest ahead of the split way",
    "expected: a product that is written and read again moves 8 bytes a pair and more, 0.4 T pairs/s at 3.35 TB/s, so "
    "that one pass is ahead where its own products take less; `bench/results/gram_predicted.md` says for each",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick, device = is_quick(__doc__, argv), best_device()
    if device == "cpu" and not quick:
        print("no GPU here: nothing is measured, what follows is predicted", file=sys.stderr)
        gram_predicted.main([])
        return
    machine = [limits.gemm(kind, device, 128 if quick else None) for kind in ("fp32", "bf16")]
    # Nothing is asked of KeOps where it is not installed.
    rows, samples, versions = [], {}, {}
    with peers_of(quick) if paths.PEERS.exists() else nullcontext() as peers:
        for dtype, rule in RULES.items():
            asked = questions(dtype, device, quick=quick, with_peers=peers is not None)
            found, seconds = answers(asked, rule=rule, limits=machine, device=device, peers=peers, quick=quick)
            rows, samples = rows + found, samples | seconds
        if peers is not None:
            versions = peers.ask("versions", packages=["pykeops"])
    for row in rows:
        row["G pairs/s"] = row["n"] * row["m"] / row["median, ms"] / 1e6
    Table(
        question="How fast is each reduction over pairs of rows on a GPU, beside a product and a reduction of it?",
        columns=["what", "dtype", "n", "m", "d", "by", "G pairs/s", *TIMES, "peak, MiB", "off by"],
        rows=rows,
        notes=[
            f"rows of normal numbers; an RBF kernel of bandwidth sqrt(d), {VALUES} columns of values; interleaved "
            f"repetitions after a comparison of {FIRST} rows, or of the one number, with float64: in bfloat16 "
            f"{RULES['bfloat16']}; in float32 {RULES['float32']}",
            "split: torch multiplies a block of rows with all others, writes the product, and reduces what it wrote; "
            "blocked: the form of that name, which is what a GPU takes from the width of `SPLIT` on",
            f"KeOps runs in float32 in a process of its own environment, in the same turns, up to d = {KEOPS_WIDEST}: "
            "it writes out a formula for every width, and compiled that of d = 4096 for more than 200 s",
            "% of the limit: of the products alone, those of rows and those with the values",
            "pairs: n m, also of what visits half of them; of cka_matrix those of one layer",
            "off by: the largest difference that the comparison found, as a share of the largest entry of the truth",
            "peak: what the first call adds to a fresh process, by torch's allocator",
            *GOALS,
            speeds(machine, samples.values()),
            f"for lamina_kernels/gram/forms.py: {switch(rows)}",
        ],
        packages=["lamina-kernels", "torch", "triton"],
        versions=versions,
        samples=samples,
    ).publish("gram_sums", device=device, quick=quick)


def switch(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the line that says from which width on "blocked" is ahead, in every dtype that was measured."""
    forms = {work.what: work.form for work in WORK}
    ahead: dict[str, dict[int, bool]] = {}
    timed: dict[tuple[str, int, str], dict[str, float]] = {}
    for row in rows:
        timed.setdefault((row["what"], row["d"], row["dtype"]), {})[row["by"]] = row["median, ms"]
    for (what, d, _), times in timed.items():
        if {"lamina", "lamina, blocked"} <= times.keys():
            by_width = ahead.setdefault(forms[what], {})
            by_width[d] = by_width.get(d, True) and times["lamina, blocked"] < times["lamina"]
    found = {}
    for form, by_width in ahead.items():
        from_here = [d for d in by_width if all(won for other, won in by_width.items() if other >= d)]
        if from_here:
            found[form] = min(from_here)
    return f"SPLIT: Mapping[str, int] = {found}"


def questions(dtype: str, device: str, *, quick: bool, with_peers: bool) -> Iterator[Question]:
    """Yield what is asked of rows of a dtype."""
    limit = "GEMM bf16" if dtype == "bfloat16" else "GEMM fp32"
    # A tiny run asks every op once.
    for work in {each.op: each for each in WORK}.values() if quick else WORK:
        if dtype not in work.dtypes:
            continue
        work = work._replace(n=200, m=work.m and 200, d=8) if quick else work
        arrays = clouds(work)
        pairs = float(work.n * (work.m or work.n)) * (4 if work.op == "mmd" else 1)
        needs = {} if work.op == "row_sums" else {limit: pairs * work.passes * (2 * work.d + work.flops)}
        options = {"dtype": dtype, "op": work.op}
        ways = [(f", {way}" if way else "", {"precision": way or None}) for way in WAYS[dtype]]
        if dtype == "float32" and work.op == "product" and work.d >= ELEVEN_BITS:
            ways.append((", tf32", {"precision": "tf32"}))
        if device != "cpu":
            # Elsewhere it is what runs anyway.
            ways.append((", blocked", {"impl": "blocked"}))
        contenders = [
            Contender(f"lamina{name}", "bench.gram_ways:fused", options | how, needs=needs) for name, how in ways
        ]
        contenders.append(Contender("split", "bench.gram_ways:split", options, needs=needs))
        if with_peers and work.op == "product" and work.d <= KEOPS_WIDEST:
            keops = {"checked": FIRST}
            contenders.append(Contender("KeOps", "bench.peer_calls.keops:product", keops, peer=True, needs=needs))
        cells = {"what": work.what, "dtype": dtype, "n": work.n, "m": work.m or work.n, "d": work.d}
        yield Question(cells, arrays, contenders, expected(work.op, arrays, dtype, device), 1 if quick else REPETITIONS)


def clouds(work: Work) -> dict[str, np.ndarray]:
    """Return rows of normal numbers; those of y share a part with those of x, or lie beside them."""
    n, m, d = work.n, work.m, work.d
    if work.op == "cka_matrix":
        common = normal(n, d, seed=n)
        return {"x": np.stack([common + normal(n, d, seed=layer) for layer in range(LAYERS)]) * np.float32(0.5**0.5)}
    arrays = {"x": normal(n, d, seed=n)}
    if work.op == "product":
        arrays["v"] = normal(n, VALUES, seed=n + 1)
    elif work.op in ("sigmoid loss", "InfoNCE"):
        arrays["x"] = normal(m, d, seed=m)
        arrays["y"] = arrays["x"] + normal(m, d, seed=m + 1)
    elif m:
        arrays["y"] = normal(m, d, seed=m + 1) + np.float32(work.op == "mmd")
    return arrays


def expected(op: str, arrays: Mapping[str, np.ndarray], dtype: str, device: str) -> Mapping[str, Any]:
    """Return the true answer, in float64 from rows as they are in a dtype."""
    rows = {name: torch.from_numpy(array).to(device, getattr(torch, dtype)).double() for name, array in arrays.items()}
    x = rows["x"]
    if op == "product":
        parts = x[some(len(x))].split(64)
        kernel = (torch.cdist(part, x).square_().mul_(-0.5 / bandwidth(rows) ** 2).exp_() for part in parts)
        return {"out": torch.cat([each @ rows["v"] for each in kernel])}
    if op == "row_sums":
        return {"sums": torch.cdist(x[some(len(x))], x, p=1).div_(-x.shape[1]).exp_().sum(1)}
    if op in ("argmin", "nearest"):
        few = x[:FIRST].numpy(force=True)
        far = np.sort(differences(few, rows.get("y", x).numpy(force=True)), axis=1)
        return {"distances": far[:, 0] if op == "argmin" else far[:, 1 : NEAREST + 1]}
    return SPLIT[op](rows)


if __name__ == "__main__":
    main()
