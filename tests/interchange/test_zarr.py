from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import lamina
from lamina import interchange
from lamina.errors import StorageError
from lamina.interchange.tensors import as_bits
from tests.faults import broken
from tests.interchange.planted import DTYPES, bits, same_bits, stored


def read(path: Path) -> Any:
    return zarr.open_group(path, mode="r", zarr_format=3)


def whole(array: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr says that its type for texts may still change
        return np.asarray(array[:])


def test_zarr_reads_every_bit(tmp_path: Path, every: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.interchange.leaving.BLOCK_BYTES", 100)
    assert interchange.to_zarr(every, tmp_path / "x.zarr", step=10, progress=False) == 50
    group = read(tmp_path / "x.zarr")
    for dtype in DTYPES:
        array = group[f"{dtype}.output"]
        assert same_bits(whole(array), bits(dtype, (50, 3), 10)), dtype
        assert array.chunks[1] == 3
        assert array.attrs.get("dtype") == (dtype if dtype in ("bf16", "f8_e4m3", "f8_e5m2") else None)
    assert group["image"].shape == (50, 2, 3, 2)
    assert same_bits(whole(group["scalar"]), bits("f32", (50,), 10))
    meta, expected = group[".meta"], every.rows("scalar", step=10).metadata(["row", "text", "count", "ok", "weight"])
    for column in ("row", "text", "count"):
        values = whole(meta[column]).tolist()
        if valid := meta[column].attrs.get("valid"):
            values = [value if there else None for value, there in zip(values, whole(meta[valid]), strict=True)]
        assert values == expected[column].to_list(), column
    assert same_bits(whole(meta["weight"]), expected["weight"].to_numpy())
    assert whole(meta["ok"]).tolist() == expected["ok"].to_list()
    assert group.attrs["lamina"]["run"] == every.id
    assert group.attrs["lamina"]["steps"] == [10]


def test_lost_bits_are_noticed(tmp_path: Path, every: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("export_converts_values"), pytest.raises(AssertionError):
        test_zarr_reads_every_bit(tmp_path, every, monkeypatch)


def test_sites_with_different_rows(tmp_path: Path, uneven: lamina.Run) -> None:
    interchange.to_zarr(uneven, tmp_path / "x.zarr", progress=False)
    group = read(tmp_path / "x.zarr")
    assert whole(group[".meta"]["tokens"]["position"]).tolist() == [0, 1, 2, 3] * 6
    assert whole(group[".meta"]["sequences"]["example"]).tolist() == list("abcdef")
    assert same_bits(whole(group["tokens"]), as_bits(uneven.rows("tokens").gather(slice(None))))


@pytest.mark.parametrize("rows", [0, 1])
def test_names_that_are_no_names_of_files(tmp_path: Path, rows: int) -> None:
    run = lamina.Run.create(tmp_path / "run")
    names = ["a/../../b", "__c", "50%", "zarr.json", "a"]
    with run.writer() as writer:
        writer.append({name: stored("i16", (rows, 2)) for name in names}, step=0, example=range(rows), note="x/y")
    interchange.to_zarr(run.refresh(), tmp_path / "x.zarr", progress=False)
    group = read(tmp_path / "x.zarr")
    found = {array.attrs["site"]: array for _, array in group.arrays()}
    assert sorted(found) == sorted(names)
    assert all(same_bits(whole(array), bits("i16", (rows, 2))) for array in found.values())
    assert {path.name for path in tmp_path.iterdir()} == {"run", "x.zarr"}
    with pytest.raises(StorageError, match="exists"):
        interchange.to_zarr(run, tmp_path / "x.zarr")
