"""Which selections run in which form, and which are refused: the committed table, and nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from lamina_kernels import dispatch
from lamina_kernels.sparse import (
    BatchTopK,
    Gated,
    GroupTopK,
    HardASH,
    JumpReLU,
    KWinners,
    MassShare,
    ReLU,
    TopK,
    encode,
)
from lamina_kernels.sparse.encoding import api
from lamina_kernels.sparse.encoding.problem import Kept, Problem, Rule
from lamina_kernels.sparse.support import REFUSALS

PAGE = Path(__file__).parents[2] / "docs" / "sparse.md"
UNITS = 2048
SELECTIONS = {
    "topk": TopK(2),
    "long runs": GroupTopK(1, 2),
    "short runs": GroupTopK(1, 64),
    "mass": MassShare(0.5, 3),
    "batch": BatchTopK(2),
    "jump": JumpReLU(0.5),
    "relu": ReLU(),
    "gated": Gated(torch.zeros(UNITS), torch.zeros(UNITS)),
    "winners": KWinners(2, torch.linspace(0, 1, UNITS)),
    "ash": HardASH(0.1),
}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}
TOLD = {"none": (), "positive": ("positive",)}
DIRECTIONS = ("forward", "backward")
CASES = list(itertools.product(SELECTIONS, DTYPES, TOLD, DIRECTIONS))


def refused(form: Any) -> dict[tuple[str, ...], str]:
    """Every combination of the lists above that a form refuses, and by which error."""
    found: dict[tuple[str, ...], str] = {}
    for names in CASES:
        select, dtype, told, direction = names
        generator = torch.Generator().manual_seed(0)
        x, weight = (torch.randn(size, 3, generator=generator).to(DTYPES[dtype]) for size in (2, UNITS))
        leaves = [t.requires_grad_(direction == "backward") for t in (x, weight)]
        asked: Any = TOLD[told]
        try:
            encoded = encode(*leaves, select=SELECTIONS[select], statistics=asked, impl=form)
            if direction == "backward":
                gradients = torch.autograd.grad(encoded.codes.values.float().sum(), leaves)
                assert all(g.isfinite().all() for g in gradients)
        except (NotImplementedError, ValueError) as error:
            found[names] = type(error).__name__
    return found


def expected(form: str) -> dict[tuple[str, ...], str]:
    """What the table says."""
    if form != "triton":
        return {}
    found = {names: "ValueError" for names in CASES if names[1] == "fp64"}
    for names in CASES:
        if names[1] != "fp64" and names[0] == "short runs":
            found[names] = "NotImplementedError"
    return found


@pytest.mark.parametrize("form", ["reference", "blocked", "triton"])
def test_what_the_table_lists_is_refused_and_nothing_else(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(p: Problem, rule: Rule, form: str, *, positive: bool = False) -> Kept:
        return whole(p, rule, "blocked", positive=positive)

    whole = api.op.keep
    if form == "triton":
        # Which combinations are refused is decided before a form runs.
        monkeypatch.setattr(dispatch, "interpreted", lambda: True)
        monkeypatch.setattr(api.op, "keep", keep)
    assert refused(form) == expected(form)


def test_the_page_lists_every_refusal_with_its_reason() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}
    for refusal in REFUSALS:
        assert listed[refusal.what] == (", ".join(refusal.forms), refusal.reason)
    assert len(REFUSALS) == 1, "a refusal is a promise that is not kept: think twice, then add it here and to the page"


def test_a_refusal_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "demand_triton", lambda *given: None)
    x, weight = torch.ones(2, 3), torch.ones(8, 3)
    with pytest.raises(NotImplementedError, match="encode: GroupTopK of runs of fewer than 1,024 units is not"):
        encode(x, weight, select=GroupTopK(1, 2), impl="triton")
