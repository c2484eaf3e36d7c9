"""What do sparse codes cost to keep with an index by feature, and how fast are questions about features answered?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

import lamina
from bench import limits, paths
from bench.agreement import Within
from bench.command import parser
from bench.harness import (
    TIME,
    TIMES,
    Contender,
    Question,
    answers,
    as_case,
    cells,
    interleave,
    peaks,
    peers_of,
    speeds,
)
from bench.peer_calls.codes_stores import STORES, in_order_at_first, top
from bench.peers import Worker
from bench.table import Table, spread
from bench.worker import resolve
from lamina.progress import track
from lamina.runs import indexing

ROWS, WIDTH, K = 2_000_000, 65_536, 64
LENGTH = 125
"""Rows of an example."""
FEATURES = 1000
TOP, CONTEXT = 20, 8
REPETITIONS = {"write": 3, "top": 9, "units": 5, "stats": 3}
"""The slowest of the peers take ten seconds and more to write, and for statistics."""
SITE = "mlp.output/sae"
FOLDER = paths.SCRATCH / "codes"
PIECE = 32_000
"""Rows of an append: 256 examples."""
PEERS = ["safetensors", "scipy", "pyarrow", "duckdb", "pylance"]
WAYS = ("lamina", "lamina, cold", "lamina, no index")

# What was expected before the first full run.
EXPECTED = [
    "expected: who keeps features in order has 128 million units to sort, which takes longer than a disk that writes "
    "1 GB/s; the top 20 of a feature of 1,400 units cost a few blocks of 128 units and the metadata of some 300 rows, "
    "a scan of all codes 512 MB; 1,000 features the speed of memory",
]

Parts = dict[str, np.ndarray]


def planted(rows: int, width: int, k: int) -> dict[str, np.ndarray]:
    """Return codes [rows, k] (float16 values above 0, ids in any order, features of very different density), tokens."""
    draw = np.random.default_rng(0)
    stratum = width // k
    ids = np.empty((rows, k), np.uint16)
    values = np.empty((rows, k), np.float16)
    order = draw.permutation(k)
    for at in track(range(0, rows, PIECE), "codes"):
        some = slice(at, min(at + PIECE, rows))
        shape = (some.stop - at, k)
        # each row takes one feature of each of k strata, the first of a stratum more often than its last
        ids[some] = (stratum * draw.random(shape, np.float32) ** 2).astype(np.uint16) + stratum * order.astype(
            np.uint16
        )
        values[some] = np.exp(draw.standard_normal(shape, np.float32)).astype(np.float16)
    return {"values": values, "ids": ids, "token": draw.integers(0, 50_000, (rows // LENGTH, LENGTH))}


def write(run: lamina.Run, values: np.ndarray, ids: np.ndarray, token: np.ndarray, width: int) -> None:
    """Write the codes as an encoder gives them, and close the writer."""
    with run.writer(index=False) as writer:
        for at in range(0, len(ids), PIECE):
            some, of = slice(at, at + PIECE), slice(at // LENGTH, (at + PIECE) // LENGTH)
            shape = (-1, LENGTH, ids.shape[1])
            codes = values[some].reshape(shape), ids[some].reshape(shape)
            examples = np.arange(len(token))[of]
            writer.features(SITE, codes, width=width, step=0, example=examples, token=token[of])


def through_lamina(
    values: np.ndarray,
    ids: np.ndarray,
    token: np.ndarray,
    *,
    device: str,
    store: str,
    question: str,
    folder: str,
    width: int,
    features: list[int],
    k: int,
    context: int,
) -> Callable[[], Parts]:
    """Write a run and index it, or ask it."""
    path = Path(folder) / store
    if question == "write":
        return lambda: written(path, values, ids, token, width)
    if not path.exists():
        make(Path(folder), store, values, ids, token, width)
    if store == "lamina, no index":
        indexing.UNASKED = 1 << 62  # asking would have it built
    run = lamina.open(path)
    if question == "top":
        return lambda: of_top(run.top_examples(SITE, features[0], k=k, context=context))
    if question == "stats":
        return lambda: {
            name: column.to_numpy()
            for name, column in run.feature_stats(SITE).select("count", "mean", "max").collect().to_dict().items()
        }
    chosen = run.features(SITE).filter(pl.col("feature").is_in(features)).select("row", "feature", "value")

    def units() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = chosen.collect()
        return found["row"].to_numpy(), found["feature"].to_numpy(), found["value"].to_numpy()

    return in_order_at_first(units)


def of_top(shown: pl.DataFrame) -> Parts:
    found = {name: shown[name].to_numpy() for name in ("rank", "offset", "row", "value", "token")}
    return found | {"value": found["value"].astype(np.float32)}


def written(path: Path, values: np.ndarray, ids: np.ndarray, token: np.ndarray, width: int) -> Parts:
    """Write into an empty folder, index, and return how long both took and how many bytes there are."""
    shutil.rmtree(path, ignore_errors=True)
    start = perf_counter()
    run = lamina.Run.create(path)
    write(run, values, ids, token, width)
    closed = perf_counter()
    run.refresh().index(progress=False)
    seconds = perf_counter() - start
    parts = {"seconds": seconds, "index seconds": seconds - (closed - start), "bytes": size(path)}
    return {name: np.array(value) for name, value in parts.items()}


def make(folder: Path, store: str, *given: Any) -> None:
    """Make the run that a store stands for: as it was written, cold, or without an index."""
    if store == "lamina":
        written(folder / store, *given)
        return
    if not (folder / "lamina").exists():
        make(folder, "lamina", *given)
    # no file of a run changes once it is there: two runs may share them
    shutil.copytree(
        folder / "lamina", folder / store, copy_function=os.link, ignore=shutil.ignore_patterns("*.features")
    )
    if store == "lamina, cold":
        run = lamina.open(folder / store)
        run.compact(cold=[SITE], index=False, progress=False)
        run.gc(grace=0, progress=False)
        run.index(progress=False)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def asked(values: np.ndarray, ids: np.ndarray, token: np.ndarray, width: int) -> Iterator[tuple[str, Parts, list[int]]]:
    """Yield the questions with their true answers and the features that they are about."""
    counts, sums, most = np.zeros(width, np.int64), np.zeros(width), np.full(width, -np.inf)
    for at in track(range(0, len(ids), PIECE), "true answers"):
        # NumPy is quick with these types alone
        flat, value = (
            ids[at : at + PIECE].reshape(-1).astype(np.intp),
            values[at : at + PIECE].reshape(-1).astype(float),
        )
        counts += np.bincount(flat, minlength=width)
        sums += np.bincount(flat, value, minlength=width)
        np.maximum.at(most, flat, value)
    typical = int(np.argsort(counts, kind="stable")[width // 2])
    row, place = (ids == typical).nonzero()
    yield "top", top(row, values[row, place], token, TOP, CONTEXT), [typical]
    features = np.sort(np.random.default_rng(1).choice(width, min(FEATURES, width // 16), replace=False))
    row, place = np.isin(np.arange(width), features)[ids].nonzero()
    units = row, ids[row, place], values[row, place]
    yield "units", in_order_at_first(lambda: units)(), features.tolist()
    yield "stats", {"count": counts, "mean": sums / counts, "max": most}, []


def writers(with_peers: bool, options: dict[str, Any]) -> list[Contender]:
    """List who keeps codes."""
    ours = [Contender("lamina", "bench.codes:through_lamina", {"store": "lamina"} | options)]
    call = "bench.peer_calls.codes_stores:ask"
    return ours + [Contender(name, call, {"store": name} | options, peer=True) for name in STORES if with_peers]


def write_all(
    arrays: Parts, taking_part: list[Contender], limit: limits.Limit, peers: Worker | None, repetitions: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, int]]:
    """Write with everybody in turns; return the seconds by phase, and the bytes of each."""
    cases, sizes = {limit.name: as_case(limit.run)}, {}
    for contender in taking_part:
        if contender.peer:
            assert peers is not None
            peers.prepare(contender.name, contender.call, arrays, "cpu", contender.options)
            call: Callable[[], Any] = partial(peers.result, contender.name)
        else:
            call = resolve(contender.call)(**arrays, device="cpu", **contender.options)

        def case(name: str = contender.name, call: Callable[[], Any] = call) -> dict[str, float]:
            found = {phase: float(value) for phase, value in call().items()}
            sizes[name] = int(found.pop("bytes"))
            return {TIME: found.pop("seconds")} | found

        cases[contender.name] = case
    seconds = interleave(cases, repetitions, "write + index")
    if peers is not None:
        peers.forget()
    return seconds, sizes


def questions(
    arrays: Parts, with_peers: bool, options: dict[str, Any], *, quick: bool
) -> list[tuple[Within, Question]]:
    """List what is asked of whom, with the true answer and the rule by which others are compared with it."""
    found = []
    for question, expected, features in asked(**arrays, width=options["width"]):
        chosen = options | {"question": question, "features": features}
        needs = {"memcpy": float(sum(part.nbytes for part in expected.values()))}
        contenders = [
            Contender(store, "bench.codes:through_lamina", {"store": store} | chosen, needs=needs) for store in WAYS
        ]
        call = "bench.peer_calls.codes_stores:ask"
        stores = STORES if with_peers else ()
        contenders += [Contender(name, call, {"store": name} | chosen, peer=True, needs=needs) for name in stores]
        what = {
            "top": f"top {TOP} of a feature, {CONTEXT} rows around each",
            "units": f"all units of {len(features):,} features",
            "stats": "stats of all features",
        }[question]
        rule = Within(1e-6 if question == "stats" else 0)
        repetitions = 1 if quick else REPETITIONS[question]
        found.append((rule, Question({"what": what}, arrays, contenders, expected, repetitions)))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    own = parser(__doc__)
    own.add_argument("--rows", type=int, default=ROWS, help="how many, instead of 2 million")
    given = own.parse_args(argv)
    quick: bool = given.quick
    rows, width, k = (2000, 256, 8) if quick else (given.rows // LENGTH * LENGTH, WIDTH, K)
    with paths.emptied(FOLDER):
        measure(rows, width, k, quick=quick)


def measure(rows: int, width: int, k: int, *, quick: bool) -> None:
    """Write with everybody, ask everybody, and publish the table."""
    arrays, units = planted(rows, width, k), rows * k
    options = {"folder": str(FOLDER), "width": width, "features": [], "k": TOP, "context": CONTEXT}
    disk = limits.durable_write(paths.SCRATCH, 2**20 if quick else 2**28)
    memcpy = limits.copy("cpu", 2**20 if quick else 2**28)
    table, samples, rates = [], {}, {}
    with peers_of(quick) as peers:
        taking_part = writers(peers is not None, options | {"question": "write"})
        seconds, sizes = write_all(arrays, taking_part, disk, peers, 1 if quick else REPETITIONS["write"])
        samples["write"] = seconds
        times = {name: phases[TIME] for name, phases in seconds.items()}
        added = {} if quick else peaks(taking_part, arrays, device="cpu", description="write")
        for contender in taking_part:
            known = replace(contender, needs={disk.name: float(sizes[contender.name])})
            row = {"what": "write and index, durable", "by": contender.name} | cells(known, [disk], times)
            row["bytes a unit"] = sizes[contender.name] / units
            table.append(row | {"peak, MiB": added[contender.name] / 2**20 if added else None})
        rates["write and index, durable"] = units
        for rule, question in questions(arrays, peers is not None, options, quick=quick):
            found, more = answers([question], rule=rule, limits=[memcpy], device="cpu", peers=peers, quick=quick)
            table += found
            samples |= more
            if "row" in question.expected and "rank" not in question.expected:
                rates[question.cells["what"]] = len(question.expected["row"])
        versions = {} if peers is None else peers.ask("versions", packages=PEERS)
    for row in table:
        if row["what"] in rates:
            row["M units/s"] = rates[row["what"]] / row["median, ms"] / 1e3
    kept = [f"{way}: codes {of_codes / units:.2f}, index {of_index / units:.2f}" for way, of_codes, of_index in parts()]
    indexing = spread(seconds["lamina"]["index seconds"]).median
    Table(
        question=f"What does it cost to keep {rows:,} rows of sparse codes with an index by feature ({k} of {width:,} "
        "features a row, float16), and to ask about features?",
        columns=["what", "by", *TIMES, "M units/s", "bytes a unit", "peak, MiB"],
        rows=table,
        notes=[
            f"{REPETITIONS['write']} interleaved repetitions of writing, {REPETITIONS['top']} of the top {TOP}, "
            f"{REPETITIONS['units']} of {FEATURES:,} features, {REPETITIONS['stats']} of statistics, warm, "
            "behind a comparison with the true answer: to the bit (stats: count, mean and greatest value, within 1e-6)",
            f"of lamina's writing the index takes {indexing:.2f} s; no index: the same run without it, so scanned",
            f"bytes a unit, {'; '.join(kept)}",
            "top: rank, offset, row, value and token of each row around a hit in its example; the feature is that of "
            "median count; peers find the hits' neighbors by number, with NumPy, in a map of all tokens",
            "delphi's form: int64 (example, position, feature) of each unit, float16 values, five files by ranges of "
            "features; SciPy: float32, CSR and CSC in maps of .npy; Parquet and DuckDB: tables in order of features, "
            "DuckDB in float32; Lance: in order of rows, with a B-tree on the feature. All synced",
            "peak: what a call adds to a fresh process that holds the arrays, by VmHWM",
            *EXPECTED,
            speeds([memcpy], [some for what, some in samples.items() if what != "write"]),
            speeds([disk], [times]),
        ],
        packages=["lamina", "polars", "numpy"],
        versions=versions,
        samples=samples,
    ).publish("codes", quick=quick)


def parts() -> Iterator[tuple[str, int, int]]:
    """Yield the bytes of codes and of their index as they were written, and cold."""
    for way in WAYS[:2]:
        of_index = size(FOLDER / way / "index")
        yield way, size(FOLDER / way) - of_index, of_index


if __name__ == "__main__":
    main()
