"""What the document's own reader finds in a run is what was put in, and what Lamina says, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import polars as pl
import pytest
import torch

import lamina
from tests.store import reader
from tests.store.forge import encode
from tests.store.planted import CONFIG, Planted, bits, plant, wide


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "run"


@pytest.fixture(scope="module")
def planted(path: Path) -> Planted:
    return plant(path)


@pytest.fixture(scope="module")
def read(path: Path, planted: Planted) -> reader.Recorded:
    return reader.read(path)


@pytest.fixture(scope="module")
def run(path: Path, planted: Planted) -> lamina.Run:
    return lamina.open(path, strict=True)


def same(left: Any, right: Any) -> bool:
    """Equal, with one type, and floats with the same bits."""
    if isinstance(left, float) and isinstance(right, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    return type(left) is type(right) and left == right


def assert_same(left: dict[str, Any], right: dict[str, Any], what: object) -> None:
    assert left.keys() == right.keys(), what
    for name in left:
        assert same(left[name], right[name]), (what, name, left[name], right[name])


# what the reader says is what was put in


def test_the_reader_finds_the_configuration(read: reader.Recorded) -> None:
    assert read.info["config"] == CONFIG


def test_the_reader_finds_every_cell_and_every_bit_of_every_site(read: reader.Recorded, planted: Planted) -> None:
    found = []
    for group in (group for group in read.groups if group.record[2] == 0):
        for at, uid in enumerate(group.columns["uid"]):
            cells = {name: values[at] for name, values in group.columns.items() if values[at] is not None}
            assert_same(cells | {"writer": group.writer}, planted.cells[uid], uid)
            assert {name: block[at].tobytes() for name, block in group.sites.items()} == planted.bits[uid]
            found.append(uid)
    assert sorted(found) == sorted(planted.cells)


def test_the_reader_finds_every_declared_site(read: reader.Recorded, planted: Planted) -> None:
    declared = {name: (dtype, shape) for name, dtype, shape in read.sites.values()}
    assert declared == {name: (dtype, shape) for name, (dtype, shape, _) in planted.sites.items()}


def test_the_groups_of_a_writer_number_their_rows_without_a_gap(read: reader.Recorded) -> None:
    following = {writer: writer << 40 for writer in read.writers}
    for group in read.groups:
        assert group.record[5] == following[group.writer]
        following[group.writer] += group.record[6]


def test_the_reader_finds_the_metrics(read: reader.Recorded, planted: Planted) -> None:
    found = [row[:1] + row[2:] for row in read.metrics]
    assert list(map(repr, found)) == list(map(repr, planted.metrics))


def test_the_reader_finds_of_each_example_what_was_written_last(read: reader.Recorded, planted: Planted) -> None:
    found = reader.examples(read)
    assert found.keys() == planted.examples.keys()
    for key, row in found.items():
        assert_same({"hard": None} | row, planted.examples[key], key)


def test_the_reader_finds_the_checkpoints(read: reader.Recorded, planted: Planted) -> None:
    found = {
        (step, part): _put_together(*state) for step, parts in read.checkpoints.items() for part, state in parts.items()
    }
    assert found.keys() == planted.states.keys()
    for key, state in found.items():
        _assert_same_state(state, planted.states[key], str(key))


def _put_together(tree: Any, scalars: list[Any], tensors: dict[str, np.ndarray]) -> Any:
    arrays = list(tensors.values())

    def build(node: dict[str, Any]) -> Any:
        ((kind, content),) = node.items()
        if kind in "tn":
            return arrays[content]
        if kind == "s":
            value = scalars[content]
            return float.fromhex(value["f"]) if isinstance(value, dict) else value
        if kind == "d":
            return {key: build(item) for key, item in content}
        return [build(item) for item in content] if kind == "l" else tuple(build(item) for item in content)

    return build(tree)


def _assert_same_state(found: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            _assert_same_state(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert (type(found), len(found)) == (type(expected), len(expected)), where
        for index, item in enumerate(expected):
            _assert_same_state(found[index], item, f"{where}.{index}")
    elif isinstance(expected, torch.Tensor | np.ndarray):
        assert tuple(found.shape) == tuple(expected.shape), where
        assert bits(torch.as_tensor(found)) == bits(torch.as_tensor(expected)), where
    else:
        assert same(found, expected), where


def test_the_reader_finds_what_became_of_each_writer(read: reader.Recorded) -> None:
    assert [writer["rank"] for writer in read.writers.values()] == [None, 3, None]
    assert [writer["error"] for writer in read.writers.values()] == [None, None, "RuntimeError('loss is NaN')"]


# the bytes are as the document says


def test_zones_say_what_lies_in_the_columns(read: reader.Recorded) -> None:
    for group in read.groups:
        zoned = {read.columns[zone[0]][0]: zone for zone in group.record[9]}
        assert zoned.keys() == {read.columns[part[1]][0] for part in group.record[7] if part[0] != 0}
        for name, zone in zoned.items():
            values = [value for value in group.columns[name] if value is not None]
            numbers = [value for value in values if value == value]
            assert (zone[3], zone[4]) == (group.record[6] - len(values), len(values) - len(numbers)), name
            least, greatest = _extremes(numbers)
            assert (zone.get(1), zone.get(2)) == (least, greatest), name


def _extremes(values: list[Any]) -> tuple[Any, Any]:
    if not values or not isinstance(values[0], str):
        return (min(values), max(values)) if values else (None, None)
    least, greatest = min(values).encode(), max(values).encode()
    least = least[:32].decode(errors="ignore")
    if len(greatest) <= 32:
        return least, greatest.decode()
    head = greatest[:32].decode(errors="ignore")
    return least, head[:-1] + chr(ord(head[-1]) + 1)


def test_blocks_are_aligned_without_gaps_and_groups_padded(read: reader.Recorded, path: Path) -> None:
    for group in read.groups:
        at = group.record[3]
        for part in group.record[7]:
            dtype = {0: lambda part: read.sites[part[1]][1], 1: lambda part: read.columns[part[1]][1]}.get(part[0])
            kind = (reader.ELEMENTS | reader.VALUES)[dtype(part)] if dtype else {2: "?", 3: "<u4", 4: "<u1"}[part[0]]
            assert part[2] == at
            assert part[2] % np.dtype(kind).itemsize == 0
            at += part[3]
        end = group.record[3] + group.record[4]
        assert end == -(-at // 4096) * 4096
        assert not any((path / group.record[0]).read_bytes()[at:end])


def test_the_counts_of_values_that_are_not_finite_are_right(read: reader.Recorded, planted: Planted) -> None:
    found = dict.fromkeys(planted.sites, 0)
    for group in read.groups:
        for part in group.record[7]:
            if part[0] == 0:
                found[read.sites[part[1]][0]] += part[5]
    assert found == {name: bad for name, (_, _, bad) in planted.sites.items()}


def test_every_record_is_deterministic_cbor(path: Path, read: reader.Recorded) -> None:
    bodies = [file.read_bytes()[12:-32] for file in (path / "commits").iterdir()]
    for file in (path / "logs").iterdir():
        data, start = file.read_bytes(), 0
        while start < len(data):
            end = start + 56 + int.from_bytes(data[start + 8 : start + 12], "little")
            bodies.append(data[start + 56 : end])
            start = end + 32
    assert len(bodies) > 6
    for body in bodies:
        value = cbor2.loads(body)
        assert encode(value) == body
        _assert_ascending(value)


def _assert_ascending(value: Any) -> None:
    if isinstance(value, dict):
        assert list(value) == sorted(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _assert_ascending(item)


def test_run_json_has_a_member_a_line(path: Path) -> None:
    lines = (path / "run.json").read_text().splitlines()
    names = [line.split(":")[0].strip('"') for line in lines[1:]]
    assert names == ["format", "version", "needs", "id", "created", "config", "blake3"]
    assert json.loads("{" + lines[6].rstrip(",") + "}")["config"] == CONFIG


def test_equal_tensors_are_stored_once(read: reader.Recorded, path: Path) -> None:
    raw = sum(chunk[3] for _, chunk in read.chunks.values())
    assert (path / "chunks" / "000001-000000.pack").stat().st_size == raw
    assert raw < 1.1 * 650_000 * 4


# what Lamina says is what was put in


def test_lamina_finds_every_cell(run: lamina.Run, planted: Planted) -> None:
    names = [name for name in run.activations().collect_schema() if name not in planted.sites]
    frame = run.activations().select(names).collect()
    assert frame.height == len(planted.cells)
    for row in frame.iter_rows(named=True):
        cells = {name: value for name, value in row.items() if value is not None}
        name = cells.pop("row")
        assert_same(cells | {"writer": name >> 40}, planted.cells[cells["uid"]], name)


def test_row_names_are_those_of_the_document(run: lamina.Run, read: reader.Recorded) -> None:
    found = dict(run.activations().select("uid", "row").collect().iter_rows())
    groups = [group for group in read.groups if group.record[2] == 0]
    assert found == {uid: group.record[5] + at for group in groups for at, uid in enumerate(group.columns["uid"])}


def test_lamina_gives_every_site_bit_for_bit(run: lamina.Run, planted: Planted) -> None:
    for site, (_, shape, _) in planted.sites.items():
        frame = run.activations(site).select("uid").collect()
        rows = run.rows(site)
        block = rows.gather(range(len(rows)))
        assert rows.shape == (frame.height, int(np.prod(shape)))
        for at, uid in enumerate(frame["uid"]):
            assert bits(block[at]) == planted.bits[uid][site], (site, uid)
        assert sum(site in found for found in planted.bits.values()) == frame.height


def test_frames_widen_bf16_and_f8_and_leave_the_rest(run: lamina.Run, planted: Planted) -> None:
    for site, (dtype, shape, _) in planted.sites.items():
        series = run.activations(site).collect()[site]
        found = series.to_numpy().reshape(len(series), int(np.prod(shape)))
        block = run.rows(site).gather(range(len(series)))
        expected = (wide(block) if dtype in ("bf16", "f8_e4m3", "f8_e5m2") else block).numpy()
        np.testing.assert_array_equal(found, expected, err_msg=site)
        assert found.dtype == expected.dtype, site


def test_lamina_counts_what_the_reader_counts(run: lamina.Run, planted: Planted) -> None:
    for row in run.sites().iter_rows(named=True):
        dtype, shape, bad = planted.sites[row["site"]]
        held = [found[row["site"]] for found in planted.bits.values() if row["site"] in found]
        assert (row["dtype"], tuple(row["shape"]), row["non_finite"]) == (dtype, shape, bad)
        assert (row["rows"], row["bytes"]) == (len(held), sum(map(len, held)))


def test_lamina_and_the_reader_agree_about_metrics(run: lamina.Run, read: reader.Recorded) -> None:
    found = run.metrics().with_columns(pl.col("time").dt.epoch("us")).collect().rows()
    assert list(map(repr, found)) == list(map(repr, read.metrics))


def test_lamina_and_the_reader_agree_about_examples(run: lamina.Run, planted: Planted) -> None:
    rows = run.examples().collect().rows(named=True)
    assert len(rows) == len(planted.examples)
    for row in rows:
        assert_same(row, planted.examples[row["example"], None], row["example"])


def test_lamina_loads_the_states_that_were_saved(run: lamina.Run, planted: Planted) -> None:
    for (step, part), state in planted.states.items():
        _assert_same_state(run.load(step, part=part), state, f"{step}.{part}")


def test_lamina_and_the_reader_agree_about_how_the_run_stands(run: lamina.Run, read: reader.Recorded) -> None:
    assert (run.id, run.config) == (read.info["id"], CONFIG)
    assert run.status.state == "failed"
    assert [(writer.rank, writer.error) for writer in run.status.writers] == [
        (writer["rank"], writer["error"]) for writer in read.writers.values()
    ]
