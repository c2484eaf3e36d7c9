"""How fast are the vectors of 0.1 % of the rows, found by a filter on metadata?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

import lamina
from bench import limits, paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import TIMES, Contender, cells, compare, speeds
from bench.peers import Worker
from bench.table import Table, spread

ROWS, WIDTH = 5_000_000, 64
SHARE = 1000
"""One row in so many is asked for."""
REPETITIONS = 9
SITE = "mlp.output"
FOLDER = paths.SCRATCH / "query"

Ready = Callable[[], dict[str, np.ndarray]]


def planted(rows: int) -> dict[str, np.ndarray]:
    """Return vectors [rows, 64] in float32, the number of each row, and a score that has nothing to do with it."""
    generator = np.random.default_rng(0)
    return {
        "vectors": generator.standard_normal((rows, WIDTH), np.float32),
        "number": np.arange(rows),
        "score": generator.permutation(rows) / rows,
    }


def bounds(question: str, rows: int) -> tuple[str, float, float]:
    """Return the column that the question is about, and between what its values lie (the upper end excluded)."""
    asked = max(1, rows // SHARE)
    return ("score", 0.0, asked / rows) if question == "scattered" else ("number", rows // 3, rows // 3 + asked)


def condition(question: str, rows: int) -> pl.Expr:
    column, low, high = bounds(question, rows)
    return (pl.col(column) >= low) & (pl.col(column) < high)


def parts(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    return {"number": frame["number"].to_numpy(), "vectors": frame[SITE].to_numpy()}


def through_memory(vectors: np.ndarray, number: np.ndarray, score: np.ndarray, *, device: str, question: str) -> Ready:
    """A filter over columns in memory, and `np.take` from a memmap."""
    np.save(FOLDER / "vectors.npy", vectors)
    stored = np.load(FOLDER / "vectors.npy", mmap_mode="r")
    table, asked = pl.DataFrame({"number": number, "score": score}), condition(question, len(number))

    def ask() -> dict[str, np.ndarray]:
        found = table.filter(asked)["number"].to_numpy()
        return {"number": found, "vectors": np.take(stored, found, axis=0)}

    return ask


def through_lamina(
    vectors: np.ndarray, number: np.ndarray, score: np.ndarray, *, device: str, question: str, reopened: bool
) -> Ready:
    path = FOLDER / "run"
    if not path.exists():
        with lamina.Run.create(path).writer() as writer:
            for at in range(0, len(number), 32768):
                some = slice(at, at + 32768)
                writer.append({SITE: vectors[some]}, step=0, number=number[some], score=score[some])
    run, asked = lamina.open(path), condition(question, len(number))

    def ask() -> dict[str, np.ndarray]:
        opened = lamina.open(path) if reopened else run
        return parts(opened.activations(SITE).filter(asked).select("number", SITE).collect())

    return ask


def through_parquet(vectors: np.ndarray, number: np.ndarray, score: np.ndarray, *, device: str, question: str) -> Ready:
    path, asked = FOLDER / "rows.parquet", condition(question, len(number))
    if not path.exists():
        columns: dict[str, Any] = {"number": number, "score": score, SITE: vectors}
        frame = pl.DataFrame(columns, schema_overrides={SITE: pl.Array(pl.Float32, WIDTH)})
        frame.write_parquet(path, compression="uncompressed")
    return lambda: parts(pl.scan_parquet(path).filter(asked).select("number", SITE).collect())


def contenders(question: str, rows: int, *, with_peers: bool) -> list[Contender]:
    """List who takes part. Nobody can do without reading the column and the vectors once."""
    needs = {"memcpy": 8.0 * rows + 4.0 * WIDTH * max(1, rows // SHARE)}
    ours = [
        Contender("memmap + Polars in memory", "bench.query:through_memory", {"question": question}, needs=needs),
        *(
            Contender(name, "bench.query:through_lamina", {"question": question, "reopened": reopened}, needs=needs)
            for name, reopened in (("lamina", False), ("lamina, opened each time", True))
        ),
        Contender("Parquet, Polars", "bench.query:through_parquet", {"question": question}, needs=needs),
    ]
    if not with_peers:
        return ours
    column, low, high = bounds(question, rows)
    options = {"path": str(FOLDER / "rows.lance"), "column": column, "low": low, "high": high}
    call = "bench.peer_calls.lance_query:filtered"
    return [
        *ours,
        Contender("Lance", call, options | {"indexed": False}, peer=True, needs=needs),
        Contender("Lance, B-tree on the column", call, options | {"indexed": True}, peer=True, needs=needs),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    rows, repetitions = (20_000, 1) if quick else (ROWS, REPETITIONS)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    arrays = planted(rows)
    memcpy = limits.copy("cpu", 2**22 if quick else 2**28)
    table, samples = [], {}
    worker = None if quick else Worker(paths.PEERS)
    for question in ("scattered", "clustered"):
        taking_part = contenders(question, rows, with_peers=worker is not None)
        column, low, high = bounds(question, rows)
        found = np.flatnonzero((arrays[column] >= low) & (arrays[column] < high))
        seconds = compare(
            taking_part,
            arrays,
            {"number": found, "vectors": arrays["vectors"][found]},
            rule=Within(0),
            limits=[memcpy],
            repetitions=repetitions,
            device="cpu",
            peers=worker,
            description=question,
        )
        samples[question] = seconds
        median = spread(seconds["lamina"]).median
        for contender in taking_part:
            times = spread(seconds[contender.name]).median / median
            row = {"rows": question, "through": contender.name, "times lamina": times}
            table.append(row | cells(contender, [memcpy], seconds))
    versions = {} if worker is None else worker.ask("versions", packages=["pylance", "pyarrow"])
    if worker is not None:
        worker.close()
    shutil.rmtree(FOLDER)
    Table(
        question=f"How fast are the vectors of 0.1 % of {rows:,} rows (d = {WIDTH}, float32), by a filter on metadata?",
        columns=["rows", "through", "times lamina", *TIMES],
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions; every result equal to the expected one to the bit before",
            "warm: files in the page cache, runs and datasets open, where it is not said otherwise",
            "scattered: by a float column that has nothing to do with the order of rows; clustered: by row numbers",
            "every answer is the number of each row, and its vector",
            speeds([memcpy], samples.values()),
        ],
        packages=["lamina", "polars", "numpy"],
        versions=versions,
        samples=samples,
    ).publish("query", quick=quick)


if __name__ == "__main__":
    main()
