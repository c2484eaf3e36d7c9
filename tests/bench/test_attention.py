"""Who takes part on a GPU that is not here: every contender is made and answers on the CPU."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from bench import attention
from bench.harness import Contender
from bench.worker import resolve

N, DIM = 96, 16
CASES = [(work, causal) for work in attention.WORKS for causal in (False, True)]


def run_here(contender: Contender, arrays):
    """Run a contender of a GPU as far as the CPU goes."""
    here = {"impl": "blocked", "backend": "FLASH_ATTENTION"}
    options = {name: here.get(name, value) for name, value in contender.options.items()}
    with warnings.catch_warnings():
        # FlexAttention that is not compiled says so.
        warnings.simplefilter("ignore")
        return resolve(contender.call)(**arrays, device="cpu", **options)()


def without_aux(flex, *rows, return_aux, **options):
    """Call FlexAttention as a CPU does, which returns nothing but the output."""
    assert return_aux.lse
    assert return_aux.max_scores
    return (flex(*rows, **options),)


@pytest.mark.parametrize(("work", "causal"), CASES)
def test_contenders_of_a_gpu_give_what_is_expected(work, causal, monkeypatch):
    whole: Any = torch.compile

    def compiled(function: Any, **options: Any) -> Any:
        return partial(without_aux, function) if function is flex_attention else whole(function, **options)

    monkeypatch.setattr(torch, "compile", compiled)
    arrays = attention.normal(2, N, DIM)
    expected = attention.truth(arrays, "cpu", causal, work)
    contenders = list(attention.forms("cuda", causal, N, DIM, work))
    if work not in attention.DIVERGENCES:
        assert {"torch, cuDNN", "torch, flash", "FlexAttention, lse and max", "triton: none"} <= {
            c.name for c in contenders
        }
    for contender in contenders:
        if work == "both" and contender.name.startswith("Flex"):
            continue  # it has no gradients on a CPU
        attention.RULE["cpu"].check(contender.name, run_here(contender, arrays), expected)


def test_a_backend_that_cannot_is_left_out_and_ours_never(monkeypatch, capsys):
    def refuses(**given):
        raise RuntimeError("No available kernel.\nAborting execution.")

    monkeypatch.setattr(attention, "fused", refuses)
    monkeypatch.setattr(attention, "op", refuses)
    by_name = {c.name: c for c in attention.forms("cuda", True, N, 256, "forward")}
    assert not attention.takes_part(by_name["torch, cuDNN"], 256, "cuda")
    assert "torch, cuDNN, D = 256" in capsys.readouterr().err
    assert attention.takes_part(by_name["triton: none"], 256, "cuda")


def test_patterns_that_are_too_long_are_not_held():
    names = [c.name for c in attention.forms("cuda", True, 16384, 64, "both")]
    assert not any("eager" in name for name in names)
    assert any("eager" in c.name for c in attention.forms("cuda", True, 8192, 64, "both"))
