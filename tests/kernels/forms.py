"""Where a form of an op runs: in this process, in Triton's interpreter, or on a GPU.

A check is a function that takes the op as its first argument and asserts something about it. One check serves
every form; a fault, or another size of tiles, is set in the process that the check runs in.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from typing import Any, NamedTuple

import pytest
import torch

from tests.faults import broken

Check = Callable[..., None]


class Form(NamedTuple):
    """One form of an op, and how it is to run.

    Attributes:
        op: The op.
        impl: The name of the form.
        settings: What is replaced in the product while a check runs, by dotted names: sizes of tiles and the like.
        device: "cpu", "cuda", or "interpreter".
    """

    op: Callable[..., Any]
    impl: str
    settings: Mapping[str, Any] = {}
    device: str = "cpu"

    def run(self, check: Check, *arguments: Any, fault: str | None = None) -> None:
        """Run a check of this form, under a fault if one is named; raise what it raises."""
        if self.device == "interpreter":
            try:
                _interpreter().submit(_run, self, check, arguments, fault).result()
            except BrokenProcessPool:
                # The tests that follow get a new process.
                _interpreter.cache_clear()
                raise
        else:
            _run(self, check, arguments, fault)


def _run(form: Form, check: Check, arguments: tuple[Any, ...], fault: str | None) -> None:
    device = "cuda" if form.device == "cuda" else "cpu"
    with pytest.MonkeyPatch.context() as patch, torch.device(device):
        for name, value in form.settings.items():
            patch.setattr(name, value)
        if fault is None:
            check(partial(form.op, impl=form.impl), *arguments)
        else:
            with broken(fault):
                check(partial(form.op, impl=form.impl), *arguments)


@cache
def _interpreter() -> ProcessPoolExecutor:
    """Start the process that interprets kernels; a wild address cannot take the tests along.

    Triton chooses between compiler and interpreter when a kernel is imported, so that one process cannot have both.
    """
    return ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"), initializer=_interpret)


def _interpret() -> None:
    assert "triton" not in sys.modules
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    _replace_the_language_once_a_launch()


def _replace_the_language_once_a_launch() -> None:
    """Triton does so whenever a kernel calls a function, which takes half of the interpreter's time."""
    from triton.runtime import interpreter

    replace, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    replaced: set[int] = set()

    def replace_once(function: Any) -> Any:
        room = id(function.__globals__)
        if room in replaced:
            return None
        replaced.add(room)
        return replace(function)

    def launch_anew(self: Any, *arguments: Any, **options: Any) -> Any:
        replaced.clear()
        return launch(self, *arguments, **options)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = replace_once, launch_anew


def always(*arguments: Any) -> bool:
    """Stand in for a question that is to be answered with yes."""
    return True


def never(*arguments: Any) -> bool:
    """Stand in for a question that is to be answered with no."""
    return False
