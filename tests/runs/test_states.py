"""Every kind of thing that the states of torch hold comes back as what it was: containers, views, types and bits."""

from __future__ import annotations

import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.runs.rebuilt import put_together
from lamina.runs.tree import take_apart
from tests.faults import broken
from tests.runs.test_checkpoints import saved
from tests.runs.test_writer import same_bits


def same(one: Any, other: Any) -> bool:
    """Of the same types throughout, and bit for bit."""
    if type(one) is not type(other):
        return False
    match one:
        case torch.Tensor():
            alike = one.shape == other.shape and one.requires_grad == other.requires_grad
            return alike and (not one.numel() or same_bits(one.detach().reshape(-1), other.detach().reshape(-1)))
        case np.ndarray() | np.generic():
            return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        case dict():
            return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case float():
            return struct.pack("d", one) == struct.pack("d", other)
        case complex():
            return same(one.real, other.real) and same(one.imag, other.imag)
    return one == other


NAN = struct.unpack("d", struct.pack("Q", 0xFFF0_0000_0000_BEEF))[0]
STATES = {
    "containers": {
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(list, {3: [1]}),
        "none": defaultdict(None, x=1),
        "counter": Counter({8: 2, 3: 1}),
        "sets": [{1, "a", (2, None)}, frozenset({True}), set()],
        "keys": {1: "int", "1": "text", None: 0, -(2**70): 1},
        "booleans": {True: False},
    },
    "scalars": [NAN, -math.nan, math.nan, -0.0, complex(-0.0, NAN), complex(math.inf, 1e-320), 1 - 2j, True, 2**128],
    "bytes": [b"", b"\x00\xff" * 70_000, bytearray(b"abc"), "\ud800 lone"],
    "torch": [torch.Size([2, 0, 3]), torch.bfloat16, torch.device("cuda", 1), torch.Size([])],
    "numpy": [
        np.float64(1.5),
        np.uint8(7),
        np.bool_(True),
        np.array(2.5),
        np.zeros((0, 3), np.int16),
        np.complex64(1j),
    ],
    "tensors": {
        "parameter": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "asks": torch.ones(2, requires_grad=True),
        "buffers": [torch.nn.Buffer(torch.ones(1)), torch.nn.Buffer(torch.ones(1), persistent=False)],
        "0-d": torch.tensor(True),
        "empty": [torch.empty(0), torch.empty(0, 5), torch.empty(3, 0)],
        "complex": torch.tensor([1 + 2j, complex(-0.0, NAN)], dtype=torch.complex128),
        "negative": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "conjugate": torch.tensor([1 + 2j]).conj().resolve_conj(),
    },
}


@pytest.mark.parametrize("name", STATES)
def test_what_a_state_holds_comes_back_as_what_it_was(run: lamina.Run, name: str) -> None:
    assert same(saved(run, STATES[name]), STATES[name])


def test_the_comparison_sees_a_bit_and_a_type() -> None:
    assert not same([0.0], [-0.0])
    assert not same(NAN, math.nan)
    assert not same(torch.ones(2), torch.nn.Parameter(torch.ones(2)))
    assert not same({1: 1}, OrderedDict({1: 1}))


def test_another_mapping_comes_back_as_a_dict(run: lamina.Run) -> None:
    assert same(saved(run, {"a": MappingProxyType({1: 2})}), {"a": {1: 2}})


def test_bits_that_no_arithmetic_keeps(run: lamina.Run) -> None:
    # quiet and signalling NaNs with payloads, negative zero, subnormals
    bits = torch.tensor([0x7FC0_BEEF, -0x003F_FFFF, 0x7F80_0001, -0x8000_0000, 1, -0x7FFF_FFFF], dtype=torch.int32)
    assert same(saved(run, bits.view(torch.float32)).view(torch.int32), bits)


def test_a_module_keeps_the_versions_of_its_state(run: lamina.Run) -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    state = module.state_dict()
    loaded = saved(run, state)
    assert loaded._metadata == state._metadata  # pyright: ignore[reportAttributeAccessIssue]
    assert type(loaded._metadata) is OrderedDict
    assert same(loaded, state)
    assert same(saved(run, module.state_dict(keep_vars=True)), module.state_dict(keep_vars=True))


def test_random_states_go_on(run: lamina.Run) -> None:
    generator = np.random.default_rng(3)
    state = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "generator": generator.bit_generator.state,
        "python": random.getstate(),
    }
    loaded = saved(run, state)
    expected = torch.rand(3), random.random(), generator.random()
    torch.set_rng_state(loaded["torch"])
    random.setstate(loaded["python"])
    generator.bit_generator.state = loaded["generator"]
    np.random.set_state(loaded["numpy"])  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), generator.random()) == expected[1:]


def optimizers() -> list[Any]:
    optim = torch.optim
    small = [optim.Adadelta, optim.Adafactor, optim.Adagrad, optim.Adam, optim.AdamW, optim.Adamax, optim.ASGD]
    return [*small, optim.LBFGS, optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD]


