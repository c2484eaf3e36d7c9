"""How long does CKA take of all pairs of sites at each step: in one go, call by call, and by peers?

Two of the 20 steps are timed, and a few of the pairs of what goes pair by pair; it takes about four minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import combinations
from time import perf_counter
from typing import Any

import numpy as np

import lamina
from bench import limits, paths
from bench.agreement import Within
from bench.command import is_quick
from bench.dense_cka import truth
from bench.harness import Case, as_case, interleave, speeds
from bench.peers import Worker
from bench.table import Table, spread
from lamina import similarity
from lamina.measures.registry import measures
from lamina.rows import Rows

SITES, STEPS, WIDTH = 24, 20, 384
SIZES = (20_000, 2_000)
TIMED, REPETITIONS = 2, 3
PEERS = {"pytorch-cka": ("from_features", 8_000), "ckatorch": ("ckatorch", 4_000)}
"""What is called, and the rows that it is given at most: its matrices of n x n leave no room for more."""
RULE = Within(1e-4)

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected, n = 20,000: 300 products of 2 n d^2 operations a step (24 sites with themselves, 276 pairs), 1.77 TFLOP "
    "in float32, 35 in all; kernel values would take L n^2 d + L^2 n^2 = 3.9; the jackknife's sums a tenth on top",
    "expected, n = 2,000: kernel values take 0.04 TFLOP a step, products of features 0.18; tiles of 63 rows, one for "
    "each two buckets, are small for a matrix product: half of its speed",
    "expected, call by call: three products a pair instead of one, and moments of 32 buckets in float64: 4 to 8 times "
    "slower; peers need two Gram matrices in float64 a pair, n / d times the operations at half the speed: 100 times",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    sites, timed, repetitions = (4, 1, 1) if quick else (SITES, TIMED, REPETITIONS)
    machine = [limits.gemm("fp32", "cpu", 128 if quick else None)]
    rows, samples, versions = [], {}, {}
    peers = None if quick and not paths.PEERS.exists() else Worker(paths.PEERS)
    try:
        for n in (200,) if quick else SIZES:
            run = make(sites, timed, n, 8 if quick else WIDTH)
            names = run.sites()["site"].to_list()
            subjects = [[run.rows(name, step=step) for name in names] for step in range(timed)]
            width = subjects[0][0].width
            check(subjects[0])
            # what is timed, and how many of them there are in all
            count = STEPS * sites * (sites - 1) // 2
            cases: dict[str, Case] = {limit.name: as_case(limit.run) for limit in machine}
            cases["lamina, in one go"] = as_case(lambda subjects=subjects: in_one_go(subjects))
            cases["lamina, call by call"] = as_case(lambda subjects=subjects: by_calls(subjects[0]))
            times: dict[str, tuple[float, str]] = {
                "lamina, in one go": (STEPS / timed, f"{timed} of {STEPS} steps"),
                "lamina, call by call": (count / CALLS, f"{CALLS} pairs"),
            }
            for name, (call, most) in PEERS.items() if peers else ():
                assert peers is not None
                given = min(n, most)
                x, y = (each.gather(range(given)).numpy() for each in subjects[0][:2])
                peers.prepare(name, f"bench.peer_calls.cka_peers:{call}", {"x": x, "y": y}, "cpu", {})
                RULE.check(name, peers.result(name), {"cka": truth(x, y, None)})
                cases[name] = as_case(lambda name=name: peers.ask("seconds", case=name))
                scaled = "" if given == n else f" of {given:,} rows, times {(n / given) ** 2:g}"
                times[name] = count * (n / given) ** 2, f"1 pair{scaled}"
            found = {name: phases["time"] for name, phases in interleave(cases, repetitions, f"n = {n}").items()}
            samples[f"n = {n}"] = found
            grid = measures()["similarity.cka"].grid
            assert grid is not None
            pairs = list(combinations(range(sites), 2))
            plan = grid.plan([(n, width)] * sites, pairs)
            products = STEPS * min(
                (len(pairs) + sites) * 2.0 * n * width**2, 1.0 * sites * n**2 * width + sites**2 * n**2
            )
            least = products * spread(found["GEMM fp32"]).median / machine[0].work
            for name, (factor, what) in times.items():
                took = [factor * value for value in found[name]]
                rows.append(
                    {
                        "n": n,
                        "by": f"{name}: {plan.name}" if name == "lamina, in one go" else name,
                        "timed": what,
                        f"all {count:,} pairs, s": spread(took).median,
                        "least, s": min(took),
                        "the cheaper plan's products, s": least,
                        "times the products": spread(took).median / least,
                    }
                )
            if peers is not None:
                versions = peers.ask("versions", packages=["pytorch-cka", "ckatorch"])
                peers.forget()
    finally:
        if peers is not None:
            peers.close()
        shutil.rmtree(paths.SCRATCH / "grid", ignore_errors=True)
    Table(
        question="How long does CKA take of all pairs of 24 sites at 20 steps?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            f"{SITES} sites x {STEPS} steps, d = {WIDTH}, float32 rows of a run, in the page cache, each an example of "
            f"its own; {REPETITIONS} interleaved repetitions after a comparison of some pairs with float64: {RULE}",
            "steps share no pair, and pairs of a loop nothing: a few are timed and the rest counted, as the table says",
            "lamina gives a jackknife error with each value, the same in one go and by calls; peers the value alone",
            "the products: operations of the cheaper plan (products of features, or kernel values and their products) "
            "at the speed of a GEMM in this run",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina", "lamina-kernels", "torch", "numpy"],
        versions=versions,
        samples=samples,
    ).publish("cka_grid", quick=quick)


CALLS = 3


def make(sites: int, steps: int, n: int, width: int) -> lamina.Run:
    """Write a run whose sites share some features."""
    path = paths.SCRATCH / "grid"
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    run, generator = lamina.Run.create(path), np.random.default_rng(n)
    common = generator.standard_normal((n, width // 8), np.float32)
    with run.writer() as writer:
        for step in range(steps):
            named = {}
            for site in range(sites):
                mixed = common @ generator.standard_normal((width // 8, width), np.float32)
                named[f"blocks.{site}.output"] = mixed + generator.standard_normal((n, width), np.float32)
            writer.append(named, step=step, example=np.arange(n))
    return run.refresh()


def estimates(subjects: Sequence[Rows], pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, Any]]:
    grid = measures()["similarity.cka"].grid
    assert grid is not None
    return grid.compute(subjects, pairs)


def check(subjects: Sequence[Rows]) -> None:
    """Compare some pairs with their values in float64, and with those of calls."""
    pairs = [(0, 1), (1, 2), (0, 3)]
    found = dict(estimates(subjects, pairs))
    for number, (a, b) in enumerate(pairs):
        x, y = (subjects[one].gather(slice(None)).numpy() for one in (a, b))
        RULE.check("lamina, in one go", {"cka": np.asarray(found[number].value)}, {"cka": truth(x, y, None)})
    called = similarity.cka(subjects[0], subjects[1])
    assert abs(called.stderr / found[0].stderr - 1) < 1e-3, "another error than a call's"


def in_one_go(steps: Sequence[Sequence[Rows]]) -> float:
    pairs = list(combinations(range(len(steps[0])), 2))
    start = perf_counter()
    for subjects in steps:
        assert sum(1 for _ in estimates(subjects, pairs)) == len(pairs)
    return perf_counter() - start


def by_calls(subjects: Sequence[Rows]) -> float:
    start = perf_counter()
    for one in range(CALLS):
        similarity.cka(subjects[one], subjects[one + 1])
    return perf_counter() - start


if __name__ == "__main__":
    main()
