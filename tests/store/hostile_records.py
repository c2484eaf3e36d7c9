"""Records other than row groups that lie, under valid checksums, in the log of the small run's writer 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2

from tests.store import forge, reader

CASES: dict[str, Callable[[Path], None]] = {}
DEEP = "[" * 100_000 + "]" * 100_000


def add(name: str, *added: Any, at: int = 1) -> None:
    """Registers operations that are put before those of a frame."""

    def make(run: Path) -> None:
        forge.rewrite_log(run, lambda frames: frames[at].__setitem__(slice(0, 0), added))

    CASES[name] = make


def change(name: str, number: int, edit: Callable[[dict[int, Any]], Any]) -> None:
    """Registers an edit of the first operation of that number."""

    def make(run: Path) -> None:
        def apply(frames: list[list[Any]]) -> None:
            edit(next(record for frame in frames for found, record in frame if found == number))

        forge.rewrite_log(run, apply)

    CASES[name] = make


def put(name: str, number: int, *path: Any, value: Any) -> None:
    """Registers the replacement of one field, given by its path, of the first operation of that number."""

    def edit(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    change(name, number, edit)


def layout(name: str, **changed: Any) -> None:
    """Registers a checkpoint whose layout has another tree or other tensors; its key is right."""

    def make(run: Path) -> None:
        def apply(frames: list[list[Any]]) -> None:
            key = b""
            for frame in frames:
                for number, record in frame:
                    if number == reader.LAYOUT:
                        content = cbor2.loads(record[0])
                        content = {0: changed.get("tree", content[0]), 1: changed.get("tensors", content[1])}
                        if "wholes" in changed:
                            content[2] = changed["wholes"]
                        record[0] = changed.get("content", forge.encode(content))
                        key = reader.digest(record[0])
                    if number == reader.SAVE:
                        record[2][0][1] = key

        forge.rewrite_log(run, apply)

    CASES[name] = make


SITE, COLUMN = {0: 50, 1: "extra", 2: "f32", 3: [3]}, {0: 50, 1: "more", 2: "int", 3: 0}
add("site_dtype_unknown", [reader.SITE, SITE | {2: "f99"}])
add("site_shape_huge", [reader.SITE, SITE | {3: [2**40, 2**40]}])
add("site_shape_overflowing", [reader.SITE, SITE | {3: [2**63]}])
add("site_shape_negative", [reader.SITE, SITE | {3: [-1]}])
add("site_shape_of_many", [reader.SITE, SITE | {3: [2] * 100_000}])
add("site_name_empty", [reader.SITE, SITE | {1: ""}])
add("site_name_long", [reader.SITE, SITE | {1: "a" * 513}])
add("site_name_control", [reader.SITE, SITE | {1: "a\nb"}])
add("site_name_reserved", [reader.SITE, SITE | {1: "row"}])
add("site_id_negative", [reader.SITE, SITE | {0: -1}])
add("site_id_huge", [reader.SITE, SITE | {0: 2**64 - 1}])
add("site_of_another_dtype", [reader.SITE, {0: 0, 1: "wide", 2: "f64", 3: [3]}])
add("site_of_another_name", [reader.SITE, {0: 0, 1: "narrow", 2: "f32", 3: [3]}])
add("site_of_another_id", [reader.SITE, {0: 51, 1: "wide", 2: "f32", 3: [3]}])
add("column_type_unknown", [reader.COLUMN, COLUMN | {2: "complex"}])
add("column_table_unknown", [reader.COLUMN, COLUMN | {3: 5}])
add("column_name_reserved", [reader.COLUMN, COLUMN | {1: "row"}])
add("column_of_another_type", [reader.COLUMN, {0: 1, 1: "example", 2: "str", 3: 0}])
add("operation_unknown", [99, {}])
add("operation_unknown_and_huge", [2**64 - 1, {0: 1}])
add("operation_negative", [-1, {}])
add("operation_text", ["group", {}])
add("operation_of_three", [4, {}, {}])
add("operation_no_array", 7)
add("operation_body_array", [5, []])
add("operation_body_empty", [5, {}])
add("open_twice", [reader.OPEN, {0: "x", 1: 1, 3: 0, 4: "0" * 32}])
add("create_in_a_log", [reader.CREATE, {0: "{}"}])

put("open_pid_negative", reader.OPEN, 1, value=-1)
put("open_pid_huge", reader.OPEN, 1, value=2**64 - 1)
put("open_rank_text", reader.OPEN, 2, value="zero")
put("open_time_huge", reader.OPEN, 3, value=2**63 - 1)
put("open_time_least", reader.OPEN, 3, value=-(2**63))
put("close_time_huge", reader.CLOSE, 1, value=2**63 - 1)
put("close_error_number", reader.CLOSE, 0, value=7)

for key, name in enumerate(("steps", "times", "values")):
    put(f"metrics_{name}_longer", reader.METRICS, key, value=bytes(16))
    put(f"metrics_{name}_ragged", reader.METRICS, key, value=bytes(7))
for key, name in enumerate(("names", "sites", "sources"), start=4):
    put(f"metrics_{name}_longer", reader.METRICS, key, value=bytes(8))
    put(f"metrics_{name}_beyond_the_words", reader.METRICS, key, value=b"\x09\0\0\0")
put("metrics_name_none", reader.METRICS, 4, value=b"\xff" * 4)
put("metrics_words_numbers", reader.METRICS, 3, value=[1])
put("metrics_time_huge", reader.METRICS, 1, value=(2**63 - 1).to_bytes(8, "little"))

put("seal_path_up", reader.SEAL, 0, value="../../etc/passwd")
put("seal_length_overflowing", reader.SEAL, 1, value=2**63)
put("seal_hash_short", reader.SEAL, 2, value=b"\0")

for name, value in {"overflowing": 2**63, "greatest": 2**64 - 1, "negative": -1, "huge": 2**40}.items():
    put(f"chunk_offset_{name}", reader.CHUNKS, 1, 0, 1, value=value)
    put(f"chunk_stored_{name}", reader.CHUNKS, 1, 0, 2, value=value)
    put(f"chunk_raw_{name}", reader.CHUNKS, 1, 0, 3, value=value)
change(
    "chunk_huge_and_consistent",
    reader.CHUNKS,
    lambda record: record[1][0].update({2: 2**35, 3: 2**35, 5: bytes(1 << 20)}),
)
change("chunk_of_another_length", reader.CHUNKS, lambda record: record[1][0].update({2: 20, 3: 20}))
put("chunk_codec_unknown", reader.CHUNKS, 1, 0, 4, value=7)
put("chunk_key_short", reader.CHUNKS, 1, 0, 0, value=b"key")
put("chunk_path_up", reader.CHUNKS, 0, value="../../../../../../etc/passwd")
put("chunk_path_absolute", reader.CHUNKS, 0, value="/etc/passwd")
put("chunk_crcs_none", reader.CHUNKS, 1, 0, 5, value=b"")

put("save_step_bignum", reader.SAVE, 0, value=2**70)
put("save_layout_unknown", reader.SAVE, 2, 0, 1, value=bytes(32))
put("save_layout_short", reader.SAVE, 2, 0, 1, value=b"")
put("save_keys_ragged", reader.SAVE, 2, 0, 2, value=bytes(31))
put("save_keys_none", reader.SAVE, 2, 0, 2, value=b"")
put("save_keys_unknown", reader.SAVE, 2, 0, 2, value=bytes(32))
put("save_keys_too_many", reader.SAVE, 2, 0, 2, value=bytes(320))
put("scalars_no_json", reader.SAVE, 2, 0, 3, value="[1,")
put("scalars_too_few", reader.SAVE, 2, 0, 3, value="[]")
put("scalars_no_float", reader.SAVE, 2, 0, 3, value='[{"f":"zzz"}]')
put("scalars_no_array", reader.SAVE, 2, 0, 3, value='{"a": 1}')
put("scalars_unknown", reader.SAVE, 2, 0, 3, value='[{"x": 1}]')
put("scalars_deep", reader.SAVE, 2, 0, 3, value=DEEP)

layout("layout_no_cbor", content=b"\xff\xff")
layout("layout_deep_cbor", content=b"\x81" * 100_000 + b"\0")
layout("layout_shape_huge", tensors=[{0: "weight", 1: "f32", 2: [2**40, 2**40]}])
layout("layout_shape_negative", tensors=[{0: "weight", 1: "f32", 2: [-6]}])
layout("layout_shape_large", tensors=[{0: "weight", 1: "f32", 2: [2**33]}])
layout("layout_shape_other", tensors=[{0: "weight", 1: "f32", 2: [7]}])
layout("layout_dtype_unknown", tensors=[{0: "weight", 1: "f99", 2: [6]}])
layout("layout_dtype_other", tensors=[{0: "weight", 1: "i32", 2: [6]}])
WHOLE = {0: "weight", 1: "f32", 2: [6]}
layout("wholes_none", wholes=[])
layout("wholes_text", wholes="all")
layout("wholes_of_nothing", wholes=[{0: WHOLE, 1: []}])
layout("wholes_beyond", wholes=[{0: WHOLE, 1: [{0: 7, 1: [0]}]}])
layout("wholes_outside", wholes=[{0: WHOLE, 1: [{0: 0, 1: [1]}]}])
layout("wholes_far_outside", wholes=[{0: WHOLE, 1: [{0: 0, 1: [2**64 - 1]}]}])
layout("wholes_of_another_rank", wholes=[{0: WHOLE | {2: [2, 3]}, 1: [{0: 0, 1: [0, 0]}]}])
layout("wholes_of_another_dtype", wholes=[{0: WHOLE | {1: "i32"}, 1: [{0: 0, 1: [0]}]}])
layout("wholes_twice", wholes=[{0: WHOLE, 1: [{0: 0, 1: [0]}]}] * 2)
layout("wholes_larger", wholes=[{0: WHOLE | {2: [2**40]}, 1: [{0: 0, 1: [0]}] * 100_000}])
layout("wholes_overflowing", wholes=[{0: WHOLE | {2: [2**40, 2**40]}, 1: []}])
layout("tree_no_json", tree="{")
layout("tree_deep", tree='{"l":' * 50_000 + '{"t":0}' + "}" * 50_000)
layout("tree_deep_and_valid", tree='{"l":[' * 50_000 + '{"t":0}' + "]}" * 50_000)
layout("tree_tensor_beyond", tree='{"t":9}')
layout("tree_tensor_negative", tree='{"t":-1}')
layout("tree_tensor_text", tree='{"t":"0"}')
layout("tree_scalar_beyond", tree='{"s":9}')
layout("tree_scalar_negative", tree='{"s":-1}')
layout("tree_kind_unknown", tree='{"x":0}')
layout("tree_of_two", tree='{"t":0,"s":0}')
layout("tree_array", tree="[]")
layout("tree_key_list", tree='{"d":[[[1],{"t":0}]]}')
