"""Which combinations run, and which are refused: the committed table, and nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import (
    ALiBi,
    Cosine,
    Dot,
    KeyBias,
    RelativeBias,
    Sigmoid,
    Softmax,
    SquaredDistance,
    api,
    attend,
    block_mask,
    divergence,
    reference,
)
from lamina_kernels.attention.problem import Problem, Sums
from lamina_kernels.attention.support import REFUSALS

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"

SCORES = {"dot": Dot(), "cosine": Cosine(0.5), "distance": SquaredDistance(2.0)}
NORMALIZERS = {
    "softmax": Softmax(),
    "softcap": Softmax(softcap=3.0),
    "sink": Softmax(sink=torch.zeros(2)),
    "sigmoid": Sigmoid(),
}
BIASES = {
    "none": None,
    "alibi": ALiBi(torch.ones(2)),
    "table": RelativeBias(torch.ones(2, 5).requires_grad_()),
    "keys": KeyBias(torch.zeros(4)),
}
SEEN: dict[str, dict[str, Any]] = {
    "all": {},
    "causal": {"causal": True},
    "window": {"window": (2, None)},
    "mask": {"mask": block_mask(lambda b, h, i, j: i + 1 >= j, 4, 4)},
}
STARTS = torch.tensor([0, 1, 4], dtype=torch.int32)
LAYOUTS: dict[str, dict[str, Any]] = {"batch": {}, "packed": {"cu_seqlens_q": STARTS, "cu_seqlens_k": STARTS}}
VALUES = {"values": 3, "none": 2}


def refused(form: Any) -> set[tuple[str, ...]]:
    """Every combination of the lists above that a form refuses."""
    found = set()
    for names in itertools.product(SCORES, NORMALIZERS, BIASES, SEEN, LAYOUTS, VALUES):
        score, normalizer, bias, seen, layout, values = names
        shape = (4, 2, 16) if layout == "packed" else (1, 2, 4, 16)
        rows = [torch.ones(shape)] * VALUES[values]
        options = SEEN[seen] | LAYOUTS[layout]
        asked = ("max", "received") if normalizer == "sigmoid" else ("lse", "entropy", "argmax", "distance", "received")
        try:
            attend(*rows, score=SCORES[score], normalizer=NORMALIZERS[normalizer], bias=BIASES[bias], **options,
                   statistics=asked, topk=1, share=0.1, targets={"previous": -1}, impl=form)  # fmt: skip
        except NotImplementedError:
            found.add(names)
    return found


def expected(form: str) -> set[tuple[str, ...]]:
    """What the table says."""
    return {
        names
        for names in itertools.product(SCORES, NORMALIZERS, BIASES, SEEN, LAYOUTS, VALUES)
        if (names[1] == "softcap" and names[2] == "keys")
        or (names[3] == "mask" and names[4] == "packed")
        or (form == "triton" and names[2] == "table")
    }


@pytest.mark.parametrize("form", api.FORMS)
def test_what_the_table_lists_is_refused_and_nothing_else(form, monkeypatch):
    def first_pass(p: Problem, form: str) -> Sums:
        return reference.forward(p)

    # Which combinations are refused is decided before a form runs.
    monkeypatch.setattr(dispatch, "demand_triton", lambda *given: None)
    monkeypatch.setattr(api, "first_pass", first_pass)
    monkeypatch.setattr(api, "second_pass", lambda p, lse, wanted, form: reference.mass(p, lse, wanted))
    assert refused(form) == expected(form)


def test_the_page_lists_every_refusal_with_its_reason():
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}
    for refusal in REFUSALS:
        assert listed[refusal.what] == (", ".join(refusal.forms), refusal.reason)
    assert len(REFUSALS) == 6, "a refusal is a promise that is not kept: think twice, then add it here and to the page"


def test_gradients_of_gradients_are_refused():
    rows = [torch.randn(1, 1, 3, 16, requires_grad=True) for _ in range(3)]
    (gradient,) = torch.autograd.grad(attend(*rows, impl="blocked").out.sum(), rows[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients of gradients"):
        gradient.sum().backward()
    (gradient,) = torch.autograd.grad(attend(*rows, impl="reference").out.sum(), rows[:1], create_graph=True)
    gradient.sum().backward()


def test_without_a_form_asked_for_gradients_of_a_table_run_where_they_can(monkeypatch):
    monkeypatch.setattr(api, "_default", lambda p: "triton")
    monkeypatch.setattr(dispatch, "demand_triton", lambda *given: None)
    assert attend(*[torch.ones(1, 2, 4, 16)] * 3, bias=BIASES["table"]).impl == "blocked"
    with pytest.raises(NotImplementedError, match="gradients of a RelativeBias is not supported"):
        attend(*[torch.ones(1, 2, 4, 16)] * 3, bias=BIASES["table"], impl="triton")


def test_what_triton_has_no_kernel_for_runs_in_plain_torch_and_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(api, "_default", lambda p: "triton")
    monkeypatch.setattr(dispatch, "demand_triton", lambda *given: None)
    rows = [torch.ones(1, 2, 4, 16)] * 4
    assert divergence(*rows, bias=BIASES["table"]).impl == "blocked"
    with pytest.raises(NotImplementedError, match="divergence: gradients of a RelativeBias is not supported"):
        divergence(*rows, bias=BIASES["table"], impl="triton")
    packed = [torch.ones(4, 2, 16)] * 3
    asked: dict[str, Any] = {**LAYOUTS["packed"], "statistics": ["block_mass"]}
    assert attend(*packed, **asked).impl == "blocked"
    with pytest.raises(NotImplementedError, match="block_mass of packed sequences is not supported"):
        attend(*packed, **asked, impl="triton")
