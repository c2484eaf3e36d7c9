from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lamina
from lamina import interchange
from lamina.errors import DamagedError, NotFoundError, SchemaError, StorageError
from lamina.interchange.tensors import as_bits
from tests.faults import broken
from tests.interchange.planted import DTYPES, PLAIN, bits, held, same_bits, stored

_COLUMNS = ["step", "example", "source", "weight", "text", "count", "ok", "maybe"]


def in_order(run: lamina.Run, site: str) -> np.ndarray:
    """The rows of a site, of whatever sources, in order of their names."""
    parts = [run.rows(site, source=source) for source in ("probe", "train")]
    values = np.concatenate([as_bits(part.gather(slice(None))) for part in parts])
    return values[np.argsort(np.concatenate([part.ids for part in parts]))]


def import_(folder: Path, path: Path, **options: Any) -> lamina.Run:
    interchange.from_parquet(folder / "back", path, progress=False, **options)
    return lamina.open(folder / "back")


def test_a_run_comes_back_from_its_export(tmp_path: Path, every: lamina.Run) -> None:
    assert interchange.to_parquet(every, tmp_path / "x.parquet", bits=True, group_bytes=2000, progress=False) == 100
    back = import_(tmp_path, tmp_path / "x.parquet")
    for site in every.sites()["site"]:
        assert same_bits(in_order(back, site), in_order(every, site)), site
    metadata = [run.activations().sort("row").select(_COLUMNS).collect() for run in (back, every)]
    assert metadata[0].equals(metadata[1])
    shapes = [run.sites().select("site", "dtype", "shape", "rows").sort("site") for run in (back, every)]
    assert shapes[0].equals(shapes[1])


def test_a_mask_the_wrong_way_round_is_noticed(tmp_path: Path, uneven: lamina.Run) -> None:
    with broken("export_takes_rows_in_any_order"), pytest.raises(AssertionError):
        test_rows_that_lack_a_site_hold_null(tmp_path, uneven)


def test_polars_and_pyarrow_see_the_wide_frame(tmp_path: Path, every: lamina.Run) -> None:
    interchange.to_parquet(every, tmp_path / "x.parquet", step=10, group_bytes=1000, progress=False)
    expected = every.activations(step=10).sort("row").collect()
    found = pl.read_parquet(tmp_path / "x.parquet")
    columns = found.columns
    assert set(columns) == set(expected.columns)
    assert found.schema == expected.select(columns).schema
    assert found.select(_COLUMNS).equals(expected.select(_COLUMNS))
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups > 5
    table = file.read()
    for dtype in DTYPES:
        name = f"{dtype}.output"
        wide = {"f64": "f64", "f16": "f16"}.get(dtype, "f32" if dtype[0] in "bf" and dtype != "bool" else dtype)
        polars = np.stack(found[name].to_list())
        arrow = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(50, 3)
        values = every.rows(name, step=10).gather(slice(None))
        exact = values.float().numpy() if wide == "f32" and dtype != "f32" else as_bits(values)
        assert same_bits(arrow, exact), dtype
        assert np.array_equal(polars, exact, equal_nan=dtype[0] in "bf" and dtype != "bool"), dtype
    assert table.schema.metadata[b"lamina.run"].decode() == every.id


def test_rows_that_lack_a_site_hold_null(tmp_path: Path, uneven: lamina.Run) -> None:
    assert interchange.to_parquet(uneven, tmp_path / "x.parquet", group_bytes=50, progress=False) == 30
    found = pl.read_parquet(tmp_path / "x.parquet")
    assert found["tokens"].null_count() == 6
    assert found["sequences"].null_count() == 24
    expected = uneven.activations().sort("row").collect().select(found.columns)
    assert found.select("row", "example", "position").equals(expected.select("row", "example", "position"))
    back = import_(tmp_path, tmp_path / "x.parquet")
    for site in ("tokens", "sequences"):
        assert same_bits(held(back, site), held(uneven, site))
        assert back.rows(site).metadata(["example"]).equals(uneven.rows(site).metadata(["example"]))


def test_filters_and_refusals(tmp_path: Path, every: lamina.Run) -> None:
    path = tmp_path / "x.parquet"
    where = (pl.col("example") < 5) & (pl.col("text").is_not_null())
    rows = interchange.to_parquet(every, path, sites="scalar", source=["train", "probe"], where=where, progress=False)
    assert rows == every.activations("scalar").filter(where).collect().height
    with pytest.raises(StorageError, match="exists"):
        interchange.to_parquet(every, path)
    with pytest.raises(NotFoundError, match="scalars"):
        interchange.to_parquet(every, tmp_path / "y.parquet", sites="scalars")
    assert not (tmp_path / "y.parquet").exists()


