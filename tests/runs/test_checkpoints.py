"""A saved state comes back as it was."""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.runs.rebuilt import put_together
from lamina.runs.tree import take_apart
from tests.faults import broken
from tests.runs.test_writer import random_bits, same_bits


class Mine(torch.Tensor):
    """A tensor of one's own type."""


class Kind(enum.IntEnum):
    """A number with a name."""

    ONE = 1


def saved(run: lamina.Run, state: Any) -> Any:
    with run.writer() as writer:
        writer.save({"model": state}, step=3)
    return run.refresh().load(3)


def test_a_model_and_its_optimizer_go_on_as_if_nothing_had_happened(run: lamina.Run) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)

    def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, steps: range) -> None:
        for step in steps:
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            schedule.step()

    model, optimizer, schedule = make()
    train(model, optimizer, schedule, range(3))
    with run.writer() as writer:
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        writer.save(parts, step=3)
    train(model, optimizer, schedule, range(3, 6))

    again, its_optimizer, its_schedule = make()
    parts = run.refresh().load("last", part=None)
    again.load_state_dict(parts["model"])
    its_optimizer.load_state_dict(parts["optimizer"])
    its_schedule.load_state_dict(parts["schedule"])
    train(again, its_optimizer, its_schedule, range(3, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


NESTED = {
    "ints as keys": {0: 1, -7: {"x": None}},
    "mixed": [1, 2.5, "é", True, None, (1, [2, (3,)], {})],
    "floats": [0.1, -0.0, 1e-320, 1.7976931348623157e308],
    "large": 2**80,
    "empty": [[], (), {}, ""],
}


def test_nested_states_of_numbers_and_texts(run: lamina.Run) -> None:
    loaded = saved(run, NESTED)
    assert loaded == NESTED
    assert math.copysign(1, loaded["floats"][1]) == -1
    assert type(loaded["mixed"][5]) is tuple
    assert type(loaded["mixed"][3]) is bool


def test_floats_that_are_not_finite(run: lamina.Run) -> None:
    inf, minus, nan = saved(run, [math.inf, -math.inf, math.nan])
    assert (inf, minus, math.isnan(nan)) == (math.inf, -math.inf, True)


@pytest.mark.parametrize(
    "name", ["float64", "bfloat16", "float8_e4m3fn", "uint64", "uint16", "bool", "complex64", "complex128", "int8"]
)
def test_tensors_of_every_dtype_bit_for_bit(run: lamina.Run, name: str) -> None:
    x = random_bits(getattr(torch, name), (5, 3))
    assert same_bits(saved(run, {"x": x})["x"], x)


def test_shapes_views_and_strides(run: lamina.Run) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "0-d": torch.tensor(3),
        "empty": torch.empty(0, 5),
        "transposed": base.T,
        "part": base[1:3, ::2],
        "expanded": torch.ones(1).expand(3),
    }
    loaded = saved(run, state)
    for key, value in state.items():
        assert torch.equal(loaded[key], value), key
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert saved(run, [array])[0].tolist() == array.tolist()
    assert isinstance(run.load(3)[0], np.ndarray)


def test_a_tensor_larger_than_a_chunk(run: lamina.Run) -> None:
    x = torch.randn(700_001, generator=torch.Generator().manual_seed(0))
    assert torch.equal(saved(run, {"x": x})["x"], x)


def check_ties(run: lamina.Run) -> None:
    weight = torch.randn(8, 8)
    loaded = saved(run, {"embed": weight, "head": weight, "other": weight.clone()})
    assert loaded["embed"] is loaded["head"]
    assert loaded["other"] is not loaded["head"]


def test_tied_tensors_are_one_again(run: lamina.Run) -> None:
    check_ties(run)


def test_cut_ties_would_be_noticed(run: lamina.Run) -> None:
    with broken("ties_are_cut"), pytest.raises(AssertionError):
        check_ties(run)


def test_what_does_not_change_is_stored_once(run: lamina.Run) -> None:
    frozen, moving = torch.randn(1 << 19), torch.zeros(1 << 18)
    with run.writer() as writer:
        for step in range(3):
            writer.save({"model": {"frozen": frozen, "moving": moving + step}}, step=step)
    stored = run.refresh().checkpoints().collect().pivot("tensor", index="step", values="stored")
    assert stored["frozen"].to_list() == [2 << 20, 0, 0]
    assert stored["moving"].to_list() == [1 << 20] * 3
    assert sum(path.stat().st_size for path in run.path.glob("chunks/*")) == 5 << 20


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"a": {"b": object()}}, "object at a.b"),
        ({"a": [1, slice(2)]}, "slice at a.1"),
        ({"a": defaultdict(lambda: 1)}, "defaultdict of .* at a"),
        ({"a": Mine(torch.ones(2))}, "'a' is a Mine"),
        ({"a": torch.ones(2, device="meta")}, "meta"),
        ({"a": Kind.ONE}, "Kind at a"),
        ({(1, 2): 3}, "key of type tuple"),
        ({"a": torch.ones(2).to_sparse()}, "layout"),
        (lambda: None, "function at its root"),
    ],
)
def test_what_cannot_be_saved_is_named_before_anything_is_written(run: lamina.Run, state: Any, says: str) -> None:
    with run.writer() as writer:
        with pytest.raises(SchemaError, match=says):
            writer.save({"good": {"x": torch.ones(3)}, "bad": state}, step=0)
        with pytest.raises(SchemaError, match="at least one part"):
            writer.save({}, step=0)
    assert run.refresh().checkpoints().collect().is_empty()
    assert not list(run.path.glob("chunks/*"))


def test_a_step_or_part_that_is_not_there_lists_the_nearest(run: lamina.Run) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint"):
        run.load("last")
    saved(run, {"x": torch.ones(1)})
    with pytest.raises(NotFoundError, match=r"step 5.*nearest.*3"):
        run.load(5)
    with pytest.raises(NotFoundError, match=r"modle.*nearest: model"):
        run.load(3, part="modle")
    with pytest.raises(NotFoundError, match=r"modle.*nearest: model"):
        run.load("last", part="modle")


@pytest.mark.parametrize("step", ["latest", None, 1.5, True])
def test_what_is_no_step_is_named(run: lamina.Run, step: Any) -> None:
    saved(run, {"x": torch.ones(1)})
    for ask in (run.load, lambda step: run.restore(step, torch.nn.Linear(1, 1))):
        with pytest.raises(SchemaError, match=rf"step={step!r}.*or \"last\""):
            ask(step)


@pytest.mark.parametrize("parts", [[torch.ones(1)], torch.ones(1), "model"])
def test_parts_without_names_are_refused(run: lamina.Run, parts: Any) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match=r"the parts are a .*by its name"):
        writer.save(parts, step=0)


def test_of_two_saves_at_one_step_the_last_counts(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.save({"model": torch.zeros(2)}, step=0)
        writer.save({"model": torch.ones(2)}, step=0)
    assert run.refresh().load(0).tolist() == [1, 1]


def test_a_tree_is_alike_when_only_scalars_change() -> None:
    first, second = (take_apart({"lr": lr, "w": torch.ones(2)}) for lr in (0.1, 0.2))
    assert first.tree == second.tree
    assert put_together(second.tree, second.scalars, [torch.ones(2)])["lr"] == 0.2
