"""Envelopes that lie, under valid checksums: frames of a log, commits, `run.json`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2

from tests.store import forge
from tests.store.small import SEALED_LOG

CASES: dict[str, Callable[[Path], None]] = {}
DEEP = 100_000


def head(major: int, length: int) -> bytes:
    """The head of a CBOR item that states a length of 64 bits."""
    return bytes([major << 5 | 27]) + struct.pack(">Q", length)


BODIES = {
    "not_cbor": b"\xff\xff\xff",
    "empty": b"",
    "a_number": b"\x07",
    "a_map": b"\xa0",
    "deep_arrays": b"\x81" * DEEP + b"\0",
    "deep_arrays_in_a_record": b"\x81\x82\x05\xa1\x00" + b"\x81" * DEEP + b"\0",
    "deep_maps": b"\xa1\0" * DEEP + b"\0",
    "deep_tags": b"\xc6" * DEEP + b"\0",
    "deep_in_an_unknown_key": b"\x81\x82\x05\xa1\x18\x63" + b"\x81" * DEEP + b"\0",
    "deep_and_endless": b"\x9f" * DEEP,
    "array_of_2_to_60": head(4, 2**60),
    "map_of_2_to_60": head(5, 2**60),
    "bytes_of_2_to_60": head(2, 2**60),
    "text_of_2_to_63": head(3, 2**63),
    "array_of_2_to_64": head(4, 2**64 - 1),
    "groups_of_2_to_60": b"\x81\x82\x05\xa1\x07" + head(4, 2**60),
    "shape_of_2_to_60": b"\x81\x82\x03\xa1\x03" + head(4, 2**60),
    "indefinite": b"\x9f\x82\x63\x61\xff",
    "text_not_utf8": b"\x81\x82\x02\xa2\x00\x62\xff\xfe\x01\x00",
    "key_twice": b"\x81\x82\x02\xa2\x01\x00\x01\x01",
    "bytes_behind": b"\x80\x00\x00",
    "many_empty_arrays": b"\x9a\x00\x0f\x42\x40" + b"\x80" * 1_000_000,
    "reserved_simple_values": b"\x81\xf8\x10",
}


def frame_case(name: str, body: bytes, **changed: Any) -> None:
    """Registers a body that takes the place of the second frame of the log."""

    def make(run: Path) -> None:
        frames = forge.split((run / SEALED_LOG).read_bytes())
        lying = forge.frame(body, 1, changed.pop("before", frames[0][-32:]), **changed)
        rest, before = b"", lying[-32:]
        for sequence, one in enumerate(frames[2:], start=2):
            rest += forge.frame(one[56:-32], sequence, before)
            before = rest[-32:]
        (run / SEALED_LOG).write_bytes(frames[0] + lying + rest)

    CASES[f"frame_{name}"] = make


def commit_case(name: str, body: bytes) -> None:
    """Registers a body that takes the place of the newest commit's."""

    def make(run: Path) -> None:
        forge.commit_path(run, 2).write_bytes(forge.commit(body))

    CASES[f"commit_{name}"] = make


def commit_field(name: str, key: int, value: Any, number: int = 2) -> None:
    """Registers the replacement of one field of a commit."""

    def make(run: Path) -> None:
        path = forge.commit_path(run, number)
        body = cbor2.loads(path.read_bytes()[12:-32])
        body[key] = value
        path.write_bytes(forge.commit(forge.encode(dict(sorted(body.items())))))

    CASES[f"commit_{name}"] = make


def run_case(name: str, **changed: Any) -> None:
    """Registers the replacement of members of `run.json`, there and in its copy."""
    CASES[f"run_{name}"] = lambda run: forge.rewrite_run(run, **changed)


for name, body in BODIES.items():
    frame_case(name, body)
    commit_case(name, body)
frame_case("length_of_4_gib", b"\x80", length=2**32 - 1)
frame_case("length_of_17_mib", b"\x80", length=17 << 20)
frame_case("length_of_nothing", b"\x80", length=0)
frame_case("generation_other", b"\x80", generation=7)
frame_case("behind_another", b"\x80", before=bytes(32))

commit_field("number_other", 0, 7)
commit_field("number_greatest", 0, 2**64 - 1)
commit_field("number_negative", 0, -1)
commit_field("parent_itself", 1, {0: 2, 1: bytes(32)})
commit_field("parent_later", 1, {0: 2**64 - 1, 1: bytes(32)})
commit_field("parent_of_another_hash", 1, {0: 1, 1: bytes(32)})
commit_field("parent_short", 1, {0: 1, 1: b""})
commit_field("parent_none", 1, None)
commit_field("parent_of_the_first", 1, {0: 0, 1: bytes(32)}, number=0)
commit_field("skipped_many", 2, list(range(100_000)))
commit_field("skipped_greatest", 2, [2**64 - 1])
commit_field("writer_greatest", 3, 2**64 - 1)
commit_field("time_huge", 4, 2**63 - 1)
commit_field("operation_unknown", 6, [[99, {}]])
commit_field("site_conflicting", 6, [[3, {0: 0, 1: "wide", 2: "f64", 3: [3]}]])
commit_field("site_of_another_id", 6, [[3, {0: 60, 1: "wide", 2: "f32", 3: [3]}]])
commit_field("column_renamed", 6, [[4, {0: 5, 1: "sample", 2: "int", 3: 1}], [4, {0: 6, 1: "label", 2: "str", 3: 1}]])
commit_field("group_in_a_commit", 6, [[5, {}]])
commit_field("no_create", 6, [], number=0)


def commit_long(run: Path) -> None:
    """A commit that states 4 GiB."""
    path = forge.commit_path(run, 2)
    body = path.read_bytes()[12:-32]
    path.write_bytes(forge.sealed(b"LAMCOMM1" + struct.pack("<I", 2**32 - 1) + body))


CASES["commit_length_of_4_gib"] = commit_long
run_case("config_deep", config=b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}")
run_case("config_unclosed", config=b"[" * DEEP)
run_case("config_array", config=[1])
run_case("config_number_long", config=b'{"a":' + b"9" * 10_000 + b"}")
run_case("config_not_utf8", config=b'{"a":"\xff\xfe"}')
run_case("version_text", version="1")
run_case("version_real", version=1.5)
run_case("version_negative", version=-1)
run_case("needs_text", needs="all")
run_case("needs_deep", needs=b"[" * DEEP + b"]" * DEEP)
run_case("id_short", id="abc")
run_case("id_number", id=7)
run_case("created_text", created="today")
run_case("created_greatest", created=2**63 - 1)
run_case("created_least", created=-(2**63))
run_case("created_bignum", created=2**70)
run_case("format_other", format="parquet")
