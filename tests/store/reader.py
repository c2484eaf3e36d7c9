"""A second reader, written from docs/format.md alone: it knows nothing of Lamina's code and is what tests compare with.

It believes nothing: whatever does not match its checksum or its place raises `BrokenError`, with file and offset.
bf16 and f8 come as their bits (u2, u1); a column is a list with None where there is no value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import blake3
import cbor2
import google_crc32c
import numpy as np
import zstandard

_TABLE = (
    "f64:<f8 f32:<f4 f16:<f2 bf16:<u2 f8_e4m3:<u1 f8_e5m2:<u1 i64:<i8 i32:<i4 i16:<i2 i8:<i1 "
    "u64:<u8 u32:<u4 u16:<u2 u8:<u1 bool:? c64:<c8 c128:<c16"
)
ELEMENTS = {name: kind for name, kind in (pair.split(":") for pair in _TABLE.split())}  # noqa: C416 - for pyright
VALUES = {"int": "<i8", "float": "<f8", "bool": "?", "time": "<i8"}
CREATE, OPEN, CLOSE, SITE, COLUMN, GROUP, METRICS, SEAL, CHUNKS, LAYOUT, SAVE, REWIND, DELETE, REPLACE = range(14)
DROP, DISCARD, NOTE = 15, 17, 18
ATTACHED = -(2**63)
KNOWN = {"attached", "coded-chunks", "discard", "notes", "pieces", "sparse"}


class BrokenError(Exception):
    """Bytes that are not what the document says: message, file, offset."""


@dataclass
class Group:
    """A row group: what the log says of it (by the document's keys), its values by name, and which are hidden."""

    writer: int
    record: dict[int, Any]
    columns: dict[str, list[Any]]
    sites: dict[str, np.ndarray]
    names: np.ndarray
    hidden: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Recorded:
    """All that a run holds."""

    info: dict[str, Any]
    commits: list[dict[int, Any]]
    frames: dict[str, list[list[Any]]] = field(default_factory=dict)
    sites: dict[int, tuple[str, str, tuple[int, ...]]] = field(default_factory=dict)
    sparse: set[int] = field(default_factory=set)
    columns: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    writers: dict[int, dict[str, Any]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    places: list[tuple[Group, int | None, int]] = field(default_factory=list)
    metrics: list[tuple[Any, ...]] = field(default_factory=list)
    layouts: dict[bytes, dict[int, Any]] = field(default_factory=dict)
    chunks: dict[bytes, tuple[str, dict[int, Any]]] = field(default_factory=dict)
    wholes: dict[bytes, tuple[str, dict[int, Any]]] = field(default_factory=dict)
    replaced: set[tuple[str, int]] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    seals: dict[str, dict[int, Any]] = field(default_factory=dict)
    saves: list[dict[int, Any]] = field(default_factory=list)
    checkpoints: dict[int, dict[str, tuple[Any, Any, list[np.ndarray]]]] = field(default_factory=dict)
    attachments: dict[str, tuple[Any, Any, list[np.ndarray]]] = field(default_factory=dict)

    @property
    def notes(self) -> list[tuple[int, int | None, str]]:
        """Time, step and text of each."""
        said = (record for body in self.commits for number, record in body[6] if number == NOTE)
        return [(record[1], record.get(2), record[0]) for record in said]


def digest(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def check(holds: bool, message: str, file: str, offset: int | None = None) -> None:
    if not holds:
        raise BrokenError(message, file, offset)


def read(folder: Path) -> Recorded:
    run = Recorded(read_info((folder / "run.json").read_bytes()), list(read_commits(folder)))
    check(run.commits[0][6] == [[CREATE, {0: (folder / "run.json").read_text()}]], "no copy of run.json", "commits")
    for body in run.commits:
        for number, record in body[6]:
            declare(run, number, record)
    replaces = [(body[0], record) for body in run.commits for number, record in body[6] if number == REPLACE]
    run.replaced = {
        (old[0], number)
        for _, record in replaces
        for old in record[1]
        for number in np.frombuffer(old[1], "<u4").tolist()
    }
    run.dropped = {file for body in run.commits for number, record in body[6] if number == DROP for file in record[0]}
    for path in sorted((folder / "logs").iterdir()):
        file = f"logs/{path.name}"
        run.frames[file] = list(
            read_frames(path.read_bytes()[: fence(folder, path.name[:6])], file, int(path.name[7:11]))
        )
        for at, frame in enumerate(run.frames[file]):
            for number, record in frame:
                apply(run, folder, int(path.name[:6]), at, number, record)
    for n, record in replaces:
        for group in record[2]:
            add_group(run, folder, record[0], None, group, n)
    steps = {
        name: step
        for group, *_ in run.places
        for name, step in zip(group.names.tolist(), group.columns.get("step", []), strict=False)
    }
    for place in run.places:
        hide(run, steps, *place)
    run.groups.sort(key=lambda group: (group.record[5], group.writer))
    for record in sorted(run.saves, key=lambda record: record[1]):
        read_save(run, folder, record)
    return run


def fence(folder: Path, writer: str) -> int | None:
    """How many bytes of a writer's log count."""
    path = folder / "fences" / f"{writer}.end"
    if not path.exists():
        return None
    data = path.read_bytes()
    check(len(data) == 40 and digest(data[:8]) == data[8:], "wrong checksum", f"fences/{path.name}")
    return int.from_bytes(data[:8], "little")


def add_group(run: Recorded, folder: Path, writer: int, frame: int | None, record: dict[int, Any], commit: int) -> None:
    if (record[0], record[1]) not in run.replaced:
        run.groups.append(read_group(run, folder, writer, record))
        run.places.append((run.groups[-1], frame, commit))


def read_info(data: bytes) -> dict[str, Any]:
    info = json.loads(data)
    found = blake3.blake3(data[: data.rindex(b'"blake3": "')]).hexdigest()
    check(info["blake3"] == found and data.endswith(f'{found}"}}\n'.encode()), "wrong checksum", "run.json")
    check((info["format"], info["version"], info["needs"]) == ("lamina", 1, []), "not format 1", "run.json")
    return info


def read_commits(folder: Path) -> Iterator[dict[int, Any]]:
    """The bodies of the commits, oldest first."""
    parent = None
    paths = [path for path in (folder / "commits").iterdir() if not path.name.startswith(".")]
    for number, path in enumerate(sorted(paths, reverse=True)):
        data, file = path.read_bytes(), f"commits/{path.name}"
        check(path.name == f"{2**64 - 1 - number:020}", "wrong name", file)
        length = int.from_bytes(data[8:12], "little")
        check(data[:8] == b"LAMCOMM1" and len(data) == length + 44, "not a commit", file)
        check(digest(data[:-32]) == data[-32:], "wrong checksum", file)
        body = cbor2.loads(data[12:-32])
        check((body[0], body.get(1), body[2]) == (number, parent, []), "wrong place in the chain", file)
        check({*body[5]} <= KNOWN, f"it needs {body[5]}", file)
        parent = {0: number, 1: data[-32:]}
        yield body


def read_frames(data: bytes, file: str, generation: int) -> Iterator[list[Any]]:
    """The operations of each frame of a log."""
    start, sequence, before = 0, 0, bytes(32)
    while start < len(data):
        check(data[start : start + 8] == b"LAMFRAM1", "not a frame", file, start)
        length = int.from_bytes(data[start + 8 : start + 12], "little")
        end = start + 56 + length
        check(digest(data[start:end]) == data[end : end + 32], "wrong checksum", file, start)
        place = generation.to_bytes(4, "little") + sequence.to_bytes(8, "little") + before
        check(data[start + 12 : start + 56] == place, "wrong place in the log", file, start)
        yield cbor2.loads(data[start + 56 : end])
        start, sequence, before = end + 32, sequence + 1, data[end : end + 32]


def declare(run: Recorded, number: int, record: dict[int, Any]) -> None:
    if number == SITE:
        declared = (record[1], record[2], tuple(record[3]))
        check(run.sites.setdefault(record[0], declared) == declared, f"two sites {record[0]}", "commits")
        run.sparse |= {record[0]} if record.get(4) else set()
    elif number == COLUMN:
        column = (record[1], record[2], record[3])
        check(run.columns.setdefault(record[0], column) == column, f"two columns {record[0]}", "commits")


def rules(run: Recorded, wanted: int, writer: int, frame: int | None, commit: int = 0) -> list[dict[int, Any]]:
    """The rewinds, deletes or discards that hold for a frame, or for the groups of a commit."""
    found = [(body[0], record) for body in run.commits for number, record in body[6] if number == wanted]
    if frame is None:
        return [record for n, record in found if n > commit]
    before = {REWIND: 1, DELETE: 3, DISCARD: 2}[wanted]
    return [record for _, record in found if any(at[0] == writer and frame < at[1] for at in record[before])]


def holds(spans: list[dict[int, int]], numbers: np.ndarray) -> np.ndarray:
    return np.array([not spans or any(span[0] <= number <= span[1] for span in spans) for number in numbers], bool)


def hide(run: Recorded, of_rows: dict[int, Any], group: Group, frame: int | None, commit: int) -> None:
    """Mark the values that rewinds and deletes hide; an attached one has its row's step."""
    steps = [np.nan if (step := of_rows.get(name)) is None else step for name in group.names.tolist()]
    gone = np.zeros(len(group.names), bool)
    for record in rules(run, REWIND, group.writer, frame, commit):
        gone |= np.array(steps) >= record[0]
    group.hidden = {name: gone.copy() for name in group.sites}
    for record in rules(run, DELETE, group.writer, frame, commit):
        named = {run.sites[number][0] for number in record[0]} or set(group.sites)
        for name in named & set(group.sites):
            group.hidden[name] |= holds(record[1], np.array(steps)) & holds(record[2], group.names)


def apply(run: Recorded, folder: Path, writer: int, frame: int, number: int, record: dict[int, Any]) -> None:
    declare(run, number, record)
    back = min([record[0] for record in rules(run, REWIND, writer, frame)], default=2**63)
    if number == OPEN:
        run.writers[writer] = {"pid": record[1], "rank": record.get(2), "closed": False, "error": None}
    elif number == CLOSE:
        run.writers[writer] |= {"closed": True, "error": record.get(0)}
    elif number == GROUP:
        add_group(run, folder, writer, frame, record, 0)
    elif number == METRICS:
        read_metrics(run, run.writers[writer]["rank"], record, back)
    elif number == SEAL:
        run.seals[record[0]] = record
    elif number == CHUNKS:
        if record[0] in run.dropped:
            run.gone |= {chunk[0] for chunk in record[1]}
        else:
            run.chunks |= {chunk[0]: (record[0], chunk) for chunk in record[1]}
            run.wholes |= {chunk[0]: (record[0], chunk) for chunk in record[1] if chunk[4] != 2}
    elif number == LAYOUT:
        run.layouts[digest(record[0])] = cbor2.loads(record[0])
    elif number == SAVE and record[0] <= back:
        step = np.array([record[0]])
        hidden = [rule[0] for rule in rules(run, DISCARD, writer, frame) if holds(rule[1], step)[0]]
        parts = [part for part in record[2] if not any(part[0] in names for names in hidden)]
        if parts or not record[2]:
            run.saves.append(record | {2: parts})


def block(folder: Path, file: str, offset: int, length: int, crcs: bytes, piece: int = 1 << 17) -> bytes:
    with (folder / file).open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    found = b"".join(google_crc32c.value(piece).to_bytes(4, "little") for piece in pieces)
    check(len(data) == length and found == crcs, "wrong checksum", file, offset)
    return data


def coded(folder: Path, file: str, part: dict[int, Any], length: int, kind: np.dtype) -> bytes:
    """The rows of a coded block."""
    data, at = b"", part[2]
    for number, size in enumerate(np.frombuffer(part[6], "<u4").tolist()):
        stored = block(folder, file, at, size, part[4][4 * number : 4 * number + 4], size)
        data += unplaned(stored, kind.itemsize, min(1 << 17, length - len(data)))
        at += size
    check(at == part[2] + part[3] and len(data) == length, "pieces do not fit", file, part[2])
    return data


def unplaned(stored: bytes, width: int, length: int) -> bytes:
    """A piece from its byte planes."""
    planes, at = np.empty((length // width, width), "u1"), 4 * width
    for number, size in enumerate(np.frombuffer(stored[: 4 * width], "<u4").tolist()):
        plane = stored[at : at + (size & ~(1 << 31))]
        at += len(plane)
        if not size >> 31:
            plane = zstandard.ZstdDecompressor().decompress(plane)
        planes[:, number] = np.frombuffer(plane, "u1")
    rotated = planes.reshape(-1).view(f"<u{width}")
    return (rotated >> 1 | rotated << (8 * width - 1)).tobytes()


def dense(ends: np.ndarray, ids: np.ndarray, values: np.ndarray, width: int, file: str) -> np.ndarray:
    """Sparse codes as rows."""
    check(ends[0] == 0 and ends[-1] == len(ids) == len(values), "row pointers that lead elsewhere", file)
    found = np.zeros((len(ends) - 1, width), values.dtype)
    for row, (start, end) in enumerate(pairwise(ends.tolist())):
        of_row = ids[start:end].astype(np.int64)
        check(start <= end and bool((np.diff(of_row, append=width) > 0).all()), "ids do not ascend", file)
        found[row, of_row] = values[start:end]
    return found


def read_group(run: Recorded, folder: Path, writer: int, record: dict[int, Any]) -> Group:
    rows, sites, pieces = record[6], {}, {}
    names = np.arange(record[5], record[5] + rows)
    check(record[3] % 4096 == 0 and record[4] % 4096 == 0, "not aligned", record[0], record[3])
    codes: dict[int, dict[int, np.ndarray]] = {}
    for part in record[7]:
        name, dtype, shape = run.sites[part[1]] if part[0] in {0, 6, 7} else ("", "u8", ())
        kind = np.dtype(ELEMENTS[{6: "u32", 7: "u16" if np.prod(shape) <= 2**16 else "u32"}.get(part[0], dtype)])
        if 6 in part:
            elements = part[7] if 7 in part else rows * int(np.prod(shape))
            data = coded(folder, record[0], part, kind.itemsize * elements, kind)
        else:
            data = block(folder, record[0], part[2], part[3], part[4])
        if part[0] in {0, 6, 7} and part[1] in run.sparse:
            codes.setdefault(part[1], {})[part[0]] = np.frombuffer(data, kind)
            check(len(codes[part[1]][part[0]]) == part.get(7, rows + 1), "wrong length", record[0], part[2])
        elif part[0] == 0:
            sites[name] = np.frombuffer(data, ELEMENTS[dtype]).reshape(rows, *shape)
        elif part[0] == 5:
            names = np.frombuffer(data, "<i8")
            check((names.min(), names.max()) == (record[5], record[10]), "wrong names", record[0], part[2])
        else:
            pieces[part[1], part[0]] = data
    for number, parts in codes.items():
        name, _, (width,) = run.sites[number]
        sites[name] = dense(parts[6], parts[7], parts[0], width, record[0])
    constants = {constant[0]: constant.get(1) for constant in record[8]}
    columns = {}
    for number, (name, kind, table) in run.columns.items():
        if table == record[2] and number in constants:
            columns[name] = [constants[number]] * rows
        elif (number, 1) in pieces or (number, 3) in pieces:
            columns[name] = read_column(kind, {role: data for (of, role), data in pieces.items() if of == number})
    return Group(writer, record, columns, sites, names)


def read_column(kind: str, pieces: dict[int, bytes]) -> list[Any]:
    if kind == "str":
        offsets, text = np.frombuffer(pieces[3], "<u4").tolist(), pieces[4]
        values = [text[start:end].decode() for start, end in pairwise(offsets)]
    else:
        values = np.frombuffer(pieces[1], VALUES[kind]).tolist()
    valid = np.frombuffer(pieces[2], "?").tolist() if 2 in pieces else [True] * len(values)
    return [value if given else None for value, given in zip(values, valid, strict=True)]


def read_metrics(run: Recorded, rank: int | None, record: dict[int, Any], back: int) -> None:
    steps, times, values = (np.frombuffer(record[key], kind).tolist() for key, kind in enumerate(("<i8", "<i8", "<f8")))
    words = dict(enumerate(record[3])) | {2**32 - 1: None}
    names, sites, sources = ([words[at] for at in np.frombuffer(record[key], "<u4").tolist()] for key in (4, 5, 6))
    run.metrics += [
        (step, time, name, site, source, rank, value)
        for step, time, name, site, source, value in zip(steps, times, names, sites, sources, values, strict=True)
        if step < back
    ]


def read_chunk(run: Recorded, folder: Path, file: str, place: dict[int, Any], dtype: str) -> bytes:
    """The bytes that a chunk stands for."""
    check(place[4] in {0, 1, 2} and (place[4] == 2) == (7 in place), "unknown codec", file, place[1])
    if place[4] == 0:
        raw = block(folder, file, place[1], place[2], place[5])
    else:
        kind = np.dtype(ELEMENTS[{"c64": "f32", "c128": "f64"}.get(dtype, dtype)])
        raw = coded(folder, file, {2: place[1], 3: place[2], 4: place[5], 6: place[6]}, place[3], kind)
        if place[4] == 2:
            base = read_chunk(run, folder, *run.wholes[place[7]], dtype)
            check(len(base) == len(raw), "a base of another length", file, place[1])
            raw = undelta(raw, base, kind.itemsize, dtype[0] in "fbc" and dtype != "bool")
    check(len(raw) == place[3], "wrong length", file, place[1])
    return raw


def undelta(differences: bytes, base: bytes, width: int, is_float: bool) -> bytes:
    """The elements that differ from those of `base`; floats are counted in order."""
    number, greatest = np.dtype(f"<i{width}"), np.array(2 ** (8 * width - 1) - 1, f"<i{width}")

    def fold(x: np.ndarray) -> np.ndarray:
        return x ^ (x >> (8 * width - 1) & greatest)

    difference, before = fold(np.frombuffer(differences, number)), np.frombuffer(base, number)
    return (fold(fold(before) + difference) if is_float else before + difference).tobytes()


def read_save(run: Recorded, folder: Path, record: dict[int, Any]) -> None:
    for part in record[2]:
        layout, keys = run.layouts[part[1]], iter(range(0, len(part[2]), 32))
        if any(part[2][at : at + 32] in run.gone - run.chunks.keys() for at in range(0, len(part[2]), 32)):
            continue
        tensors = []
        for tensor in layout[1]:
            kind = np.dtype(ELEMENTS[tensor[1]])
            data = bytearray()
            while len(data) < kind.itemsize * int(np.prod(tensor[2])):
                key = part[2][(at := next(keys)) : at + 32]
                file, place = run.chunks[key]
                data += (raw := read_chunk(run, folder, file, place, tensor[1]))
                check(digest(tensor[1].encode() + b"\0" + raw) == key, "wrong key", file, place[1])
            tensors.append(np.frombuffer(data, kind).reshape(tensor[2]))
        check(next(keys, None) is None, "keys left over", "logs")
        tensors = [put_together(whole, tensors) for whole in layout[2]] if 2 in layout else tensors
        parts = run.attachments if record[0] == ATTACHED else run.checkpoints.setdefault(record[0], {})
        parts[part[0]] = (json.loads(layout[0]), json.loads(part[3]), tensors)


def put_together(whole: dict[int, Any], tensors: list[np.ndarray]) -> np.ndarray:
    _, dtype, shape = (whole[0][key] for key in range(3))
    made, filled = np.empty(shape, ELEMENTS[dtype]), np.zeros(shape, bool)
    for piece in whole[1]:
        held = tensors[piece[0]]
        box = tuple(slice(at, at + size) for at, size in zip(piece[1], held.shape, strict=True))
        check(held.dtype == made.dtype and not filled[box].any(), "pieces do not fit", "logs")
        made[box], filled[box] = held, True
    check(bool(filled.all()), "a piece is missing", "logs")
    return made


def examples(run: Recorded) -> dict[tuple[int, int | None], dict[str, Any]]:
    """By example (and position) the value of each column that was written last."""
    found: dict[tuple[int, int | None], dict[str, Any]] = {}
    for group in run.groups:
        rows = zip(*group.columns.values(), strict=True) if group.record[2] == 1 else ()
        for row in (dict(zip(group.columns, values, strict=True)) for values in rows):
            found.setdefault((row["example"], row.get("position")), {}).update(row)
    return found
