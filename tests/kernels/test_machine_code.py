"""Reading machine code: loops and what is counted in them."""

from __future__ import annotations

import re

import pytest

from tests.kernels.aot.loops import Instruction, Nest, loops
from tests.kernels.aot.machine_code import count


def code(text: str) -> list[Instruction]:
    """Assemble lines like `a: NAME`, `?NAME b` (may jump to b), `!NAME b` (always jumps) and `!NAME` (ends)."""
    made = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"(?:(\w+): )?([?!]?)(\w+)(?: (\w+))?", line)
        assert match is not None, line
        label, mark, name, target = match.groups()
        made.append(Instruction(name, (label,) if label else (), (target,) if target else (), mark == "!"))
    return made


NESTED = """
    START
    outer: A
    inner: HMMA
    B
    ?BRA inner
    C
    ?BRA outer
    STL
    !EXIT
"""


def test_loops_are_found_inside_each_other():
    assert sorted(map(sorted, loops(code(NESTED)))) == [[1, 2, 3, 4, 5, 6], [2, 3, 4]]


def test_code_that_was_put_behind_the_end_belongs_to_its_loop_and_nothing_between():
    # The loop waits at `wait`, seldom; between it and the loop stands what runs after the loop.
    found = loops(
        code("""
        START
        loop: HMMA
        ?BRA wait
        back: A
        ?BRA loop
        AFTER
        !EXIT
        wait: SPIN
        ?BRA wait
        !BRA back
    """)
    )
    assert sorted(map(sorted, found)) == [[1, 2, 3, 4, 7, 8, 9], [7, 8]]


def test_a_jump_back_that_can_be_reached_from_elsewhere_closes_no_loop():
    assert (
        loops(
            code("""
        ?BRA middle
        start: A
        middle: B
        ?BRA start
        !EXIT
    """)
        )
        == []
    )


def test_spills_count_where_the_matrix_loop_is():
    figures = count(code(NESTED), 200, 1024)
    assert (figures.spills, figures.spills_in_loop, figures.matrix, figures.instructions) == (1, 0, "HMMA", 6)
    figures = count(code(NESTED.replace("B\n", "LDL\n", 1)), 200, 1024)
    assert (figures.spills, figures.spills_in_loop) == (2, 1)
    # Around the innermost loop a spill runs seldom.
    assert count(code(NESTED.replace("C\n", "LDL\n", 1)), 200, 1024).spills_in_loop == 0


def test_code_without_matrix_instructions_says_so():
    figures = count(code(NESTED.replace("HMMA", "FFMA")), 200, 1024)
    assert (figures.matrix, figures.instructions, figures.spills_in_loop) == ("none", 0, 0)


# A tile, in which kernels are made one after the other, each in chunks of rows, and are multiplied.
LAYERS = """
    START
    tile: A
    kernel: B
    chunk: HGMMA
    B2
    B3
    B4
    B5
    B6
    B7
    B8
    ?BRA chunk
    C
    ?BRA kernel
    D
    product: HMMA
    E2
    E3
    E4
    E5
    E6
    E7
    E8
    ?BRA product
    ?BRA tile
    !EXIT
"""


def test_loops_count_as_often_as_their_nest_says():
    # A, D, and the last jump; 3 kernels of B, C, a jump, and 2 chunks of 9; 5 turns of 9.
    nest = Nest(1, (Nest(3, (Nest(2),)), Nest(5)))
    assert count(code(LAYERS), 200, 1024, turns=nest).instructions == 3 + 3 * (3 + 2 * 9) + 5 * 9
    # Once each is what a loop counts where nothing is said.
    once = Nest(1, (Nest(1, (Nest(1),)), Nest(1)))
    assert count(code(LAYERS), 200, 1024, turns=once).instructions == count(code(LAYERS), 200, 1024).instructions


def test_loops_that_lie_elsewhere_in_the_code_are_told_apart_by_what_is_inside():
    nest = Nest(1, (Nest(5), Nest(3, (Nest(2),))))
    assert count(code(LAYERS), 200, 1024, turns=nest).instructions == 3 + 3 * (3 + 2 * 9) + 5 * 9


def test_another_nest_than_the_source_has_is_refused():
    for nest in (Nest(1), Nest(1, (Nest(3), Nest(5))), Nest(1, (Nest(3, (Nest(2),)), Nest(5), Nest(5)))):
        with pytest.raises(ValueError, match="the loops of 24 instructions are not"):
            count(code(LAYERS), 200, 1024, turns=nest)


def test_a_loop_that_only_waits_belongs_to_the_loop_around_it():
    waiting = LAYERS.replace("D\n", "spin: TEST\n    ?BRA spin\n", 1)
    nest = Nest(1, (Nest(3, (Nest(2),)), Nest(5)))
    assert count(code(waiting), 200, 1024, turns=nest).instructions == 4 + 3 * (3 + 2 * 9) + 5 * 9
