"""Writes saved.tar.xz with the real `datasets`, which the tests do not need: python tests/interchange/real/make.py

The truth that is planted stands in `values`, which the tests call too.
"""

from __future__ import annotations

import datetime as dt
import importlib
import tarfile
import tempfile
from pathlib import Path

import numpy as np

ROWS = 12
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def values() -> dict[str, np.ndarray]:
    """Random bits, NaN payloads and signed zeros among them."""
    draw = np.random.default_rng(0).integers(0, 2**32, (ROWS, 3 * 4 + 7), dtype=np.uint32)
    draw[0, 0], draw[1, 1] = 0x7FC00123, 0x80000000
    # signaling NaNs turn quiet in Python's own floats, which `datasets` goes through
    draw[(draw & 0x7FC00000) == 0x7F800000] |= 0x00400000
    floats = draw.view(np.float32)
    return {"h": floats[:, :7], "acts": floats[:, 7:].reshape(ROWS, 3, 4)}


def main() -> None:
    """Save one dataset in shards, one shuffled, one split, one without rows."""
    datasets = importlib.import_module("datasets")

    kinds = {
        "h": datasets.Sequence(datasets.Value("float32"), length=7),
        "acts": datasets.Array2D((3, 4), "float32"),
        "label": datasets.ClassLabel(names=["x", "y"]),
        "when": datasets.Value("timestamp[ms, tz=UTC]"),
        "tokens": datasets.Sequence(datasets.Value("int32"), length=3),
    }
    given = {
        **{name: list(array) for name, array in values().items()},
        "label": [row % 2 for row in range(ROWS)],
        "when": [START + dt.timedelta(seconds=row) for row in range(ROWS)],
        "tokens": [[row, row + 1, row + 2] for row in range(ROWS)],
    }
    whole = datasets.Dataset.from_dict(given, features=datasets.Features(kinds))
    with tempfile.TemporaryDirectory() as folder:
        whole.save_to_disk(f"{folder}/shards", num_shards=3)
        whole.select(range(ROWS - 1, -1, -1)).save_to_disk(f"{folder}/turned")
        splits = {"train": whole.select(range(8)), "test": whole.select(range(8, ROWS))}
        datasets.DatasetDict(splits).save_to_disk(f"{folder}/splits")
        whole.select([]).save_to_disk(f"{folder}/nothing")
        with tarfile.open(Path(__file__).with_name("saved.tar.xz"), "w:xz") as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.add(path, path.name, filter=_nameless)


def _nameless(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    main()
