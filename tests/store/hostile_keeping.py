"""What keeping writes, lying under valid checksums: commits that hide, replace and remove; coded rows; fences; sources.

Each case changes the small run. What such a commit may do by right, such as hiding all rows, is no case.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2

from tests.store import forge, reader
from tests.store.hostile_groups import block
from tests.store.small import OPEN_LOG, PACK, SEALED, SEALED_LOG

CASES: dict[str, Callable[[Path], None]] = {}

DROPPED, CONDEMN, DISCARD = 16, 14, 17
HUGE = 1 << 40
DEEP = 100_000
OUTSIDE = ["../outside", "/etc/passwd", "run.json", "commits", SEALED_LOG, "segments/../run.json", "", "chunks/../../x"]
"""No collection may remove these."""


def add_commit(name: str, *operations: list[Any], needs: list[str] | None = None) -> None:
    """Registers a further commit."""

    def make(run: Path) -> None:
        before = forge.commit_path(run, 2).read_bytes()
        body = cbor2.loads(before[12:-32])
        body |= {0: 3, 1: {0: 2, 1: before[-32:]}, 2: [], 6: list(operations)}
        body |= {} if needs is None else {5: needs}
        forge.commit_path(run, 3).write_bytes(forge.commit(forge.encode(body)))

    CASES[f"commit_{name}"] = make


def groups_of(run: Path, log: str = SEALED_LOG) -> list[dict[int, Any]]:
    frames = [forge.operations(one) for one in forge.split((run / log).read_bytes())]
    return [record for frame in frames for number, record in frame if number == reader.GROUP]


def replace(name: str, change: Callable[[Path, dict[int, Any]], Any]) -> None:
    """Registers a commit that replaces the group of step 0 by itself, changed."""

    def make(run: Path) -> None:
        group = groups_of(run)[0]
        record = {0: 0, 1: [{0: SEALED, 1: struct.pack("<I", group[1])}], 2: [group]}
        change(run, record)
        add_commit("", [reader.REPLACE, record])
        CASES.pop("commit_")(run)

    CASES[f"replace_{name}"] = make


def put(name: str, *path: Any, value: Any) -> None:
    """Registers such a commit with one field replaced, given by its path."""

    def change(run: Path, record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    replace(name, change)


ENDS = [{0: 0, 1: 2**63}, {0: 1, 1: 2**63}]
for name, step in {"least": -(2**63), "greatest": 2**63 - 1, "bignum": 2**70, "text": "0"}.items():
    add_commit(f"rewind_step_{name}", [reader.REWIND, {0: step, 1: [{0: 9, 1: 5}]}])
add_commit("rewind_positions_negative", [reader.REWIND, {0: 9, 1: [{0: -1, 1: -1}]}])
add_commit("rewind_positions_greatest", [reader.REWIND, {0: 9, 1: [{0: 2**32 - 1, 1: 2**64 - 1}]}])
add_commit("rewind_positions_many", [reader.REWIND, {0: 9, 1: ENDS * DEEP}])
add_commit("delete_site_unknown", [reader.DELETE, {0: [999], 1: [], 2: [], 3: ENDS}])
add_commit("delete_of_nothing", [reader.DELETE, {0: [], 1: [{0: 5, 1: -5}], 2: [], 3: ENDS}])
add_commit("delete_spans_many", [reader.DELETE, {0: [], 1: [{0: n, 1: n} for n in range(9, DEEP)], 2: [], 3: ENDS}])
add_commit("delete_spans_of_everything", [reader.DELETE, {0: [9], 1: [], 2: [{0: -(2**63), 1: 2**63 - 1}], 3: ENDS}])
add_commit("delete_body_empty", [reader.DELETE, {}])
ALL_STEPS = [{0: -(2**63), 1: 2**63 - 1}]
add_commit("discard_of_nothing", [DISCARD, {0: [], 1: [], 2: []}])
add_commit("discard_of_what_is_not_there", [DISCARD, {0: ["../model", "", "x" * 1_000_000], 1: ALL_STEPS, 2: ENDS}])
add_commit("discard_parts_many", [DISCARD, {0: [f"part {n}" for n in range(DEEP)], 1: ALL_STEPS, 2: ENDS}])
add_commit("discard_steps_many", [DISCARD, {0: ["model"], 1: [{0: n, 1: n} for n in range(9, DEEP)], 2: ENDS}])
add_commit("discard_steps_backwards", [DISCARD, {0: ["model"], 1: [{0: 9, 1: -9}], 2: ENDS}])
add_commit("discard_many", *[[DISCARD, {0: ["other"], 1: ALL_STEPS, 2: ENDS}]] * 10_000)
add_commit("discard_positions_many", [DISCARD, {0: ["other"], 1: ALL_STEPS, 2: ENDS * DEEP}])
add_commit("discard_positions_greatest", [DISCARD, {0: ["model"], 1: ALL_STEPS, 2: [{0: 2**32 - 1, 1: 2**64 - 1}]}])
add_commit("discard_positions_negative", [DISCARD, {0: ["model"], 1: ALL_STEPS, 2: [{0: -1, 1: -1}]}])
add_commit("discard_writer_huge", [DISCARD, {0: ["model"], 1: ALL_STEPS, 2: [{0: 2**32, 1: 1}]}])
add_commit("discard_step_bignum", [DISCARD, {0: ["model"], 1: [{0: 0, 1: 2**70}], 2: ENDS}])
add_commit("discard_no_texts", [DISCARD, {0: [b"model"], 1: ALL_STEPS, 2: ENDS}])
add_commit("discard_body_empty", [DISCARD, {}])
add_commit("discard_of_everything", [DISCARD, {0: ["model"], 1: ALL_STEPS, 2: ENDS}], needs=["discard"])
for kind, number in {"condemn": CONDEMN, "drop": reader.DROP}.items():
    add_commit(f"{kind}_of_what_is_outside", [number, {0: OUTSIDE}])
    add_commit(f"{kind}_of_many", [number, {0: [f"segments/{n:06}-000000.safetensors" for n in range(9, DEEP)]}])
    add_commit(f"{kind}_of_what_counts", [number, {0: [SEALED, PACK]}])
    add_commit(f"{kind}_no_texts", [number, {0: [1, b"x"]}])
    add_commit(f"{kind}_long_name", [number, {0: ["a" * 1_000_000]}])

replace("by_nothing", lambda run, record: record.update({2: []}))
replace("by_itself", lambda run, record: None)
replace("by_itself_twice", lambda run, record: record[2].append(record[2][0]))
replace("of_nothing", lambda run, record: record.update({1: []}))
put("writer_other", 0, value=1)
put("writer_greatest", 0, value=2**32 - 1)
put("writer_negative", 0, value=-1)
put("old_path_up", 1, 0, 0, value="../../etc/passwd")
put("old_numbers_ragged", 1, 0, 1, value=b"\0\0\0")
put("old_numbers_many", 1, 0, 1, value=bytes(4_000_000))
put("new_path_up", 2, 0, 0, value="../../../../../../etc/passwd")
put("new_of_another_writer", 2, 0, 5, value=1 << 40)
put("new_offset_greatest", 2, 0, 3, value=2**64 - 4096)
put("new_names_missing", 2, 0, 10, value=3)
put("new_commit_greatest", 3, value=2**64 - 1)


def coded(name: str, change: Callable[[Path, dict[int, Any], dict[int, Any]], Any]) -> None:
    """Registers a change of the group of step 0 by which its site `loss` (four f64) is coded, or says so."""

    def make(run: Path) -> None:
        def apply(frames: list[list[Any]]) -> None:
            group = next(record for number, record in frames[1] if number == reader.GROUP)
            change(run, group, block(group, 0, 1))

        forge.rewrite_log(run, apply)

    CASES[f"coded_{name}"] = make


def pieces(*lengths: int) -> bytes:
    return struct.pack(f"<{len(lengths)}I", *lengths)


coded("ragged", lambda run, group, part: part.update({6: b"\0\0\0"}))
coded("no_pieces", lambda run, group, part: part.update({6: b""}))
coded("too_long", lambda run, group, part: part.update({6: pieces(2**32 - 1)}))
coded("empty", lambda run, group, part: part.update({6: pieces(0)}))
coded("not_at_all", lambda run, group, part: part.update({6: pieces(32)}))
coded("with_lies_in_its_table", lambda run, group, part: _planes(run, part, pieces(*[2**31 - 1] * 8)))
coded("with_marked_lies_in_its_table", lambda run, group, part: _planes(run, part, pieces(*[2**32 - 1] * 8)))
coded("with_nothing_in_its_table", lambda run, group, part: _planes(run, part, bytes(32) + bytes(8)))


def _planes(run: Path, part: dict[int, Any], data: bytes) -> None:
    """Puts a coded piece into the place of the site's rows."""
    data = data.ljust(40, b"\xff")
    path = run / SEALED
    whole = bytearray(path.read_bytes())
    whole[part[2] : part[2] + len(data)] = data
    path.write_bytes(whole)
    part[3], part[4], part[6] = len(data), forge.crcs(data), pieces(len(data))


