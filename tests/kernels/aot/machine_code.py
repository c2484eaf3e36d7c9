"""What the machine code of a compiled kernel says about its speed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.compiler import CompiledKernel

from tests.kernels.aot.loops import Instruction, Nest, executed, loops

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# A line of assembly: a label, or an instruction with its name and the rest.
_NVIDIA = re.compile(
    r"^(?P<label>\.L\w+):|^\s+/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?\w+)? *(?P<name>[A-Z][\w.]*) *(?P<rest>[^;]*)"
)
_AMD = re.compile(
    r"^(?P<label>\.L\w+):|^\t(?P<guard>@)?(?P<name>[sv]_\w+|(?:ds|global|buffer|flat|scratch)_\w+) *(?P<rest>[^;]*)"
)
# ptxas also leaves a loop by a call that never returns.
_JUMP = re.compile(r"BRA|CALL|s_c?branch")
_END = re.compile(r"EXIT|RET|s_endpgm")
_LABEL = re.compile(r"\.L\w+")
MATRIX = re.compile(r"HMMA|HGMMA|UTC[A-Z]*MMA|v_mfma")
ADDS = re.compile(r"FADD|v_(?:pk_)?(?:add|sub)_f32")
LOADS = re.compile(r"LDG|(?:global|buffer|flat)_load")
_SPILL = re.compile(r"STL|LDL|scratch_")


@dataclass(frozen=True)
class MachineCode:
    """The figures of one compiled kernel.

    Attributes:
        registers: Vector registers of a thread.
        shared: Shared memory of a program, in bytes.
        spills: Instructions that move a register to memory or back.
        spills_in_loop: Those of them in an innermost loop with matrix instructions.
        matrix: The name of the matrix instructions, or "none".
        instructions: Instructions of the outermost loop with the most matrix instructions, of several the shortest (of
            tiles that are not masked); each loop inside counts once, the innermost matrix loops as often as they turn;
            or all of them as often as a nest says.
    """

    registers: int
    shared: int
    spills: int
    spills_in_loop: int
    matrix: str
    instructions: float


def read(kernel: CompiledKernel, work: re.Pattern[str] = MATRIX, turns: int | Nest = 1) -> MachineCode:
    """Disassemble a kernel and count; see `count`."""
    if "cubin" in kernel.asm:
        registers, text = _nvidia(kernel.asm["cubin"])
        code = _instructions(text.splitlines(), _NVIDIA)
    else:
        text = kernel.asm["amdgcn"]
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        code = _instructions(text.splitlines(), _AMD)
    return count(code, registers, kernel.metadata.shared, work, turns)


def _nvidia(cubin: bytes) -> tuple[int, str]:
    """Return the registers of a thread, and the assembly."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run([_TOOLS / tool[0], *tool[1:], file.name], capture_output=True, text=True, check=True).stdout
            for tool in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    return _number(r"REG:(\d+)", usage), code


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"nothing like {pattern} in the assembly"
    return int(found[1])


def _instructions(lines: Iterable[str], syntax: re.Pattern[str]) -> list[Instruction]:
    code, labels = [], []
    for match in filter(None, map(syntax.match, lines)):
        if match["label"]:
            labels.append(match["label"])
            continue
        name, rest = match["name"], match["rest"].strip()
        jumps = tuple(_LABEL.findall(rest)) if _JUMP.match(name) else ()
        # A jump with a condition, in front of it or among its operands, may fall through.
        away = _END.match(name) or (name in ("BRA", "s_branch") and rest.startswith(("`", ".L")))
        code.append(Instruction(name, tuple(labels), jumps, bool(away) and not match["guard"]))
        labels = []
    return code


def count(
    code: list[Instruction], registers: int, shared: int, work: re.Pattern[str] = MATRIX, turns: int | Nest = 1
) -> MachineCode:
    """Count what matters in the code of one kernel.

    Args:
        code: The code.
        registers: Of a thread.
        shared: Of a program.
        work: The instructions whose loops matter.
        turns: How often the innermost of these turn, or the nest that the outermost is in the source.

    Raises:
        ValueError: The compiler left another nest.
    """
    matrix = {found[0] for i in code if (found := MATRIX.match(i.name))}
    marked = {place for place, i in enumerate(code) if work.match(i.name)}
    spills = {place for place, i in enumerate(code) if _SPILL.match(i.name)}
    every = loops(code)
    with_work = [loop for loop in every if not loop.isdisjoint(marked)]
    innermost = [loop for loop in with_work if not any(other < loop for other in with_work)]
    outermost = [loop for loop in with_work if not any(loop < other for other in with_work)]
    # Of several, an empty one of none.
    longest = min(outermost, key=lambda loop: (-len(loop & marked), len(loop)), default=frozenset[int]())
    if isinstance(turns, Nest):
        instructions = executed(every, longest, turns)
        if instructions is None:
            raise ValueError(f"the loops of {len(longest)} instructions are not {turns}")
    else:
        instructions = len(longest) + (turns - 1) * sum(len(loop) for loop in innermost if loop < longest)
    return MachineCode(
        registers=registers,
        shared=shared,
        spills=len(spills),
        spills_in_loop=len(spills.intersection(*[frozenset().union(*innermost)])),
        matrix="+".join(sorted(matrix)) or "none",
        instructions=instructions,
    )
