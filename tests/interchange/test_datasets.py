"""Folders laid out as `datasets` 4 writes them; `pyarrow` stands in for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import lamina
from lamina import interchange
from lamina.errors import DamagedError, SchemaError, StorageError
from tests.interchange.planted import bits, held, same_bits


def save_to_disk(folder: Path, tables: list[pa.Table], **state: Any) -> Path:
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(tables):05}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=10)
    files = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(files | state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def nested(values: np.ndarray) -> pa.Array:
    """Arrays as `Array2D` stores them: lists of lists."""
    array = pa.array(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        count = int(np.prod(values.shape[:axis]))
        array = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * values.shape[axis]), array)
    return array


def test_shards_come_in_the_order_of_the_state(tmp_path: Path) -> None:
    values = bits("f32", (50, 4))
    parts = [slice(0, 23), slice(23, 24), slice(24, 50)]
    tables = [
        pa.table(
            {
                "h": nested(values[part]),
                "label": pa.array(np.arange(50)[part]),
                "text": [f"t{k}" for k in range(50)][part],
            }
        )
        for part in parts
    ]
    folder = save_to_disk(tmp_path / "in", tables)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = state["_data_files"][::-1]
    (folder / "state.json").write_text(json.dumps(state))
    assert interchange.from_datasets(tmp_path / "run", folder, step=7, progress=False) == 50
    run = lamina.open(tmp_path / "run")
    order = np.concatenate([np.arange(50)[part] for part in parts[::-1]])
    assert same_bits(held(run, "h"), values[order])
    metadata = run.rows("h", step=7).metadata(["label", "text", "example"])
    assert metadata["label"].to_list() == order.tolist()
    assert metadata["text"].to_list() == [f"t{k}" for k in order]
    assert metadata["example"].to_list() == list(range(50))


def test_a_cache_of_activations_becomes_rows_with_positions(tmp_path: Path) -> None:
    values, ids = bits("f16", (12, 8, 4)), np.arange(96, dtype=np.int32).reshape(12, 8)
    for number, part in enumerate((slice(0, 6), slice(6, 12))):
        table = pa.table({"blocks.0.hook": nested(values[part]), "token_ids": nested(ids[part])})
        save_to_disk(tmp_path / "cache" / f"shard_{number:05}", [table])
    interchange.from_datasets(tmp_path / "run", tmp_path / "cache", progress=False)
    run = lamina.open(tmp_path / "run")
    assert same_bits(held(run, "blocks.0.hook"), values)
    metadata = run.rows("blocks.0.hook").metadata(["example", "position", "token_ids"])
    assert metadata["position"].to_list() == list(range(8)) * 12
    assert metadata["example"].to_list() == np.repeat(np.arange(12), 8).tolist()
    assert metadata["token_ids"].to_list() == list(range(96))


def test_splits_become_a_column(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_to_disk(tmp_path / "in" / split, [pa.table({"h": nested(bits("f32", (3, 2)))})])
    (tmp_path / "in" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    interchange.from_datasets(tmp_path / "run", tmp_path / "in", progress=False)
    metadata = lamina.open(tmp_path / "run").rows("h").metadata(["split", "example"])
    assert metadata.rows() == [(split, k) for k, split in enumerate(["train"] * 3 + ["test"] * 3)]


def test_files_of_arrow_without_a_folder(tmp_path: Path) -> None:
    table = pa.table({"h": nested(bits("f32", (3, 2)))})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert interchange.from_datasets(tmp_path / "run", tmp_path / "x.arrow", progress=False) == 3


@pytest.mark.parametrize("size", [0, 3, 40, 300, -100])
def test_a_truncated_shard_is_damaged_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    folder = save_to_disk(tmp_path / "in", [pa.table({"h": nested(bits("f32", (30, 20)))})])
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DamagedError, match="data-00000"):
        interchange.from_datasets(tmp_path / "run", folder, progress=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    table = pa.table({"h": nested(bits("f32", (3, 2)))})
    folder = save_to_disk(tmp_path / "in", [table], _indices_data_files=[{"filename": "i.arrow"}])
    with pytest.raises(SchemaError, match=r"selection of another.*flatten_indices"):
        interchange.from_datasets(tmp_path / "run", folder)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    with pytest.raises(DamagedError, match=r"does not lie in it"):
        interchange.from_datasets(tmp_path / "run", folder)
    (folder / "state.json").write_text("[" * 100_000)
    with pytest.raises(DamagedError, match=r"no JSON"):
        interchange.from_datasets(tmp_path / "run", folder)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(StorageError, match="gone"):
        interchange.from_datasets(tmp_path / "run", folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="holds no Arrow file"):
        interchange.from_datasets(tmp_path / "run", tmp_path / "empty")
    with pytest.raises(StorageError, match="no such folder"):
        interchange.from_datasets(tmp_path / "run", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
