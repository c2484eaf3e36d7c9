"""Reading what Triton makes of a kernel first: whether addresses are counted in 64 bits."""

from __future__ import annotations

import re
from typing import NamedTuple

# Their sizes are numbers of programs and of layers, whatever the rows.
SMALL = {"by_leaf", "pairs", "triples", "cells", "room", "kept"}

# What a number may be is known only when the kernel runs.
_UNKNOWN = ("tt.load", "tt.get_program_id", "tt.reduce", "scf.for", "scf.if", "scf.while")
_FIXED = ("arith.constant", "tt.make_range")


class _Made(NamedTuple):
    """How a value is made: by which operation, of which others, and its type."""

    operation: str
    operands: list[str]
    kind: str


def products_in_32_bits(ttir: str) -> list[str]:
    """Return the lines that multiply two numbers, neither known before the kernel runs, in 32 bits for an address.

    Rows are counted in 32 bits, and so are tiles of a known size: it is a row times a stride that overflows.
    """
    made, names = _values(ttir), _arguments(ttir)
    unknown: dict[str, bool] = {}
    found = {}
    for pointer, offset in re.findall(r"tt\.addptr (%[\w#]+), (%[\w#]+) :", ttir):
        if names.get(_origin(pointer, made)) in SMALL:
            continue
        todo, seen = [offset], set[str]()
        while todo:
            value = todo.pop()
            # What is chosen between are numbers of tiles: shares of the rows, no larger than these.
            if value in seen or value not in made or made[value].operation in (*_UNKNOWN, "arith.select"):
                continue
            seen.add(value)
            operation, operands, kind = made[value]
            if operation == "arith.muli" and "i32" in kind and all(_is_unknown(o, made, unknown) for o in operands):
                found[value] = f"{value} = {' * '.join(operands)} : {kind}"
            todo += operands
    return list(found.values())


def _values(ttir: str) -> dict[str, _Made]:
    lines = re.findall(r"^\s*(%\w+)(?::\d+)? = \"?([\w.]+)\"?(.*?)(?: loc\(.*)?$", ttir, re.MULTILINE)
    return {
        name: _Made(operation, re.findall(r"%\w+(?:#\d+)?", rest), rest.rpartition(":")[2].strip())
        for name, operation, rest in lines
    }


def _arguments(ttir: str) -> dict[str, str]:
    (head,) = re.findall(r"tt\.func public @\w+\((.*?)\) attributes", ttir, re.DOTALL)
    return dict(re.findall(r"(%\w+): [^%]*?loc\(\"(\w+)\"", head))


def _origin(pointer: str, made: dict[str, _Made]) -> str:
    """Return the argument of the kernel that an address belongs to, or where the trace ends."""
    while pointer in made and made[pointer].operation in ("tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims"):
        pointer = made[pointer].operands[0]
    return pointer


def _is_unknown(value: str, made: dict[str, _Made], known: dict[str, bool]) -> bool:
    if value not in known:
        operation, operands, _ = made.get(value, _Made("argument", [], ""))
        known[value] = operation not in _FIXED and (
            operation == "argument" or operation in _UNKNOWN or any(_is_unknown(o, made, known) for o in operands)
        )
    return known[value]
