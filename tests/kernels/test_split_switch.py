"""From a measured width of rows on, a GPU takes the form that writes products."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lamina_kernels.gram import RBF, forms
from lamina_kernels.gram.blocked_scores import BLOCK, block_of
from lamina_kernels.gram.pairs import build


def pairs(d: int) -> Any:
    """Return pairs whose rows say that they are on a GPU."""
    p = build("product", torch.zeros(5, d), None, RBF(1.0))
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda"), shape=(5, d))
    return SimpleNamespace(x=x, tree=p.tree, n=5, m=5)


def chosen(op: str, d: int, impl: str | None = None) -> str:
    """Return the form that runs on a GPU."""
    return forms.choose(op, cast(Any, pairs(d)), impl)


def test_no_width_is_measured_and_a_gpu_takes_triton_at_every_one():
    assert forms.SPLIT == {}
    assert {chosen("product", d) for d in (1, 4096, 16384)} == {"triton"}


def test_from_the_width_of_the_switch_on_a_gpu_takes_what_writes_products(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "SPLIT", {"product": 1024})
    assert [chosen("product", d) for d in (1023, 1024, 4096)] == ["triton", "blocked", "blocked"]
    # Of another op nothing was said, and who asks for a form gets it.
    assert chosen("row_sums", 4096) == "triton"
    assert chosen("product", 4096, "triton") == "triton"


def test_tiles_of_a_gpu_are_worth_their_launches():
    p = build("product", torch.zeros(5, 2), None, RBF(1.0))
    assert (block_of(p), block_of(pairs(2))) == (BLOCK, 16 * BLOCK)