@pytest.mark.parametrize("dtype", PLAIN)
def test_vectors_of_others_are_read(tmp_path: Path, dtype: str) -> None:
    values = bits(dtype, (20, 4))
    flat = pa.array(values.reshape(-1))
    table = pa.table(
        {
            "fixed": pa.FixedSizeListArray.from_arrays(flat, 4),
            "list": pa.ListArray.from_arrays(pa.array(np.arange(0, 84, 4, dtype=np.int32)), flat),
            "large": pa.LargeListArray.from_arrays(pa.array(np.arange(0, 84, 4)), flat),
            "doc": pa.array([f"d{k}" for k in range(20)]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=7)
    back = import_(tmp_path, tmp_path / "x.parquet", example="doc")
    for site in ("fixed", "list", "large"):
        assert same_bits(held(back, site), values)
    assert back.rows("fixed").metadata(["example"])["example"].to_list() == [f"d{k}" for k in range(20)]


def test_arrays_of_polars_become_positions(tmp_path: Path) -> None:
    values = bits("f32", (5, 3, 2))
    frame = pl.DataFrame({"h": values, "token": np.arange(15).reshape(5, 3), "word": [["a", "b", "c"]] * 5})
    frame.write_parquet(tmp_path / "x.parquet")
    back = import_(tmp_path, tmp_path / "x.parquet")
    assert same_bits(held(back, "h"), values)
    metadata = back.rows("h").metadata(["position", "token", "word", "example"])
    assert metadata["position"].to_list() == [0, 1, 2] * 5
    assert metadata["token"].to_list() == list(range(15))
    assert metadata["word"].to_list() == ["a", "b", "c"] * 5
    assert metadata["example"].to_list() == np.repeat(range(5), 3).tolist()


def test_folders_and_patterns_in_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        frame = pl.DataFrame({"v": np.full((2, 2), number, np.float32), "n": [number] * 2})
        frame.write_parquet(tmp_path / "in" / f"{number}.parquet")
    back = import_(tmp_path, tmp_path / "in")
    assert back.rows("v").metadata(["n"])["n"].to_list() == [0, 0, 1, 1, 2, 2]
    run = lamina.Run.create(tmp_path / "run")
    assert interchange.from_parquet(run, f"{tmp_path}/in/[12].parquet", progress=False) == 4
    pl.DataFrame({"v": [[1.0]], "n": ["a"]}).write_parquet(tmp_path / "in" / "9.parquet")
    with pytest.raises(SchemaError, match=r"'v' is large_list.*9\.parquet"):
        interchange.from_parquet(run, tmp_path / "in")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "t": ["x", "y"]}, "no column of vectors.*a \\(int64\\)"),
        ({"v": [[1.0, 2.0], [3.0]]}, "'v' are ragged: 2 entries in the first row, 1 in row 1"),
        ({"v": [[[1.0], [2.0]], [[3.0], [4.0, 5.0]]]}, "'v' are ragged: 1 entries in the first row, 2 in row 1"),
        ({"v": [[1.0, None], [3.0, 4.0]]}, "nulls inside the vectors of 'v'"),
        ({"v": [[1.0], [2.0]], "s": [{"a": 1}, {"a": 2}]}, "'s' has the type struct"),
        ({"v": [[1.0], None]}, "row 1 has none of the vectors"),
        ({"v": [["a"], ["b"]]}, "'v' has lists of texts"),
        ({"v": [[], []]}, "'v' are empty"),
    ],
)
def test_what_does_not_fit_says_so(tmp_path: Path, columns: dict, message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(SchemaError, match=message):
        interchange.from_parquet(tmp_path / "run", tmp_path / "x.parquet", progress=False)
    assert not (tmp_path / "run").exists()


def test_unsigned_vectors_are_refused_and_can_be_left_out(tmp_path: Path) -> None:
    pl.DataFrame({"v": np.ones((2, 2), np.uint16), "w": np.ones((2, 2))}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(SchemaError, match="'v' has the dtype u16"):
        interchange.from_parquet(tmp_path / "run", tmp_path / "x.parquet")
    back = import_(tmp_path, tmp_path / "x.parquet", sites={"w": "mlp.output"})
    assert back.sites()["site"].to_list() == ["mlp.output"]


@pytest.mark.parametrize("size", [0, 3, 50, -4, -20])
def test_a_truncated_file_is_damaged(tmp_path: Path, size: int) -> None:
    pl.DataFrame({"v": np.ones((100, 4))}).write_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:size])
    with pytest.raises(DamagedError, match=r"x\.parquet"):
        interchange.from_parquet(tmp_path / "run", tmp_path / "x.parquet")
    with pytest.raises(StorageError, match="names no Parquet file"):
        interchange.from_parquet(tmp_path / "run", tmp_path / "*.none")


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(tmp_path: Path, rows: int) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"a": stored("bf16", (rows, 3)), "b": stored("f32", (rows,))}, step=0, example=range(rows))
    interchange.to_parquet(run.refresh(), tmp_path / "x.parquet", bits=True, progress=False)
    back = import_(tmp_path, tmp_path / "x.parquet", sites=["a", "b"])
    assert back.sites().select("site", "dtype", "rows").sort("site").rows() == [("a", "bf16", rows), ("b", "f32", rows)]
    assert same_bits(held(back, "a"), bits("bf16", (rows, 3)))
