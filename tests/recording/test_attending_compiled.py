"""Compiled models: attention is read in code that was compiled once, armed or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from lamina.recording.attending import AttentionTaps
from tests.recording.attention_models import CONFIGS, TOLD, batch, build

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def calls(module: nn.Module, call, given: dict[str, Any], armed: list[bool]) -> tuple[list, list]:
    """Return what was received in each call, and what each call returned."""
    received, results = [], []
    with AttentionTaps(module, TOLD, lambda name, value: received[-1].update({name: value})) as taps:
        for on in armed:
            received.append({})
            if on:
                taps.arm()
            result = call(**given)
            results.append(getattr(result, "last_hidden_state", result))
            taps.disarm()
    return received, results


def check(module: nn.Module, given: dict[str, Any], *, fullgraph: bool, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        truth, plain = calls(module, module, given, [True])
        compiled = torch.compile(module, backend="aot_eager", fullgraph=fullgraph)
        found, results = calls(module, compiled, given, [False, True, False, True])
    assert [len(each) for each in found] == [0, len(truth[0]), 0, len(truth[0])]
    assert len(truth[0]) > 0
    assert found[1].keys() == truth[0].keys()
    for name, value in truth[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[1][name], found[3][name])
    assert all(torch.equal(result, results[0]) for result in results)
    torch.testing.assert_close(results[0], plain[0], rtol=1e-4, atol=1e-5)
    if fullgraph:
        assert counters["stats"]["unique_graphs"] == 1


def check_family(family: str, *, fullgraph: bool) -> None:
    options = {"use_cache": False} if family not in ("bert", "vit") else {}
    check(build(family, layers=1), batch(family, padded=True) | options, fullgraph=fullgraph, grad=True)


def test_models_of_transformers_are_read_and_compiled_once():
    check_family("bert", fullgraph=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("fullgraph", [False, True])
def test_all_families_are_read_and_compiled_once(family, fullgraph):
    check_family(family, fullgraph=fullgraph)


@pytest.mark.parametrize("grad", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_encoder_layers_are_read_and_compiled_once(grad):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True).eval()
    check(layer, {"src": torch.randn(2, 5, 16)}, fullgraph=True, grad=grad)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


def test_layers_that_are_compiled_each_for_itself_share_their_code():
    """Dynamo gives up at the ninth version of a function."""
    model = nn.Sequential(*(Attends() for _ in range(10)))
    for layer in model:
        layer.compile(backend="eager", fullgraph=True)
    given = {"input": torch.randn(2, 5, 8, requires_grad=True)}
    found, _ = calls(model, model, given, [False, True])
    assert len(found[1]) == 10 * len(TOLD)
    assert not torch.equal(found[1]["0.attention.entropy"], found[1]["9.attention.entropy"])
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_gradients_flow_through_compiled_code():
    def gradients(model: nn.Module, call) -> list[torch.Tensor]:
        with AttentionTaps(model, TOLD, lambda *_: None) as taps:
            taps.arm()
            call(**batch("llama"), use_cache=False).last_hidden_state.square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    eager, model = build("llama"), build("llama")
    plain = gradients(eager, eager)
    for a, b in zip(plain, gradients(model, torch.compile(model, backend="aot_eager", fullgraph=True)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_lengths_that_change_are_read():
    module = build("bert")
    compiled = torch.compile(module, backend="aot_eager", dynamic=True, fullgraph=True)
    received: dict[str, torch.Tensor] = {}
    with AttentionTaps(module, "entropy", received.__setitem__) as taps:
        taps.arm()
        for length in (5, 7, 9):
            compiled(input_ids=torch.ones(2, length, dtype=torch.int64))
            assert {value.shape for value in received.values()} == {(2, length, 4)}
    assert counters["stats"]["unique_graphs"] == 1


def test_compiled_code_runs_on_when_the_taps_are_gone():
    module, x = nn.MultiheadAttention(8, 2), torch.randn(3, 1, 8)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    given = {"query": x, "key": x, "value": x}
    found, results = calls(module, compiled, given, [True])
    assert len(found[0]) > 0
    assert torch.equal(compiled(**given)[0], results[0][0])
    assert torch.equal(module(**given)[0], results[0][0])
