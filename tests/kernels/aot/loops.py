"""The loops of machine code, from its jumps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import permutations
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: Its name.
        labels: The labels that stand in front of it.
        jumps: The labels that it may jump to.
        ends: Whether the next instruction never follows it.
    """

    name: str
    labels: tuple[str, ...]
    jumps: tuple[str, ...]
    ends: bool


class Nest(NamedTuple):
    """A loop as the source has it.

    Attributes:
        turns: How often it turns, whenever it is come to.
        inside: The loops in it, in the order of the source.
    """

    turns: float
    inside: tuple[Nest, ...] = ()


WAITS = 8
"""Instructions of the longest loop that only waits: no source has it."""


def executed(found: Collection[frozenset[int]], loop: frozenset[int], nest: Nest) -> float | None:
    """Return how many instructions run in a loop, whenever it is come to.

    Loops that lie elsewhere in the code than in the source are told apart by what is inside them.

    Args:
        found: All loops of the code.
        loop: One of them.
        nest: What it is in the source.

    Returns:
        The number; None where the compiler left another nest, as it unrolled a loop or made two of one.
    """
    within = [other for other in found if other < loop and len(other) > WAITS]
    inside = sorted((other for other in within if not any(other < more for more in within)), key=min)
    if len(inside) != len(nest.inside):
        return None
    own = len(loop) - sum(map(len, inside))
    for order in permutations(inside):
        parts = [executed(found, other, part) for other, part in zip(order, nest.inside, strict=True)]
        counted = [part for part in parts if part is not None]
        if len(counted) == len(parts):
            return nest.turns * (own + sum(counted))
    return None


def loops(code: Sequence[Instruction]) -> list[frozenset[int]]:
    """Return the natural loops, each as the places of its instructions.

    A jump back to an instruction that every path to the jump goes through closes a loop; the loop is whatever
    reaches the jump without going through that instruction again. (Compilers put code that seldom runs behind the
    end: the lines between a label and a jump back to it are not the loop.)
    """
    starts = _blocks(code)
    ends = [*starts[1:], len(code)]
    place_of = {label: block for block, start in enumerate(starts) for label in code[start].labels}
    next_of: list[list[int]] = []
    for block, end in enumerate(ends):
        last = code[end - 1]
        targets = [place_of[label] for label in last.jumps if label in place_of]
        next_of.append(targets + ([block + 1] if not last.ends and end < len(code) else []))
    before: list[list[int]] = [[] for _ in starts]
    for block, targets in enumerate(next_of):
        for target in targets:
            before[target].append(block)

    dominators = _dominators(next_of, before)
    bodies: dict[int, set[int]] = {}
    for block, targets in enumerate(next_of):
        for header in targets:
            if dominators[block] >> header & 1:
                bodies.setdefault(header, {header}).update(_reaching(block, header, before))
    return [frozenset(place for b in body for place in range(starts[b], ends[b])) for body in bodies.values()]


def _blocks(code: Sequence[Instruction]) -> list[int]:
    """Return where straight stretches of code start."""
    leaders = {0} | {place for place, instruction in enumerate(code) if instruction.labels}
    leaders |= {place + 1 for place, instruction in enumerate(code) if instruction.jumps or instruction.ends}
    return sorted(leaders - {len(code)})


def _dominators(next_of: list[list[int]], before: list[list[int]]) -> list[int]:
    """Return for each block the set, as bits, of the blocks that every path to it goes through; 0 if there is none."""
    order, seen, waiting = [], {0}, [0]
    while waiting:
        block = waiting.pop()
        order.append(block)
        fresh = [target for target in next_of[block] if target not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    everything = (1 << len(next_of)) - 1
    found = [everything if block in seen else 0 for block in range(len(next_of))]
    found[0] = 1
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            common = everything
            for other in before[block]:
                if other in seen:
                    common &= found[other]
            common |= 1 << block
            changed = changed or common != found[block]
            found[block] = common
    return found


def _reaching(block: int, header: int, before: list[list[int]]) -> set[int]:
    """Return the blocks from which `block` is reached without going through `header`."""
    body, waiting = {block, header}, [block] if block != header else []
    while waiting:
        for other in before[waiting.pop()]:
            if other not in body:
                body.add(other)
                waiting.append(other)
    return body
