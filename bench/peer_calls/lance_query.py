"""A filter on metadata, then vectors, through Lance. Runs in the peers' environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lance  # pyright: ignore[reportMissingImports]
import numpy as np
import pyarrow as pa  # pyright: ignore[reportMissingImports]


def filtered(
    vectors: np.ndarray,
    number: np.ndarray,
    score: np.ndarray,
    *,
    device: str,
    path: str,
    column: str,
    low: float,
    high: float,
    indexed: bool,
) -> Callable[[], dict[str, np.ndarray]]:
    """A scan of two columns with a filter, over a dataset of default settings, with or without a scalar index."""
    place = f"{path}-{column}" if indexed else path
    if not Path(place).exists():
        items = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"number": pa.array(number), "score": pa.array(score), "vector": items})
        dataset = lance.write_dataset(table, place)
        if indexed:
            dataset.create_scalar_index(column, index_type="BTREE")
    dataset = lance.dataset(place)
    asked = f"{column} >= {low!r} AND {column} < {high!r}"

    def ask() -> dict[str, np.ndarray]:
        table = dataset.to_table(columns=["number", "vector"], filter=asked)
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        order = np.argsort(numbers := table["number"].to_numpy(), kind="stable")
        return {"number": numbers[order], "vectors": flat.reshape(-1, vectors.shape[1])[order]}

    return ask
