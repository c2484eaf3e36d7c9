"""The kernels need nothing but torch and Triton: no file of theirs imports anything else."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import lamina_kernels

ROOT = Path(lamina_kernels.__file__).parent
NEEDED = {"torch", "triton", "lamina_kernels", *sys.stdlib_module_names}
# What somebody has who asks for matrices of it: imported by the two functions that return and take these.
OPTIONAL = {("sparse/interchange.py", "scipy")}


def imported(source: str) -> Iterator[str]:
    """Yield the packages that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative ones have no name of a package.
            yield "lamina_kernels" if node.level else str(node.module).partition(".")[0]


def test_files_import_torch_and_triton_alone() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 100
    others = {(path.relative_to(ROOT).as_posix(), name) for path in files for name in imported(path.read_text())}
    assert {(path, name) for path, name in others if name not in NEEDED} == OPTIONAL


def test_what_stands_inside_a_function_is_seen() -> None:
    source = "import torch.nn\ndef f():\n    from lamina.rows import Rows\n    import numpy as np, os\n"
    assert set(imported(source)) - NEEDED == {"lamina", "numpy"}