def _short(run: Path, group: dict[int, Any], part: dict[int, Any]) -> None:
    """2^20 rows in pieces that are as short as they can be: 8 MiB in 3 KiB."""
    group[6], group[7], group[8], group[9] = 1 << 20, [part], [{0: 0, 1: 0}], []
    count = 8 * (1 << 20) // (1 << 17)
    part[6], part[4], part[3] = pieces(*[39] * count), bytes(4 * count), 39 * count
    group[4] = -(-(part[2] + part[3] - group[3]) // 4096) * 4096


coded("in_impossibly_short_pieces", _short)


def sparse(name: str, file: Callable[[Path], Path]) -> None:
    """Registers a file with a hole of a TiB behind its bytes."""
    CASES[f"sparse_{name}"] = lambda run: os.truncate(file(run), HUGE)


sparse("run_json", lambda run: run / "run.json")
sparse("commit", lambda run: forge.commit_path(run, 1))
sparse("head", lambda run: forge.commit_path(run, 2))
sparse("log", lambda run: run / SEALED_LOG)
sparse("open_log", lambda run: run / OPEN_LOG)
sparse("segment", lambda run: run / SEALED)
sparse("pack", lambda run: run / PACK)


def seal_far(run: Path) -> None:
    """A sealed segment whose only group lies behind a TiB of header."""

    def apply(frames: list[list[Any]]) -> None:
        group = next(record for number, record in frames[1] if number == reader.GROUP)
        group[3] += HUGE
        for part in group[7]:
            part[2] += HUGE
        frames[2] = [pair for pair in frames[2] if pair[0] != reader.GROUP]
        for number, record in (pair for frame in frames for pair in frame):
            if number == reader.SEAL:
                record[1], record[2] = group[3] + group[4], reader.digest(b"")

    forge.rewrite_log(run, apply)
    path = run / SEALED
    data = path.read_bytes()[1 << 20 : (1 << 20) + 4096]
    with path.open("r+b") as file:
        file.seek(HUGE + (1 << 20))
        file.write(data)
        file.truncate(HUGE + (1 << 20) + groups_of(run)[0][4])


CASES["seal_far"] = seal_far


def fence(name: str, data: bytes) -> None:
    """Registers a fence of writer 0 that says where its log ends."""

    def make(run: Path) -> None:
        (run / "fences").mkdir()
        (run / "fences/000000").touch()
        (run / "fences/000000.end").write_bytes(data)

    CASES[f"fence_{name}"] = make


def sealed_end(length: int) -> bytes:
    return forge.sealed(length.to_bytes(8, "little"))


fence("greatest", sealed_end(2**64 - 1))
fence("in_a_frame", sealed_end(100))
fence("short", b"\0\0")
fence("empty", b"")
fence("long", sealed_end(0) * 100_000)
CASES["fence_sparse"] = lambda run: (CASES["fence_empty"](run), os.truncate(run / "fences/000000.end", HUGE))[0]
CASES["fence_without_a_log"] = lambda run: ((run / "fences").mkdir(), (run / "fences/000777").touch())[0]

add_commit("dropped_in_a_commit", [DROPPED, {0: 2**64 - 1, 1: [{0: 99, 1: 2**64 - 1}]}])


def in_log(name: str, *added: Any) -> None:
    """Registers operations that are put into the log."""
    CASES[name] = lambda run: forge.rewrite_log(run, lambda frames: frames[1].__setitem__(slice(0, 0), added))


in_log("dropped_greatest", [DROPPED, {0: 2**64 - 1, 1: [{0: 0, 1: 2**64 - 1}]}])
in_log("dropped_greatest_twice", *[[DROPPED, {0: 2**64 - 1, 1: [{0: 0, 1: 2**64 - 1}]}]] * 2)
in_log("dropped_of_many", [DROPPED, {0: 1, 1: [{0: n, 1: 1} for n in range(DEEP)]}])
in_log("replace_in_a_log", [reader.REPLACE, {0: 0, 1: [{0: SEALED, 1: bytes(8)}], 2: [], 3: 2**64 - 1}])
in_log("drop_in_a_log", [reader.DROP, {0: [SEALED, PACK]}])
in_log("discard_in_a_log", [DISCARD, {0: ["model"], 1: ALL_STEPS, 2: ENDS}])
in_log("rewind_in_a_log", [reader.REWIND, {0: 0, 1: ENDS}])


def heads_of_frames(run: Path) -> None:
    """A log of nothing but beginnings of frames of a MiB: each asks for a checksum over what follows."""
    head = b"LAMFRAM1" + struct.pack("<IIQ", 1 << 20, 0, 1 << 40)
    with (run / SEALED_LOG).open("ab") as file:
        file.write(head * ((4 << 20) // len(head)))


CASES["heads_of_frames"] = heads_of_frames


def many_saves(run: Path) -> None:
    """Ten thousand saves that share a layout of ten thousand empty tensors."""

    def apply(frames: list[list[Any]]) -> None:
        content = forge.encode({0: '{"l":[]}', 1: [{0: "w", 1: "f32", 2: [0]}] * 10_000})
        part = {0: "model", 1: reader.digest(content), 2: b"", 3: "[]"}
        saves = [[reader.SAVE, {0: 5, 1: n, 2: [part]}] for n in range(10_000)]
        frames.insert(2, [[reader.LAYOUT, {0: content}], *saves])

    forge.rewrite_log(run, apply)


CASES["many_saves"] = many_saves


def many_examples(run: Path) -> None:
    """A thousand groups of a million examples each, all of them alike and none of them on disk."""

    def apply(frames: list[list[Any]]) -> None:
        of_examples = next(
            record for frame in frames for number, record in frame if number == reader.COLUMN and record[3]
        )
        group = {0: SEALED, 1: 7, 2: 1, 3: 1 << 20, 4: 0, 5: 1 << 21, 6: 1 << 20, 7: [], 9: []}
        group[8] = [{0: of_examples[0], 1: 7}]
        frames.insert(-1, [[reader.GROUP, group]] * 1000)

    forge.rewrite_log(run, apply)


CASES["many_examples"] = many_examples


def sources(name: str, value: bytes) -> None:
    """Registers a description that says from what the run was merged."""
    CASES[f"sources_{name}"] = lambda run: forge.rewrite_run(run, sources=value)


GOOD = b'{"id": "' + b"a" * 32 + b'", "name": "run", "created": 5, "shift": 1, "config": {}}'
sources("deep", b"[" * DEEP + b"]" * DEEP)
sources("number", b"7")
sources("of_nothing", b"[{}]")
sources("shift_negative", b"[" + GOOD.replace(b"1", b"-1") + b"]")
sources("shift_greatest", b"[" + GOOD.replace(b"1", b"18446744073709551615") + b"]")
sources("shift_far", b"[" + GOOD.replace(b"1", b"4294967295") + b"]")
sources("config_deep", b"[" + GOOD.replace(b"{}", b'{"a":' * DEEP + b"1" + b"}" * DEEP) + b"]")
sources("id_short", b"[" + GOOD.replace(b"a" * 32, b"a") + b"]")
sources("many", b"[" + b",".join([GOOD] * 2_000) + b"]")
