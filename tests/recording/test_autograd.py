"""What recording asks of autograd, and every private name of torch that it stands on, so that none goes unseen."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lamina.recording
from lamina.recording.autograd import backward_pass, behind_backward

# A name is added here with a comment where it is used that says why no public one will do.
PRIVATE = {
    "torch._C._current_graph_task_id",
    "torch._C._functorch.is_batchedtensor",
    "torch._foreach_norm",
    "torch._foreach_sub",
    "torch.autograd.Variable._execution_engine",
    "torch.distributed.tensor._utils.compute_local_shape_and_global_offset",
}


def private_names(source: str) -> Iterator[str]:
    """Yield what a source takes of torch by a name that has a component with an underscore in front."""
    for node in ast.walk(ast.parse(source)):
        names = [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{one.name}" for one in node.names]
        yield from (name for name in names if re.fullmatch(r"torch(\.\w+)*\._[\w.]+", name))


def found() -> set[str]:
    room = Path(lamina.recording.__file__).parent
    names = {name for file in room.rglob("*.py") for name in private_names(file.read_text())}
    # `torch._C` is on the way to a name, and not one.
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def resolved(name: str) -> Any:
    value: Any = torch
    for part in name.split(".")[1:]:
        value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")
    return value


def test_every_private_name_of_torch_is_listed():
    assert found() == PRIVATE
    listed = "import torch\nfrom torch.a._b import c\ntorch._d(torch.e._f.g)\nself._h"
    assert {"torch.a._b.c", "torch._d", "torch.e._f.g"} <= set(private_names(listed))


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_torch_has_it(name):
    assert resolved(name) is not None


def test_a_backward_pass_has_a_number_of_its_own_and_what_is_put_behind_it_sees_all_gradients():
    weight = torch.ones(2, requires_grad=True)
    seen: list[int | None] = []
    behind: list[list[float]] = []

    def note(gradient: torch.Tensor) -> None:
        seen.append(backward_pass())
        behind_backward(lambda: behind.append([] if weight.grad is None else weight.grad.tolist()))

    for _ in range(2):
        product = weight * 3
        product.register_hook(note)
        product.sum().backward()
        seen.append(backward_pass())
    assert seen[1::2] == [None, None]
    assert len({None, *seen[::2]}) == 3
    assert behind == [[3, 3], [6, 6]]
