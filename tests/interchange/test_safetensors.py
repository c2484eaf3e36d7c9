from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lamina
from lamina import interchange
from lamina.errors import DamagedError, NotFoundError, SchemaError, StorageError
from lamina.interchange.tensors import as_bits
from tests.faults import broken
from tests.interchange.planted import DTYPES, bits, held, same_bits, stored

_COLUMNS = ["step", "example", "source", "weight", "text", "count", "ok", "maybe"]


@pytest.fixture
def alone(tmp_path: Path) -> lamina.Run:
    """A run of one source."""
    run = lamina.Run.create(tmp_path / "alone")
    with run.writer() as writer:
        sites = {f"{dtype}.output": stored(dtype, (50, 3)) for dtype in DTYPES}
        writer.append(sites, step=2, example=np.arange(50), source="capture")
    return run.refresh()


def held_by_source(run: lamina.Run, site: str) -> np.ndarray:
    parts = [as_bits(run.rows(site, source=source).gather(slice(None))) for source in ("probe", "train")]
    return np.concatenate(parts)


def test_a_run_comes_back_from_its_export(tmp_path: Path, every: lamina.Run) -> None:
    assert interchange.to_safetensors(every, tmp_path / "x.safetensors", progress=False) == 100
    assert interchange.from_safetensors(tmp_path / "back", tmp_path / "x.safetensors", progress=False) == 100
    back = lamina.open(tmp_path / "back")
    for site in every.sites()["site"]:
        assert same_bits(held_by_source(back, site), held_by_source(every, site)), site
    metadata = [run.activations().sort("row").select(_COLUMNS).collect() for run in (back, every)]
    assert metadata[0].equals(metadata[1])
    shapes = [run.sites().select("site", "dtype", "shape", "rows").sort("site") for run in (back, every)]
    assert shapes[0].equals(shapes[1])


def test_torch_reads_every_bit(tmp_path: Path, every: lamina.Run) -> None:
    interchange.to_safetensors(every, tmp_path / "x.safetensors", step=10, progress=False)
    found = load_file(tmp_path / "x.safetensors")
    for dtype in DTYPES:
        assert same_bits(as_bits(found[f"{dtype}.output"]), bits(dtype, (50, 3), 10)), dtype
    assert found["image"].shape == (50, 2, 3, 2)
    assert found[".meta/example"].tolist() == (np.arange(50) // 2).tolist()
    assert found[".meta/row"].tolist() == every.rows("scalar", step=10).ids.tolist()
    offsets, texts = found[".meta/text/.offsets"].tolist(), bytes(found[".meta/text/.bytes"].tolist())
    read = [texts[a:b].decode() for a, b in pairwise(offsets)]
    there = found[".meta/text/.valid"].tolist()
    expected = every.rows("scalar", step=10).metadata(["text"])["text"].to_list()
    assert [text if valid else None for text, valid in zip(read, there, strict=True)] == expected
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        about = file.metadata()
    assert about["run"] == every.id
    assert json.loads(about["steps"]) == [10]
    assert json.loads(about["columns"])["maybe"] == "bool"


def test_a_narrowed_export_is_noticed(tmp_path: Path, every: lamina.Run) -> None:
    with broken("export_converts_values"), pytest.raises(AssertionError):
        test_torch_reads_every_bit(tmp_path, every)


def test_filters_are_those_of_rows(tmp_path: Path, every: lamina.Run) -> None:
    path = tmp_path / "x.safetensors"
    where = pl.col("example") < 5
    assert interchange.to_safetensors(every, path, sites=["f32.*", "scalar"], source="train", where=where) == 10
    found = load_file(path)
    assert {name for name in found if not name.startswith(".meta")} == {"f32.output", "scalar"}
    rows = every.rows("f32.output", source="train", where=where)
    assert same_bits(as_bits(found["f32.output"]), as_bits(rows.gather(slice(None))))


def test_shards_hold_all_rows_in_order(tmp_path: Path, alone: lamina.Run) -> None:
    interchange.to_safetensors(alone, tmp_path / "shards", shard_bytes=2000, progress=False)
    files = sorted((tmp_path / "shards").iterdir())
    assert len(files) == -(-50 * 3 * 37 // 2000)
    assert files[1].name == f"00001-of-{len(files):05}.safetensors"
    interchange.from_safetensors(tmp_path / "back", tmp_path / "shards", progress=False)
    back = lamina.open(tmp_path / "back")
    for site in alone.sites()["site"]:
        assert same_bits(held(back, site), held(alone, site)), site
    assert back.rows("f32.output").metadata(["example"])["example"].to_list() == list(range(50))


def test_sites_with_different_rows_have_metadata_of_their_own(tmp_path: Path, uneven: lamina.Run) -> None:
    assert interchange.to_safetensors(uneven, tmp_path / "x.safetensors", progress=False) == 30
    found = load_file(tmp_path / "x.safetensors")
    assert found["tokens"].shape == (24, 2)
    assert found["tokens/.meta/position"].tolist() == [0, 1, 2, 3] * 6
    interchange.from_safetensors(tmp_path / "back", tmp_path / "x.safetensors", progress=False)
    back = lamina.open(tmp_path / "back")
    for site in ("tokens", "sequences"):
        assert same_bits(held(back, site), held(uneven, site))
        assert back.rows(site).metadata(["example"]).equals(uneven.rows(site).metadata(["example"]))
    assert back.rows("tokens").metadata(["position"]).equals(uneven.rows("tokens").metadata(["position"]))


def test_sealed_segments_come_back(tmp_path: Path, every: lamina.Run) -> None:
    segments = sorted((every.path / "segments").iterdir())
    assert segments
    run = lamina.Run.create(tmp_path / "back")
    for segment in segments:
        interchange.from_safetensors(run, segment, progress=False)
    for site in every.sites()["site"]:
        assert same_bits(held_by_source(run, site), held_by_source(every, site)), site
    metadata = [one.activations().sort("row").select(_COLUMNS).collect() for one in (run, every)]
    assert metadata[0].equals(metadata[1])


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(tmp_path: Path, rows: int) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"a": stored("bf16", (rows, 3)), "b": stored("f32", (rows,))}, step=0, example=range(rows))
    interchange.to_safetensors(run.refresh(), tmp_path / "x.safetensors", progress=False)
    found = load_file(tmp_path / "x.safetensors")
    assert {name: list(found[name].shape) for name in "ab"} == {"a": [rows, 3], "b": [rows]}
    assert interchange.from_safetensors(tmp_path / "back", tmp_path / "x.safetensors", progress=False) == rows
    assert same_bits(held(lamina.open(tmp_path / "back"), "a"), bits("bf16", (rows, 3)))


