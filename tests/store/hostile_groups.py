"""Row groups that lie, under valid checksums. Each case changes the group of step 0 of the small run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.store import forge, reader
from tests.store.small import OPEN, SEALED

CASES: dict[str, Callable[[Path], None]] = {}

Group = dict[int, Any]


def case(change: Callable[[Path, Group], None]) -> None:
    """Registers a change of the group under the function's name."""

    def make(run: Path) -> None:
        def apply(frames: list[list[Any]]) -> None:
            change(run, next(record for number, record in frames[1] if number == reader.GROUP))

        forge.rewrite_log(run, apply)

    CASES[change.__name__.removesuffix("_")] = make


def put(name: str, key: int, value: Any) -> None:
    """Registers the replacement of one field of the group."""

    def change(run: Path, group: Group) -> None:
        group[key] = value

    change.__name__ = name
    case(change)


def block(group: Group, role: int, number: int) -> Group:
    return next(part for part in group[7] if part[0] == role and part[1] == number)


def put_block(name: str, key: int, value: Any) -> None:
    """Registers the replacement of one field of the block of the site `loss`."""

    def change(run: Path, group: Group) -> None:
        block(group, 0, 1)[key] = value

    change.__name__ = name
    case(change)


def overwrite(run: Path, part: Group, data: bytes) -> None:
    """Replaces the bytes of a block, with their checksums."""
    path = run / SEALED
    whole = bytearray(path.read_bytes())
    whole[part[2] : part[2] + len(data)] = data
    path.write_bytes(whole)
    part[3], part[4] = len(data), forge.crcs(data)


for name, value in {"overflowing": 2**63, "greatest": 2**64 - 1, "negative": -1, "text": "4", "null": None}.items():
    put(f"length_{name}", 4, value)
    put(f"offset_{name}", 3, value)
    put(f"rows_{name}", 6, value)
    put(f"first_{name}", 5, value)
    put_block(f"block_offset_{name}", 2, value)
    put_block(f"block_length_{name}", 3, value)
put("rows_huge", 6, 2**40)
put("rows_none", 6, 0)
put("rows_more", 6, 5)
put("rows_bignum", 6, 2**70)
put("rows_real", 6, 4.0)
put("first_at_the_end", 5, 2**63 - 2)
put("first_of_another_writer", 5, 1 << 40)
put("table_unknown", 2, 7)
put("table_examples", 2, 1)
put("path_up", 0, "../../../../../../../../etc/passwd")
put("path_up_inside", 0, "segments/../../run/run.json")
put("path_absolute", 0, "/etc/passwd")
put("path_empty", 0, "")
put("path_folder", 0, "segments")
put("path_nul", 0, SEALED + "\0")
put("path_of_no_segment", 0, "run.json")
put("path_long", 0, "segments/" + "a" * 5000)
put("path_bytes", 0, SEALED.encode())
put("blocks_none", 7, [])
put("blocks_text", 7, "blocks")
put("constants_nested", 8, [{0: 0, 1: [[1]]}])
put("constants_text_for_int", 8, [{0: 0, 1: "zero"}])
put("constants_unknown_column", 8, [{0: 999, 1: 0}])
put("constants_bignum", 8, [{0: 0, 1: 2**64 - 1}])
put("constants_twice", 8, [{0: 0, 1: 0}, {0: 0, 1: 1}])
put("constants_and_block", 8, [{0: 0, 1: 0}, {0: 1, 1: 7}])
put("zones_of_another_type", 9, [{0: 1, 1: "a", 2: [1], 3: 0, 4: 0}])
put("zones_unknown_column", 9, [{0: 999, 1: 0, 2: 1, 3: 0, 4: 0}])
put("zones_negative", 9, [{0: 1, 1: 0, 2: 1, 3: -1, 4: -(2**63)}])
put_block("block_offset_beyond", 2, 2**40)
put_block("block_length_huge", 3, 2**40)
put_block("block_length_short", 3, 8)
put_block("block_non_finite_greatest", 5, 2**64 - 1)
put_block("block_non_finite_more_than_there_are", 5, 5)
put_block("block_crcs_none", 4, b"")
put_block("block_crcs_ragged", 4, b"\0\0\0")
put_block("block_crcs_long", 4, b"\0" * (1 << 20))
put_block("block_role_unknown", 0, 9)
put_block("block_site_unknown", 1, 999)
put_block("block_role_of_text", 0, 4)


@case
def key_missing(run: Path, group: Group) -> None:
    del group[6]


@case
def block_huge_and_consistent(run: Path, group: Group) -> None:
    """32 GiB of one site: nothing is wrong with it but that the file has one MiB."""
    part = block(group, 0, 1)
    group[4], group[6], group[7], group[8] = 1 << 35, 1 << 32, [part], [{0: 0, 1: 0}]
    part[3], part[4] = 1 << 35, b"\0" * (1 << 20)


@case
def blocks_twice(run: Path, group: Group) -> None:
    group[7].append(dict(block(group, 0, 1)))


@case
def blocks_overlapping(run: Path, group: Group) -> None:
    one, other = block(group, 0, 1), block(group, 1, 1)
    one[2], one[4] = other[2], other[4]


@case
def block_misaligned(run: Path, group: Group) -> None:
    part = block(group, 0, 1)
    part[2] += 1
    part[4] = forge.crcs((run / SEALED).read_bytes()[part[2] : part[2] + part[3]])


@case
def block_of_another_writers_file(run: Path, group: Group) -> None:
    group[0] = OPEN


@case
def booleans_of_seven(run: Path, group: Group) -> None:
    overwrite(run, block(group, 1, 4), b"\7\1\xff\0")


@case
def validity_of_seven(run: Path, group: Group) -> None:
    overwrite(run, block(group, 2, 3), b"\7\0\xff\1")


def texts(name: str, *offsets: int, data: bytes = b"a\xc3\xbclonger") -> None:
    """Registers a change of the offsets and the bytes of the column `label`."""

    def change(run: Path, group: Group) -> None:
        values = b"".join(offset.to_bytes(4, "little") for offset in offsets)
        overwrite(run, block(group, 3, 2), values)
        overwrite(run, block(group, 4, 2), data)

    change.__name__ = name
    case(change)


texts("texts_descending", 0, 3, 1, 3, 9)
texts("texts_beyond", 0, 1, 1, 3, 99)
texts("texts_far_beyond", 0, 1, 1, 2**31, 2**32 - 1)
texts("texts_from_the_middle", 5, 5, 5, 5, 9)
texts("texts_too_few", 0, 1, 1, 3)
texts("texts_left_over", 0, 1, 1, 1, 1)
texts("texts_not_utf8", 0, 1, 1, 3, 9, data=b"a\xff\xfelonger")
texts("texts_split_a_character", 0, 2, 2, 3, 9)


@case
def texts_without_bytes(run: Path, group: Group) -> None:
    group[7] = [part for part in group[7] if part[0] != 4]


@case
def texts_without_offsets(run: Path, group: Group) -> None:
    group[7] = [part for part in group[7] if part[0] != 3]


@case
def validity_without_values(run: Path, group: Group) -> None:
    group[7] = [part for part in group[7] if not (part[0] == 1 and part[1] == 3)]
