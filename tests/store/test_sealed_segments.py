"""A sealed segment is a plain safetensors file that says of itself what the log says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import blake3
import cbor2
import numpy as np
import pytest
import torch
from safetensors import safe_open

import lamina
from tests.store import reader
from tests.store.planted import Planted, bits, randomness


def tensors(data: bytes) -> dict[str, tuple[int, int]]:
    """The first and the last byte in the file of each tensor of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    assert entries.pop("__metadata__") == {"format": "lamina"}
    return {name: tuple(8 + length + at for at in entry["data_offsets"]) for name, entry in entries.items()}


def name_of(read: reader.Recorded, group: int, part: dict[int, Any]) -> str:
    if part[0] == 0:
        return f"g{group:06}/{read.sites[part[1]][0]}"
    return f"g{group:06}/.meta/{read.columns[part[1]][0]}" + ("", "/.valid", "/.offsets", "/.bytes")[part[0] - 1]


def test_every_segment_of_a_closed_writer_is_sealed(path: Path, read: reader.Recorded) -> None:
    assert sorted(read.seals) == sorted(f"segments/{file.name}" for file in (path / "segments").iterdir())


def test_the_seal_states_the_length_and_the_hash_of_the_table(path: Path, read: reader.Recorded) -> None:
    for file, seal in read.seals.items():
        data = (path / file).read_bytes()
        start, end = tensors(data)[".table"]
        assert (seal[1], seal[2]) == (len(data), blake3.blake3(data[start:end]).digest())


def test_the_table_holds_the_declarations_and_groups_of_the_file(path: Path, read: reader.Recorded) -> None:
    for file in read.seals:
        data = (path / file).read_bytes()
        start, end = tensors(data)[".table"]
        table = cbor2.loads(data[start:end])
        groups = [group.record for group in read.groups if group.record[0] == file]
        parts = [part for group in groups for part in group[7]]
        sites = sorted({part[1] for part in parts if part[0] == 0})
        columns = {part[1] for part in parts if part[0]} | {item[0] for group in groups for item in group[8]}
        expected = [[reader.SITE, dict(enumerate((at, *read.sites[at])))] for at in sites]
        expected += [[reader.COLUMN, dict(enumerate((at, *read.columns[at])))] for at in sorted(columns)]
        expected += [[reader.GROUP, group] for group in groups]
        assert cbor2.dumps(table) == cbor2.dumps(expected)


def test_the_header_names_the_blocks_of_the_log_and_nothing_else(path: Path, read: reader.Recorded) -> None:
    for file in read.seals:
        found = tensors((path / file).read_bytes())
        groups = [group.record for group in read.groups if group.record[0] == file]
        named = {name_of(read, group[1], part): (part[2], part[2] + part[3]) for group in groups for part in group[7]}
        rest = found.keys() - named.keys()
        assert {name: found[name] for name in named} == named
        assert rest <= {".table", *(f"g{group[1]:06}/.pad" for group in groups)}
        ends = sorted(found.values())
        assert [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]


def test_safetensors_opens_it_and_gives_the_bits_that_lamina_gives(
    path: Path, read: reader.Recorded, run: lamina.Run, planted: Planted
) -> None:
    compared = 0
    for file in read.seals:
        with safe_open(path / file, framework="pt") as opened:
            for group in (group for group in read.groups if group.record[0] == file and group.record[2] == 0):
                first, rows = group.record[5], group.record[6]
                for site, block in group.sites.items():
                    tensor = opened.get_tensor(f"g{group.record[1]:06}/{site}")
                    ours = run.rows(site)
                    at = np.flatnonzero((ours.ids >= first) & (ours.ids < first + rows))
                    assert tensor.dtype == ours.dtype
                    assert tuple(tensor.shape) == block.shape
                    assert bits(tensor) == bits(ours.gather(at)) == block.tobytes(), (file, site)
                    compared += len(at)
    assert compared == sum(len(sites) for sites in planted.bits.values())


def test_safetensors_opens_the_metadata_columns(path: Path, read: reader.Recorded) -> None:
    for file in read.seals:
        with safe_open(path / file, framework="np") as opened:
            for group in (group for group in read.groups if group.record[0] == file):
                head = f"g{group.record[1]:06}/.meta/"
                for name in (name.removeprefix(head) for name in opened.keys() if name.startswith(head)):  # noqa: SIM118
                    if name in group.columns and f"{head}{name}/.valid" not in opened.keys():  # noqa: SIM118
                        assert opened.get_tensor(head + name).tolist() == pytest.approx(
                            group.columns[name], nan_ok=True
                        )


def test_a_segment_that_is_not_sealed_yet_reads_alike(tmp_path: Path) -> None:
    run, values = lamina.Run.create(tmp_path / "run"), randomness(1)("bf16", 6, 4)
    with run.writer() as writer:
        writer.append({"site": values}, step=0, example=[1, 2, 3, 4, 5, 6]).wait()
        read = reader.read(run.path)
        assert not read.seals
        assert [group.sites["site"].tobytes() for group in read.groups] == [bits(values)]
        assert bits(run.refresh().rows("site").gather(range(6))) == bits(values)
    sealed = reader.read(run.path)
    assert sealed.seals
    assert [group.record for group in sealed.groups] == [group.record for group in read.groups]


def test_no_two_header_regions_differ_for_the_same_groups(tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(4, 3)
    for name in ("one", "two"):
        with lamina.Run.create(tmp_path / name).writer() as writer:
            writer.append({"site": values}, step=0, example=[1, 2, 3, 4], label=["a", "b", None, "d"])
    files = [tmp_path / name / "segments" / "000000-000000.safetensors" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
