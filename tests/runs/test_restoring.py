"""A checkpoint goes back into what it was saved from, or changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import DamagedError, LaminaWarning, NotFoundError, SchemaError
from tests.faults import broken
from tests.runs.test_loading import damage

Trained = tuple[nn.Module, torch.optim.Optimizer, Any]


def make(seed: int, width: int = 64) -> Trained:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(300, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)


def train(trained: Trained, steps: range) -> None:
    model, optimizer, schedule = trained
    for step in steps:
        x = torch.randn(16, 300, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        schedule.step()


def states(trained: Trained) -> dict[str, Any]:
    return {name: one.state_dict() for name, one in zip(("model", "optimizer", "schedule"), trained, strict=True)}


@pytest.fixture
def saved(run: lamina.Run) -> lamina.Run:
    trained = make(0)
    with run.writer() as writer:
        for step in (2, 4):
            train(trained, range(step - 2, step))
            writer.save(states(trained), step=step)
        writer.save({"model": trained[0].state_dict()}, step=9)
    return run.refresh()


def bits(trained: Trained) -> list[bytes]:
    flat = [value for one in trained for value in tensors(one.state_dict())]
    return [value.contiguous().numpy().tobytes() for value in flat]


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    items = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for item in items for tensor in tensors(item)]


def check_goes_on(run: lamina.Run, wrap: Callable[[nn.Module], nn.Module] = lambda model: model) -> None:
    through, again = make(0), make(1)
    train(through, range(4))
    assert run.restore("last", wrap(again[0]), again[1], schedule=again[2]) == 4
    assert bits(again) == bits(through)
    for one in (through, again):
        train(one, range(4, 7))
    assert bits(again) == bits(through)


def test_a_training_goes_on_as_if_nothing_had_happened(saved: lamina.Run) -> None:
    check_goes_on(saved)


def test_a_forgotten_optimizer_would_be_noticed(saved: lamina.Run) -> None:
    with broken("only_the_model_is_restored"), pytest.raises(AssertionError):
        check_goes_on(saved)


def test_a_wrapped_model_is_restored_by_its_plain_names(saved: lamina.Run) -> None:
    check_goes_on(saved, nn.DataParallel)


def test_what_is_restored_is_no_map(saved: lamina.Run) -> None:
    model, optimizer, _ = make(1)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    saved.restore(4, model, optimizer)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    for path in saved.path.glob("chunks/*"):
        path.write_bytes(b"")
    model(torch.ones(2, 300)).sum().backward()
    optimizer.step()


def test_another_dtype_is_converted_as_torch_does(saved: lamina.Run) -> None:
    model = make(1)[0].double()
    saved.restore(2, model)
    assert torch.equal(model.state_dict()["0.weight"], saved.load(2)["0.weight"].double())


def unchanged(trained: Trained, call: Callable[[], Any], error: type[Exception], says: str) -> None:
    before = bits(trained)
    with pytest.raises(error, match=says):
        call()
    assert bits(trained) == before


def test_names_and_shapes_that_do_not_fit_are_listed_and_nothing_changes(saved: lamina.Run) -> None:
    model = nn.Sequential(nn.Linear(300, 8), nn.BatchNorm1d(64), nn.Linear(64, 2, bias=False), nn.PReLU())
    trained = model, torch.optim.AdamW(model.parameters()), make(1)[2]
    says = (
        r"step 4 does not fit the module; missing: 3.weight; unexpected: 2.bias; of another shape: "
        r"0.weight: \[64, 300\] saved, \[8, 300\] here, 0.bias: \[64\] saved, \[8\] here"
    )
    unchanged(trained, lambda: saved.restore(4, model), SchemaError, says)
    with pytest.warns(LaminaWarning, match=says):
        saved.restore(4, model, strict=False)
    assert torch.equal(model.state_dict()["2.weight"], saved.load(4)["2.weight"])
    assert model.state_dict()["1.num_batches_tracked"] == 4


def test_an_optimizer_of_other_parameters_is_refused_before_the_model_changes(saved: lamina.Run) -> None:
    one = make(1)
    fewer = torch.optim.AdamW(list(one[0].parameters())[:2])
    unchanged(one, lambda: saved.restore(4, one[0], fewer), SchemaError, r"group: \[6\] saved, \[2\] here")
    wider = make(1, width=65)
    unchanged(wider, lambda: saved.restore(4, optimizer=wider[1]), SchemaError, r"exp_avg of parameter 0: \[64, 300\]")


def test_damage_anywhere_leaves_everything_as_it_was(saved: lamina.Run) -> None:
    first = saved.checkpoints().filter(step=2).collect()["stored"].sum()
    at = int(first) + int(saved.checkpoints().filter(step=4, part="model").collect()["stored"].sum()) + 9
    trained = make(1)
    unchanged(trained, lambda: damage(saved, at).restore(4, *trained[:2]), DamagedError, 'part "optimizer"')


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"step": 3}, NotFoundError, r"step 3 .* 'model' .*nearest: 2, 4, 9"),
        ({"step": 9, "optimizer": make(1)[1]}, NotFoundError, r"step 9 .*'optimizer' .*nearest: 2, 4"),
        ({"step": "last", "sched": make(1)[2]}, NotFoundError, r"'model', 'sched' .*nearest: schedule"),
        ({"optimizer": 3}, SchemaError, "optimizer= is a int"),
        ({"model": None}, SchemaError, "nothing to restore"),
    ],
)
def test_what_cannot_be_restored_is_named(
    saved: lamina.Run, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        saved.restore(**{"step": "last", "model": make(1)[0], **arguments})


def test_a_module_without_memory_is_refused(saved: lamina.Run) -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(SchemaError, match="to_empty"):
        saved.restore(4, model)