@pytest.mark.parametrize("kind", optimizers())
def test_states_of_optimizers(run: lamina.Run, kind: Any) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    optimizer = kind(layer.parameters(), lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = layer(torch.ones(4, 3)).square().mean()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert same(saved(run, optimizer.state_dict()), optimizer.state_dict())


def test_states_of_schedules_and_scalers(run: lamina.Run) -> None:
    schedule = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    made = [
        schedule.StepLR(optimizer, 2),
        schedule.MultiStepLR(optimizer, [2, 5, 5]),
        schedule.LambdaLR(optimizer, lambda step: 0.9**step),
        schedule.OneCycleLR(optimizer, 1.0, 10),
        schedule.CyclicLR(optimizer, 0.1, 1.0),
        schedule.CosineAnnealingWarmRestarts(optimizer, 3),
        schedule.ReduceLROnPlateau(optimizer),
        schedule.PolynomialLR(optimizer),
    ]
    made.append(schedule.SequentialLR(optimizer, [schedule.ConstantLR(optimizer), schedule.LinearLR(optimizer)], [3]))
    states = [one.state_dict() for one in made] + [torch.amp.GradScaler("cpu").state_dict()]
    assert same(saved(run, states), states)


def views() -> dict[str, torch.Tensor]:
    whole = torch.arange(24.0).reshape(4, 6)
    complexes = torch.arange(6.0).to(torch.complex64)
    hidden = torch.arange(20.0)
    return {
        "whole": whole,
        "row": whole[1],
        "turned": whole.T,
        "column": whole[:, 2],
        "left": hidden[2:9],
        "right": hidden[6:15:2],
        "complex": complexes,
        "real": torch.view_as_real(complexes)[1:],
        "bytes": complexes[4:].view(torch.uint8),
        "expanded": torch.ones(3, 1).expand(3, 1000),
    }


def check_views(run: lamina.Run) -> None:
    made = views()
    loaded = saved(run, made)
    assert same(loaded, made)
    assert {key: one.stride() for key, one in loaded.items()} == {key: one.stride() for key, one in made.items()}
    for state in (made, loaded):
        state["whole"][1, 2] = -1
        state["right"][1] = -2
        state["real"][0, 1] = -3
        state["bytes"][0] = 77
    assert same(loaded, made)


def test_tensors_that_overlap_overlap_again(run: lamina.Run) -> None:
    check_views(run)
    held = run.refresh().checkpoints().select("tensor", "shape").collect().rows()
    assert held == [("whole", [4, 6]), ("left", [13]), ("complex", [48]), ("expanded", [3])]


def test_cut_overlaps_would_be_noticed(run: lamina.Run) -> None:
    with broken("overlaps_are_cut"), pytest.raises(AssertionError):
        check_views(run)


def test_neighbours_in_one_storage_are_stored_apart(run: lamina.Run) -> None:
    flat = torch.arange(12.0)
    table = torch.ones(100, 3)
    state = {"a": flat[:4].reshape(2, 2), "b": flat[4:], "even": flat[::2][:0]}
    state |= {"columns": table[:, 1], "other column": table[:, 2]}
    loaded = saved(run, state)
    assert same(loaded, state)
    sizes = run.refresh().checkpoints().select("tensor", "bytes").collect().rows()
    assert dict(sizes) == {"a": 16, "b": 32, "even": 0, "columns": 400, "other column": 400}


def test_ties_between_a_parameter_and_its_data(run: lamina.Run) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    loaded = saved(run, {"weight": weight, "again": weight, "data": weight.data, "array": [np.ones(2)] * 2})
    assert loaded["weight"] is loaded["again"]
    assert type(loaded["data"]) is torch.Tensor
    loaded["data"][0] = 5
    loaded["array"][0][0] = 6
    assert loaded["weight"][0] == 5
    assert loaded["array"][1][0] == 6


def test_the_order_in_memory_comes_back(run: lamina.Run) -> None:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    loaded = saved(run, {"images": images, "turned": torch.randn(3, 4).T})
    assert torch.equal(loaded["images"], images)
    assert loaded["images"].stride() == images.stride()
    assert loaded["turned"].stride() == (1, 4)


@pytest.mark.parametrize(
    "tree",
    [
        '{"view":[0,"f32",0,[5],[1]]}',
        '{"view":[0,"f32",-1,[2],[1]]}',
        '{"view":[0,"f32",0,[2],[-1]]}',
        '{"view":[0,"f32",0,[2,0],[1,1]]}',
        '{"view":[0,"f64",0,[3],[1]]}',
        '{"view":[0,"f32",0,[1000000000000,1000000000000,1000000000000],[0,0,0]]}',
        '{"t":0,"stride":[9,1]}',
        '{"t":0,"stride":[]}',
        '{"t":0,"as":"module"}',
        '{"t":0,"is":1}',
        '{"as":"buffer","t":0}',
        '{"ordered":[],"metadata":{"t":4}}',
        '{"default":["eval",[]]}',
        '{"set":[{"l":[]}]}',
        '{"dtype":"load"}',
        '{"device":"nowhere"}',
        '{"size":["a"]}',
        '{"bytes":-1}',
        "[]",
        "{}",
        "3",
    ],
)
def test_a_tree_that_nobody_made_is_refused(tree: str) -> None:
    expected = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
    with pytest.raises(expected):
        put_together(tree, "[]", [torch.ones(2, 2)])


def test_a_tree_that_was_made_is_alike_for_every_save_of_a_model() -> None:
    module = torch.nn.Linear(2, 2)
    first = take_apart(module.state_dict())
    with torch.no_grad():
        module.weight.add_(1)
    assert take_apart(module.state_dict()).tree == first.tree
    assert first.scalars == "[]"
