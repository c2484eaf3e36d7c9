"""The few items of CBOR that Lamina's records are made of, as `docs/format.md` has them."""

from __future__ import annotations

import struct
from typing import Any

_DEEPEST = 16


def decode(data: bytes) -> Any:
    """The value that the bytes begin with.

    Raises:
        ValueError: They are cut short, nested too deep, or hold an item that records do not have.
    """
    value, _ = _item(memoryview(data), 0, _DEEPEST)
    return value


def _item(data: memoryview, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data) or not depth:
        raise ValueError("the record is cut short" if depth else "the record is nested too deep")
    major, low = data[at] >> 5, data[at] & 31
    if major == 7:
        return _simple(data, at, low)
    number, at = _number(data, at + 1, low)
    match major:
        case 0:
            return number, at
        case 1:
            return -1 - number, at
        case 2 | 3:
            if number > len(data) - at:
                raise ValueError("the record is cut short")
            piece = bytes(data[at : at + number])
            return piece if major == 2 else piece.decode(), at + number
        case 4:
            items = []
            for _ in range(number):
                item, at = _item(data, at, depth - 1)
                items.append(item)
            return items, at
        case 5:
            pairs = {}
            for _ in range(number):
                key, at = _item(data, at, depth - 1)
                if not isinstance(key, int | str):
                    raise ValueError("a key of the record is no number")
                pairs[key], at = _item(data, at, depth - 1)
            return pairs, at
    raise ValueError(f"the record has an item of the major type {major}")


def _number(data: memoryview, at: int, low: int) -> tuple[int, int]:
    if low < 24:
        return low, at
    if low > 27 or len(data) - at < (size := 1 << (low - 24)):
        raise ValueError("the record has a length that it cannot have")
    return int.from_bytes(data[at : at + size], "big"), at + size


def _simple(data: memoryview, at: int, low: int) -> tuple[Any, int]:
    if low == 27 and len(data) - at >= 9:
        return struct.unpack(">d", data[at + 1 : at + 9])[0], at + 9
    if low in (20, 21, 22):
        return {20: False, 21: True, 22: None}[low], at + 1
    raise ValueError(f"the record has the simple item {low}")
