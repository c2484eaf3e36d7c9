"""The committed figures of compiled kernels, one table a family, keyed by the version of Triton.

`python -m tests.kernels.aot.table` compiles everything, or the families that are named, and writes the rows of the
Triton that is installed; rows of other versions stay.
"""

from __future__ import annotations

import csv
import sys
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import triton
from triton.compiler import CompiledKernel

from tests.kernels.aot.compiling import TARGETS, compile_for
from tests.kernels.aot.configurations import FAMILIES
from tests.kernels.aot.machine_code import read

SHARED_LIMIT = {"cuda:80": 166_912, "cuda:90": 232_448, "cuda:100": 232_448, "hip:gfx942": 65_536}
MATRIX = {"cuda:80": "HMMA", "cuda:90": "HGMMA", "cuda:100": "UTCHMMA", "hip:gfx942": "v_mfma"}


class Row(NamedTuple):
    """The figures of one configuration on one target.

    Attributes:
        triton: The version of Triton.
        target: What it is compiled for.
        configuration: Its name.
        precision: How it multiplies.
        warps: Warps of a program.
        stages: Tiles in flight.
        registers: Vector registers of a thread.
        shared: Bytes of shared memory of a program.
        spills: Instructions that move a register to memory or back.
        spills_in_loop: Those of them in an innermost loop with matrix instructions.
        matrix: The matrix instructions.
        instructions: Instructions a score: of the outermost loop with the most matrix instructions, by all threads,
            over the scores of a tile. Inner loops over the width of the rows count as often as they turn in sums and
            selections of one kernel and in encoders, and so do all loops of sums of many kernels and of their
            gradients, whose scores are those of each kernel; in others once. Of kernels that gather rows: of the loop
            with the most loads, over the numbers that it loads; of sums of differences: of that with the most
            additions.
    """

    triton: str
    target: str
    configuration: str
    precision: str
    warps: str
    stages: str
    registers: str
    shared: str
    spills: str
    spills_in_loop: str
    matrix: str
    instructions: str


def path(family: str) -> Path:
    """Return where the table of a family is."""
    return Path(__file__).with_name(f"{family}.tsv")


def rows(family: str) -> list[Row]:
    """Read the table of a family."""
    with path(family).open(newline="") as file:
        return [Row(**row) for row in csv.DictReader(file, delimiter="\t")]


@cache
def compiled(family: str, name: str, target: str) -> tuple[CompiledKernel, Row]:
    """Compile a configuration for a target, and count."""
    configuration = FAMILIES[family][name]
    launch = configuration.plan(target)
    kernel = compile_for(target, configuration.kernel, launch.arguments, launch.options)
    code = read(kernel, configuration.work, configuration.turns(launch.arguments))
    threads = launch.options["num_warps"] * TARGETS[target].warp_size
    scores = prod(launch.arguments[name] for name in configuration.scores)
    return kernel, Row(
        triton=triton.__version__,
        target=target,
        configuration=name,
        precision=next((launch.arguments[n] for n in ("PRECISION", "X_PRECISION") if n in launch.arguments), ""),
        warps=str(launch.options["num_warps"]),
        stages=str(launch.options["num_stages"]),
        registers=str(code.registers),
        shared=str(code.shared),
        spills=str(code.spills),
        spills_in_loop=str(code.spills_in_loop),
        matrix=code.matrix,
        instructions=f"{code.instructions * threads / scores:.1f}",
    )


def complaints(family: str, row: Row) -> list[str]:
    """Return what is wrong with a compiled kernel, whatever the table says."""
    found = []
    if int(row.shared) > SHARED_LIMIT[row.target]:
        found.append(f"{row.shared} bytes of shared memory, {row.target} has {SHARED_LIMIT[row.target]}: cannot launch")
    if int(row.spills_in_loop):
        found.append(f"{row.spills_in_loop} spills in the innermost matrix loop")
    if MATRIX[row.target] not in row.matrix.split("+") and FAMILIES[family][row.configuration].matrix:
        found.append(f"matrix instructions {row.matrix}, expected {MATRIX[row.target]}")
    return found


def write(family: str) -> None:
    """Compile a family and write its rows for this Triton."""
    kept = [row for row in rows(family) if row.triton != triton.__version__] if path(family).exists() else []
    made = [compiled(family, name, target)[1] for name in FAMILIES[family] for target in TARGETS]
    with path(family).open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(kept + made)


if __name__ == "__main__":
    for every in sys.argv[1:] or FAMILIES:
        write(every)
