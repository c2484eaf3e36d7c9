"""The stub of the compiled module says exactly what the module has."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lamina import _core

STUB = ast.parse((Path(_core.__file__).parent / "_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CONSTANTS = {
    node.target.id
    for node in STUB.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is None
}


def declared(node: ast.FunctionDef) -> list[str]:
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
    return names + [f"*{arg.arg}" for arg in node.args.kwonlyargs]


def actual(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [f"*{p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in parameters]


def public(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_module_has_what_the_stub_declares_and_nothing_else() -> None:
    assert public(vars(_core)) == CLASSES.keys() | FUNCTIONS.keys() | CONSTANTS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_declared_parameters(name: str) -> None:
    assert actual(getattr(_core, name)) == declared(FUNCTIONS[name])


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_declared_members_and_parameters(name: str) -> None:
    methods = {node.name: node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    members = vars(getattr(_core, name))
    assert public(members) == public(methods)
    for member, node in methods.items():
        if member == "__init__":
            assert actual(getattr(_core, name)) == declared(node)[1:]
        elif not node.decorator_list:
            assert actual(members[member]) == declared(node), member


def test_a_difference_would_be_noticed() -> None:
    wrong = ast.parse("def vectors(self, group, site, widen): ...").body[0]
    assert isinstance(wrong, ast.FunctionDef)
    assert actual(_core.Snapshot.vectors) != declared(wrong)