def test_what_others_write_is_read(tmp_path: Path) -> None:
    tensors = {f"h.{dtype}": torch.as_tensor(stored(dtype, (11, 3))) for dtype in DTYPES}
    tensors |= {"doc": torch.arange(11, dtype=torch.int32), "pos": torch.arange(11, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    run = lamina.Run.create(tmp_path / "run")
    path = tmp_path / "x.safetensors"
    interchange.from_safetensors(run, path, sites="h.*", example="doc", position="pos", step=4, progress=False)
    for dtype in DTYPES:
        assert same_bits(held(run, f"h.{dtype}"), bits(dtype, (11, 3)))
    frame = run.activations().sort("row").select("step", "example", "position").collect()
    assert frame.rows() == [(4, k, k) for k in range(11)]
    interchange.from_safetensors(tmp_path / "renamed", path, sites={"h.f32": "mlp.output"}, progress=False)
    assert lamina.open(tmp_path / "renamed").sites()["site"].to_list() == ["mlp.output"]


def test_a_float4_tensor_is_refused_by_name(tmp_path: Path) -> None:
    header = {"x": {"dtype": "F4", "shape": [4, 2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(SchemaError, match="'x' has the dtype F4"):
        interchange.from_safetensors(tmp_path / "run", tmp_path / "x.safetensors")


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_damaged(tmp_path: Path, size: int) -> None:
    save_file({"x": torch.ones(10, 10)}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:size])
    with pytest.raises(DamagedError, match=r"x\.safetensors"):
        interchange.from_safetensors(tmp_path / "run", tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"nonsense",
        b"[" * 100_000,
        b'{"x": 3}',
        b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [9223372036854775807, 4], "data_offsets": [0, 16]}}',
        b'{"x": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 32]}}',
        b'{"x": {"dtype": "F32", "shape": [4611686018427387904], "data_offsets": [0, 18446744073709551616]}}',
        b'{"x": {"dtype": ["F32"], "shape": [1], "data_offsets": [4, 0]}}',
    ],
)
def test_a_hostile_header_is_damaged(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(DamagedError, match=r"x\.safetensors"):
        interchange.from_safetensors(tmp_path / "run", tmp_path / "x.safetensors")


def test_flipped_bytes_of_a_segments_table_do_no_harm(tmp_path: Path, uneven: lamina.Run) -> None:
    segment = next((uneven.path / "segments").iterdir())
    with safe_open(segment, "pt") as file:
        table = bytes(file.get_tensor(".table").tolist())
    data = segment.read_bytes()
    at = data.rindex(table)
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(table))[:30]:
        flipped = bytearray(data)
        flipped[at + place] ^= 1 << int(rng.integers(8))
        (tmp_path / "flipped.safetensors").write_bytes(flipped)
        try:
            interchange.from_safetensors(tmp_path / f"run-{place}", tmp_path / "flipped.safetensors", progress=False)
        except lamina.LaminaError:
            assert not (tmp_path / f"run-{place}").exists()


def test_nothing_is_overwritten_and_nothing_half_written_stays(
    tmp_path: Path, alone: lamina.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.safetensors").write_text("mine")
    with pytest.raises(StorageError, match="exists"):
        interchange.to_safetensors(alone, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_text() == "mine"
    before = set(tmp_path.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lamina.interchange.safetensors_out.make_header", fail)
    with pytest.raises(StorageError, match=r"y\.safetensors: No space left"):
        interchange.to_safetensors(alone, tmp_path / "y.safetensors", progress=False)
    assert set(tmp_path.iterdir()) == before


def test_names_that_are_not_there(tmp_path: Path, alone: lamina.Run) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(NotFoundError, match="mlp"):
        interchange.to_safetensors(alone, path, sites="mlp")
    with pytest.raises(NotFoundError, match="step 7"):
        interchange.to_safetensors(alone, path, step=7)
    with pytest.raises(NotFoundError, match="'doc'"):
        interchange.to_safetensors(alone, path, where=pl.col("doc") > 1)
    with pytest.raises(NotFoundError, match="holds no site"):
        interchange.to_safetensors(lamina.Run.create(tmp_path / "empty"), path)
    assert not path.exists()
