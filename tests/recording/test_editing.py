"""Edits by tensors and functions: what is replaced, what stays, and how the model is left."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lamina
from lamina.errors import RecordingError
from tests.faults import broken
from tests.recording.models import Net, Returns, linear

ONES = torch.ones(3, 2)


class Once(nn.Module):
    """Calls one layer twice, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Takes()
        self.same = self.layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(0, x=self.layer(0, x=x))


class Takes(nn.Module):
    def forward(self, n: int, *, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Held:
    left: Any
    right: Any


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def chain() -> nn.Sequential:
    """Return two layers that multiply by two each, with an in-place operation behind the first."""
    return nn.Sequential(linear(), nn.ReLU(inplace=True), linear())


@pytest.mark.parametrize("given", [torch.tensor(5.0), torch.tensor([5.0, 6.0]), torch.arange(6.0).reshape(3, 2)])
def test_a_tensor_broadcasts_to_the_site_and_is_not_changed_by_what_comes_behind(given):
    kept, model = given.clone(), nn.Sequential(linear(), nn.Dropout(0.0), nn.Hardtanh(-1, 1, inplace=True))
    with lamina.edit(model, {"1.output": given}):
        assert torch.equal(model(ONES), given.clamp(-1, 1).expand(3, 2))
    assert torch.equal(given, kept)


def test_a_function_may_change_its_copy_in_place_and_the_original_stays():
    model = nn.Sequential(nn.Identity(), nn.Identity())

    def check() -> None:
        seen: list[torch.Tensor] = []
        x = torch.ones(3, 2)
        with lamina.edit(model, {"0.input": lambda value: seen.append(value.clone()) or value.mul_(3)}):
            assert torch.equal(model(x), 3 * ONES)
        assert torch.equal(x, ONES)
        assert torch.equal(seen[0], ONES)

    check()
    with broken("edits_change_the_original"), pytest.raises(AssertionError):
        check()


def test_what_a_function_keeps_is_not_overwritten_by_the_next_layer():
    def check() -> None:
        kept = -torch.ones(3, 2)
        with lamina.edit(model := chain(), {"0.output": lambda value: kept}):
            assert torch.equal(model(ONES), torch.zeros(3, 2))
        assert torch.equal(kept, -ONES)

    check()
    with broken("edits_change_the_original"), pytest.raises(AssertionError):
        check()


def test_gradients_flow_through_functions_and_into_given_tensors():
    def check() -> None:
        model, x = chain(), torch.ones(3, 2, requires_grad=True)
        given = torch.ones(2, requires_grad=True)
        with lamina.edit(model, {"0.output": lambda value: value * 10}, where=[True, False, False]):
            model(x).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [[40, 40], [4, 4], [4, 4]]
        with lamina.edit(model, {"0.output": given}):
            model(x.detach()).sum().backward()
        assert given.grad is not None
        assert given.grad.tolist() == [6, 6]

    check()
    for fault in ("edits_cut_gradients", "edits_forget_where"):
        with broken(fault), pytest.raises(AssertionError):
            check()


@pytest.mark.parametrize(
    ("made", "site", "other"),
    [
        ((1, ONES), "input[1]", lambda v: v[0] == 1),
        ([ONES, "rest"], "output[0]", lambda v: v[1] == "rest"),
        ({"a": ONES, "b": {"c": ONES}}, "output[b][c]", lambda v: v["a"] is ONES),
        (Pair(None, ONES), "output[right]", lambda v: v.left is None),
        (Pair(None, ONES), "output[-1]", lambda v: v.left is None),
        (Pair(ONES, ONES), "output[right]", lambda v: v.left is ONES),
        (torch.max(ONES, 1), "output[0]", lambda v: v.indices.shape == (3,)),
        (Held(ONES, "rest"), "output[left]", lambda v: v.right == "rest"),
        ((None, ONES), "output", lambda v: v[0] is None),
    ],
)
def test_elements_are_replaced_and_what_holds_them_keeps_its_type(made, site, other):
    arguments = made if site.startswith("input") else (made,)
    with lamina.edit(model := Returns(), {site: torch.tensor(7.0)}):
        found = model(*arguments)
    assert type(found) is type(made)
    assert other(found)
    assert other(made)
    old, new = _tensors(made), _tensors(found)
    assert sum(not torch.equal(a, b) for a, b in zip(old, new, strict=True)) == 1
    assert any(bool((tensor == 7).all()) for tensor in new)


def test_what_is_computed_from_other_elements_cannot_be_replaced():
    class Doubles(namedtuple("Doubles", ["half"])):
        @property
        def whole(self) -> torch.Tensor:
            return 2 * self.half

    class Doubled:
        whole = property(lambda self: ONES)

    for made in (Doubles(ONES), Doubled()):
        with (
            pytest.raises(RecordingError, match=r"'whole' of a Double.* cannot be replaced"),
            lamina.edit(model := Returns(), {"output[whole]": torch.tensor(7.0)}),
        ):
            model(made)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else vars(value).values() if isinstance(value, Held) else value
    return [tensor for item in items if not isinstance(item, (str, int, type(None))) for tensor in _tensors(item)]


def test_outputs_of_transformers_keep_their_type_and_their_attributes():
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    made = BaseModelOutputWithPooling(last_hidden_state=ONES, pooler_output=ONES)  # pyright: ignore[reportArgumentType]
    for site in ("output[last_hidden_state]", "output[0]"):
        with lamina.edit(model := Returns(), {site: torch.tensor(7.0)}):
            found: Any = model(made)
        assert type(found) is BaseModelOutputWithPooling
        assert found.last_hidden_state is found[0] is found["last_hidden_state"]
        assert torch.equal(found[0], 7 * ONES)
        assert found.pooler_output is ONES
        assert made.last_hidden_state is ONES
        assert found.attentions is None


def test_every_call_of_a_shared_module_is_edited_and_keywords_stay_keywords():
    with lamina.edit(model := Once(), {"layer.input[x]": lambda value: value + 1}):
        assert torch.equal(model(ONES), 10 * ONES)
    assert torch.equal(model(ONES), 4 * ONES)
    with lamina.edit(model, {"layer.input[x]": torch.tensor(0.0)}, where=pl.col("call") == 1):
        assert torch.equal(model(ONES), 0 * ONES)
    with lamina.edit(model, {"layer.output": lambda value: value + 1}, where=pl.col("call") == 0):
        assert torch.equal(model(ONES), 6 * ONES)


def test_where_takes_masks_and_expressions_over_names():
    model, x = nn.Identity(), torch.zeros(2, 3, 1)
    one = torch.tensor(1.0)

    def edited(**options: Any) -> list[list[float]]:
        with lamina.edit(model, {"output": one}, **options):
            return model(x)[..., 0].tolist()

    assert edited(where=[True, False]) == [[1, 1, 1], [0, 0, 0]]
    assert edited(where=torch.eye(2, 3).bool()) == [[1, 0, 0], [0, 1, 0]]
    assert edited(where=pl.col("position") > 1) == [[0, 0, 1]] * 2
    assert edited(where=pl.col("example") == "b", example=["a", "b"]) == [[0] * 3, [1] * 3]
    assert edited(where=[False, False]) == [[0, 0, 0]] * 2
    assert edited(where=pl.col("position") == 7, position=[5, 7, 9]) == [[0, 1, 0]] * 2
    assert edited(where=pl.col("position") == 7, position=[[7, 8, 9], [5, 6, 7]]) == [[1, 0, 0], [0, 0, 1]]


def test_batch_items_are_numbered_through_the_block():
    with lamina.edit(model := nn.Identity(), {"output": torch.tensor(1.0)}, where=pl.col("example") == 3):
        assert [model(torch.zeros(2, 1)).flatten().tolist() for _ in range(3)] == [[0, 0], [0, 1], [0, 0]]


def test_edits_nest_and_a_recorder_inside_sees_the_edited_value(tmp_path):
    model = nn.Identity()
    runs = [lamina.Run.create(tmp_path / name) for name in ("outside", "inside")]
    with (
        lamina.record(model, runs[0], sites="output") as outside,
        lamina.edit(model, {"output": lambda value: value + 1}),
        lamina.edit(model, {"output": lambda value: value * 10}),
        lamina.record(model, runs[1], sites="output") as inside,
        outside.step(0, example=[0]),
        inside.step(0, example=[0]),
    ):
        assert model(torch.ones(1, 1)).item() == 20
    assert [lamina.open(run.path).rows("output").gather([0]).item() for run in runs] == [1, 20]


def test_the_last_pattern_that_matches_a_site_holds():
    with lamina.edit(model := chain(), {"*.output": torch.tensor(1.0), "2.output": torch.tensor(9.0)}) as edit:
        assert torch.equal(model(ONES), 9 * ONES)
    assert edit.sites == ["0.output", "1.output", "2.output"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_is_edited_too(reentrant):
    layer, x = linear(), torch.ones(3, 2, requires_grad=True)
    with lamina.edit(layer, {"input": lambda value: value**2 * 3}, where=pl.col("example") < 2):
        checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[12, 12], [12, 12], [2, 2]]


def test_names_that_a_recomputation_cannot_know_raise():
    layer, x = linear(), torch.ones(3, 2, requires_grad=True)
    with lamina.edit(layer, {"input": lambda value: value * 3}, where=pl.col("example") < 4):
        both = [checkpoint(layer, x, use_reentrant=False) for _ in range(2)]
        with pytest.raises(RecordingError, match="computed again"):
            sum(one.sum() for one in both).backward()  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_is_left_behind_also_after_an_exception():
    model = Net().eval()
    kept, before = copy.deepcopy(model.state_dict()), hooks(model)
    x = torch.randn(5, 4)
    want = model(x)
    with pytest.raises(ZeroDivisionError), lamina.edit(model, {"blocks.0.output": lambda value: value / (1 // 0)}):
        model(x)
    with pytest.raises(KeyError), lamina.edit(model, {"blocks.0.output": torch.tensor(0.0)}):
        raise KeyError

    def check() -> None:
        with lamina.edit(model, {"**.*put": torch.tensor(0.0)}):
            assert hooks(model) > before
            model(x)
        assert hooks(model) == before
        assert torch.equal(model(x), want)

    check()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    with broken("edits_stay_after_the_block"), pytest.raises(AssertionError):
        check()


def test_a_copy_of_the_model_made_in_the_block_is_not_edited():
    with lamina.edit(model := nn.Sequential(linear()), {"0.*put": torch.tensor(0.0)}):
        copied = copy.deepcopy(model)
        assert torch.equal(model(ONES), 0 * ONES)
        assert torch.equal(copied(ONES), 2 * ONES)


def test_compiled_models_are_edited_and_compile_nothing_anew():
    from torch._dynamo.utils import counters

    model, x = chain(), torch.ones(3, 2)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    step: Any = torch.compile(lambda x: model(x) + 1, backend="eager")
    inside = chain()
    inside.compile(backend="eager")
    assert torch.equal(compiled(x), 4 * ONES)
    assert torch.equal(step(x), 5 * ONES)
    assert torch.equal(inside(x), 4 * ONES)
    counted = dict(counters["stats"])

    def check() -> None:
        changes = {"1.output": torch.tensor(3.0)}
        for given in (compiled, model):
            with lamina.edit(given, changes):
                assert torch.equal(compiled(x), 6 * ONES)
                assert torch.equal(step(x), 7 * ONES)
        with lamina.edit(inside, changes):
            assert torch.equal(inside(x), 6 * ONES)

    check()
    assert torch.equal(compiled(x), 4 * ONES)
    assert torch.equal(step(x), 5 * ONES)
    assert torch.equal(inside(x), 4 * ONES)
    assert dict(counters["stats"]) == counted
    with broken("edits_do_not_stop_compiled_code"), pytest.raises((AssertionError, RecordingError)):
        check()


def test_what_is_compiled_within_the_block_is_not_edited_behind_it():
    def check() -> None:
        model = chain()
        with lamina.edit(model, {"1.output": torch.tensor(3.0)}):
            compiled: Any = torch.compile(model, backend="eager")
            assert torch.equal(compiled(ONES), 6 * ONES)
        assert torch.equal(compiled(ONES), 4 * ONES)

    check()
    with broken("edits_do_not_stop_compiled_code"), pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(
    ("sites", "says"),
    [
        ({"0.ouput": ONES}, "nearest: 0.output"),
        ({"0.weight": ONES}, "is a parameter"),
        ({"0.weight.grad": ONES}, "is a parameter"),
        ({"0.output.grad": ONES}, "is a gradient"),
        ({"0.output": 0.0}, "edited with a float"),
        (["0.output"], "is a list"),
    ],
)
def test_what_cannot_be_edited_raises_at_once(sites, says):
    with pytest.raises(RecordingError, match=says):
        lamina.edit(chain(), sites)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (torch.zeros(4), {}, r"\[4\] does not broadcast to the site '0.output', \[3, 2\]"),
        (torch.zeros(1, 3, 2), {}, r"\[1, 3, 2\] does not broadcast"),
        (torch.tensor(0.1, dtype=torch.float64), {}, "is float32, and not every float64"),
        (torch.tensor(1j), {}, "is float32, and not every complex64"),
        (lambda value: value[:, :1], {}, r"returned float32 \[3, 1\] in the place of float32 \[3, 2\]"),
        (lambda value: value.double(), {}, "returned float64"),
        (lambda value: None, {}, "returned a NoneType"),
        (ONES, {"where": [True, False]}, r"mask \[2\], and the site '0.output' has the shape \[3, 2\]"),
        (ONES, {"where": pl.col("position") > 0}, "position.*it may ask for"),
        (ONES, {"where": pl.col("example")}, "3 values of Int64"),
        (ONES, {"where": pl.col("example") > 0, "example": [1, 2]}, "names 2 batch items"),
    ],
)
def test_what_does_not_fit_names_the_site_and_the_shapes(change, options, says):
    model = chain()
    with pytest.raises(RecordingError, match=says), lamina.edit(model, {"0.output": change}, **options):
        model(ONES)


def test_impossible_options_raise_at_once():
    impossible: list[tuple[dict[str, Any], str]] = [
        ({"where": torch.ones(3)}, "is float32, not a mask"),
        ({"where": "all"}, "where= is a str"),
        ({"example": [0.5]}, "holds Float64"),
        ({"position": [0.5]}, "whole numbers"),
        ({"layout": "batch time"}, "'time' is no dimension"),
        ({"layout": "token width"}, "does not tell which token is whose"),
    ]
    for options, says in impossible:
        with pytest.raises(RecordingError, match=says):
            lamina.edit(chain(), {"0.output": ONES}, **options)


def test_a_wider_tensor_is_converted_where_that_is_exact():
    with lamina.edit(model := chain(), {"0.output": torch.tensor(0.5, dtype=torch.float64)}):
        assert torch.equal(model(ONES), ONES)


def test_a_site_that_is_never_reached_raises_at_the_end():
    model = chain()
    with (
        pytest.raises(RecordingError, match=r"nothing was edited at 0\.output"),
        lamina.edit(model, {"0.output": ONES}),
    ):
        model[1](ONES)
    with lamina.edit(model, {"0.output": torch.zeros(7)}), pytest.raises(RecordingError, match="does not broadcast"):
        model(ONES)
    edit = lamina.edit(model, {})
    with edit:
        pass
    with pytest.raises(RecordingError, match="entered once"):
        edit.__enter__()


def test_two_names_of_one_tensor_cannot_be_edited_differently():
    with pytest.raises(RecordingError, match="are the same tensor"):
        lamina.edit(Once(), {"layer.output": ONES, "same.output": 2 * ONES})
