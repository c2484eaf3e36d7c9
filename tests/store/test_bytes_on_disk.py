"""The bytes lie where the document says, and records are encoded as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import numpy as np

from tests.store import reader
from tests.store.forge import encode, split
from tests.store.planted import CONFIG, Planted


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
    bodies += [one[56:-32] for file in (path / "logs").iterdir() for one in split(file.read_bytes())]
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
