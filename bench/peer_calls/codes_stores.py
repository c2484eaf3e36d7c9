"""Sparse codes in the files that others make of them, and questions about features. Runs in the peers' environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

SPLITS = 5
"""Files that delphi makes of a cache, by default."""

Units = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, features and values."""
Parts = dict[str, np.ndarray]


class Store(Protocol):
    """One way to keep codes."""

    def __init__(self, folder: Path, width: int) -> None: ...
    def write(self, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> None:
        """Write codes [n, k] and the tokens of the rows [examples, positions]."""
        ...

    def units(self, features: np.ndarray) -> Units:
        """Return all units of some features, in any order."""
        ...

    def stats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the count, the mean and the greatest value of each feature."""
        ...


def ask(
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
    """Write a store, or ask it. It is written where it is not there yet."""
    path = Path(folder) / store
    made = STORES[store](path, width)
    if question == "write":
        return lambda: written(made, path, values, ids, token)
    if not path.exists():
        written(made, path, values, ids, token)
    wanted = np.array(features)
    if question == "top":
        np.save(path / "token.npy", token)
        tokens = np.load(path / "token.npy", mmap_mode="r")

        def strongest() -> Parts:
            rows, _, found = made.units(wanted)
            return top(rows, found, tokens, k, context)

        return strongest
    if question == "stats":
        return lambda: dict(zip(("count", "mean", "max"), made.stats(), strict=True))
    return in_order_at_first(lambda: made.units(wanted))


def written(made: Store, path: Path, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> Parts:
    """Write into an empty folder, sync all files, and return how long that took and how many bytes they have."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    start = perf_counter()
    made.write(values, ids, token)
    files = [file for file in path.rglob("*") if file.is_file()]
    for place in [*files, *{file.parent for file in files}]:
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    seconds = perf_counter() - start
    return {"seconds": np.array(seconds), "bytes": np.array(sum(file.stat().st_size for file in files))}


def top(rows: np.ndarray, values: np.ndarray, token: np.ndarray, k: int, context: int) -> Parts:
    """Return the k rows with the greatest values of a feature, with those around them in the same example."""
    values = values.astype(np.float32)
    best = np.lexsort((rows, -values))[:k]
    shown = rows[best][:, None] + np.arange(-context, context + 1)
    inside = shown // token.shape[1] == rows[best][:, None] // token.shape[1]
    rank = np.broadcast_to(np.arange(1, len(best) + 1)[:, None], shown.shape)[inside]
    offset = np.broadcast_to(np.arange(-context, context + 1), shown.shape)[inside]
    shown = shown[inside]
    order = np.argsort(rows)
    at = np.minimum(np.searchsorted(rows[order], shown), len(rows) - 1)
    there = np.where(rows[order][at] == shown, values[order][at], np.float32(0))
    return {"rank": rank, "offset": offset, "row": shown, "value": there, "token": token.reshape(-1)[shown]}


def in_order_at_first(call: Callable[[], Units]) -> Callable[[], Parts]:
    """Put units in order of rows and features the first time, when the answer is compared; later calls are timed."""
    asked = False

    def ask() -> Parts:
        nonlocal asked
        rows, features, values = call()
        if not asked:
            asked = True
            order = np.lexsort((features, rows))
            rows, features, values = (part[order] for part in (rows, features, values))
            rows, features, values = rows.astype(np.int64), features.astype(np.int64), values.astype(np.float32)
        return {"row": rows, "feature": features, "value": values}

    return ask


def counted(features: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the count, the sum and the greatest value of each feature."""
    most = np.full(width, -np.inf)
    np.maximum.at(most, features, values)
    return np.bincount(features, minlength=width), np.bincount(features, values, minlength=width), most


class Delphi:
    """Safetensors by range of features: int64 (example, position, feature) [units, 3], float16 values, all tokens."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self.bounds = np.linspace(0, width, SPLITS + 1).astype(int)

    def write(self, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> None:
        from safetensors.numpy import save_file

        rows = np.repeat(np.arange(len(ids)), ids.shape[1])
        locations = np.stack([rows // token.shape[1], rows % token.shape[1], ids.reshape(-1)], axis=1)
        flat = values.reshape(-1)
        for split, (low, high) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            here = (locations[:, 2] >= low) & (locations[:, 2] < high)
            parts = {"locations": locations[here], "activations": flat[here], "tokens": token}
            save_file(parts, self.folder / f"{split}.safetensors")

    def splits(self, features: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        from safetensors.numpy import load_file

        for split in np.unique(np.searchsorted(self.bounds, features, side="right") - 1).tolist():
            parts = load_file(self.folder / f"{split}.safetensors")
            yield parts["locations"], parts["activations"], parts["tokens"].shape[1]

    def units(self, features: np.ndarray) -> Units:
        found = []
        for locations, values, length in self.splits(features):
            here = np.isin(locations[:, 2], features)
            at = locations[here]
            found.append((at[:, 0] * length + at[:, 1], at[:, 2], values[here]))
        rows, ids, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return rows, ids, values

    def stats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [counted(at[:, 2], values, self.width) for at, values, _ in self.splits(np.arange(self.width))]
        count, total = (np.sum([part[at] for part in parts], axis=0) for at in (0, 1))
        return count, total / count, np.max([part[2] for part in parts], axis=0)


class Scipy:
    """A CSR and a CSC matrix, as `.npy` files that are mapped. SciPy has no float16."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self.open: tuple[np.ndarray, ...] = ()

    def write(self, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> None:
        from scipy.sparse import csr_array  # pyright: ignore[reportMissingImports]

        ends = np.arange(0, ids.size + 1, ids.shape[1])
        matrix = csr_array(
            (values.reshape(-1).astype(np.float32), ids.reshape(-1).astype(np.int32), ends), (len(ids), self.width)
        )
        for name, form in (("csr", matrix), ("csc", matrix.tocsc())):
            for part in ("indptr", "indices", "data"):
                np.save(self.folder / f"{name}-{part}.npy", getattr(form, part))

    def columns(self) -> tuple[np.ndarray, ...]:
        self.open = self.open or tuple(
            np.load(self.folder / f"csc-{part}.npy", mmap_mode="r") for part in ("indptr", "indices", "data")
        )
        return self.open

    def units(self, features: np.ndarray) -> Units:
        ends, rows, values = self.columns()
        parts = [slice(ends[feature], ends[feature + 1]) for feature in features]
        counts = [part.stop - part.start for part in parts]
        found = (np.concatenate([of[part] for part in parts]) for of in (rows, values))
        rows, values = found
        return rows, np.repeat(features, counts), values

    def stats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ends, _, values = self.columns()
        count = np.diff(ends)
        starts = np.minimum(ends[:-1], values.size - 1)
        total = np.add.reduceat(values, starts, dtype=np.float64)
        return count, np.where(count > 0, total / np.maximum(count, 1), np.nan), np.maximum.reduceat(values, starts)


class Parquet:
    """A table of units in order of features, so that row groups say which they hold; read by pyarrow."""

    def __init__(self, folder: Path, width: int) -> None:
        self.path, self.width = folder / "units.parquet", width

    def write(self, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> None:
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

        pq.write_table(table_of(values, ids, in_order=True), self.path)

    def units(self, features: np.ndarray) -> Units:
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

        return arrays_of(pq.read_table(self.path, filters=[("feature", "in", features.astype(np.uint16).tolist())]))

    def stats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

        table = pq.read_table(self.path, columns=["feature", "value"])
        # Arrow adds up no halves
        table = table.set_column(1, "value", table["value"].cast(pa.float32()))
        found = table.group_by("feature").aggregate([("value", "count"), ("value", "mean"), ("value", "max")])
        return placed(found, ("value_count", "value_mean", "value_max"), self.width)


class DuckDB:
    """A table of units in order of features, whose zones say which they hold. DuckDB has no float16."""

    def __init__(self, folder: Path, width: int) -> None:
        self.path, self.width = folder / "units.duckdb", width
        self.open: Any = None

    def connected(self) -> Any:
        import duckdb  # pyright: ignore[reportMissingImports]

        self.open = self.open or duckdb.connect(str(self.path))
        return self.open

    def write(self, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> None:
        self.close()
        units = table_of(values.astype(np.float32), ids)
        connection = self.connected()
        connection.register("units_given", units)
        connection.execute("CREATE TABLE units AS SELECT * FROM units_given ORDER BY feature, row")
        connection.execute("CHECKPOINT")
        self.close()

    def close(self) -> None:
        if self.open is not None:
            self.open.close()
            self.open = None

    def units(self, features: np.ndarray) -> Units:
        some = ", ".join(map(str, features.tolist()))
        asked = f"SELECT row, feature, value FROM units WHERE feature IN ({some})"
        found = self.connected().execute(asked).fetchnumpy()
        return found["row"], found["feature"], found["value"]

    def stats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        asked = "SELECT feature, count(*) AS n, avg(value) AS mean, max(value) AS most FROM units GROUP BY feature"
        found = self.connected().execute(asked).fetchnumpy()
        return placed(found, ("n", "mean", "most"), self.width)


class Lance:
    """A dataset of units in order of rows, with a B-tree on the feature."""

    def __init__(self, folder: Path, width: int) -> None:
        self.path, self.width = str(folder / "units.lance"), width

    def write(self, values: np.ndarray, ids: np.ndarray, token: np.ndarray) -> None:
        import lance  # pyright: ignore[reportMissingImports]

        lance.write_dataset(table_of(values, ids), self.path).create_scalar_index("feature", index_type="BTREE")

    def units(self, features: np.ndarray) -> Units:
        import lance  # pyright: ignore[reportMissingImports]

        some = ", ".join(map(str, features.tolist()))
        return arrays_of(lance.dataset(self.path).to_table(filter=f"feature IN ({some})"))

    def stats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import lance  # pyright: ignore[reportMissingImports]

        table = lance.dataset(self.path).to_table(columns=["feature", "value"])
        count, total, most = counted(table["feature"].to_numpy(), table["value"].to_numpy(), self.width)
        return count, total / count, most


def table_of(values: np.ndarray, ids: np.ndarray, *, in_order: bool = False) -> Any:
    """Make an Arrow table of the units, a line each."""
    import pyarrow as pa  # pyright: ignore[reportMissingImports]

    order = np.argsort(ids.reshape(-1), kind="stable") if in_order else slice(None)
    rows = np.repeat(np.arange(len(ids), dtype=np.int32), ids.shape[1])
    columns = {"row": rows[order], "feature": ids.reshape(-1)[order], "value": values.reshape(-1)[order]}
    return pa.table({name: pa.array(column) for name, column in columns.items()})


def arrays_of(table: Any) -> Units:
    return table["row"].to_numpy(), table["feature"].to_numpy(), table["value"].to_numpy()


def placed(found: Any, names: tuple[str, str, str], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put what was found of some features where these stand among all."""
    at = np.asarray(found["feature"])
    parts = []
    for name, missing in zip(names, (0, np.nan, -np.inf), strict=True):
        parts.append(np.full(width, missing))
        parts[-1][at] = np.asarray(found[name])
    return parts[0], parts[1], parts[2]


STORES: dict[str, Callable[[Path, int], Store]] = {
    "delphi's safetensors": Delphi,
    "SciPy CSR and CSC": Scipy,
    "Parquet": Parquet,
    "DuckDB": DuckDB,
    "Lance": Lance,
}
