"""Gradients of which only some are asked for: they are those that all have, and the others are not computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import RBF, Laplace, Linear, cka_matrix, hsic, product, softmax_product
from tests.faults import broken
from tests.kernels import gram_dependence_faults, gram_faults  # noqa: F401
from tests.kernels.gram_kernels import CASES, leaves, normal, small_layers, small_tiles

GRADIENTS = ("x", "y", "parameters", "v", "log_weights")
SOME = [("x",), ("y",), ("parameters",), ("v",), ("log_weights",), ("x", "parameters"), ("y", "v", "parameters")]


def asked(names: tuple[str, ...], *, name: str, same: bool, impl: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return gradients, and gradients of these, by some of what a product and a softmax are made of."""
    case = CASES[name]
    held = {"x": normal(23, seed=0), "y": normal(19, seed=1), "v": normal(23 if same else 19, 2, seed=2)}
    held |= {"log_weights": normal(len(held["v"]), 1, seed=3)[:, 0]}
    held = {key: value for key, value in held.items() if key != "y" or not same}
    held |= {f"parameters{place}": leaf.detach() for place, leaf in enumerate(leaves(case))}
    wanted = {key: value.requires_grad_() for key, value in held.items() if key.rstrip("0123456789") in names}
    kernel = case.make(*(value for key, value in held.items() if key.startswith("parameters")))
    x, y = held["x"], held.get("y")
    options: dict[str, Any] = {"kernel": kernel, "impl": impl, "exclude": "self" if same else None}
    mean = softmax_product(x, y, held["v"], log_weights=held["log_weights"], **options)
    sums = [product(x, y, held["v"], **options), *mean]
    loss = torch.stack([(s * normal(s.numel(), 1, seed=9).view_as(s)).sum() for s in sums]).sum()
    by = list(wanted.values())
    first = torch.autograd.grad(loss, by, create_graph=True, materialize_grads=True)
    squares = torch.stack([(g * value).square().sum() for g, value in zip(first, by, strict=True)]).sum()
    second = torch.autograd.grad(squares, by)
    return dict(zip(wanted, first, strict=True)), dict(zip(wanted, second, strict=True))


def some_gradients_are_those_of_all(name: str, *, same: bool) -> None:
    """All are those of the matrix, and so are gradients of some."""
    with small_tiles():
        every, _ = asked(GRADIENTS, name=name, same=same, impl="blocked")
    torch.testing.assert_close(every, asked(GRADIENTS, name=name, same=same, impl="reference")[0], rtol=1e-9, atol=1e-9)
    for names in SOME:
        if (names == ("y",) and same) or (names == ("parameters",) and not CASES[name].held):
            continue
        with small_tiles():
            first, second = asked(names, name=name, same=same, impl="blocked")
        _, expected = asked(names, name=name, same=same, impl="reference")
        for found, truth in ((first, every), (second, expected)):
            for key, value in found.items():
                torch.testing.assert_close(value, truth[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "same"), [("rbf", False), ("product", True), ("distance, norm 3", False), ("own", True)]
)
def test_some_gradients_are_those_of_all(name: str, same: bool) -> None:
    some_gradients_are_those_of_all(name, same=same)


@pytest.mark.parametrize(
    ("fault", "same"),
    [
        ("gram_gradients_swap_what_is_wanted", False),
        ("gram_gradients_take_a_softmax_for_symmetric", True),
        ("gram_gradients_forget_the_mirror_image", True),
    ],
)
def test_a_fault_is_noticed(fault: str, same: bool) -> None:
    with broken(fault), pytest.raises((AssertionError, KeyError)):
        some_gradients_are_those_of_all("rbf", same=same)


def nothing_else_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the passes are told, and what they are told by: tiles of the same rows are half as many."""
    from lamina_kernels.gram.blocked_scores import Scores
    from lamina_kernels.gram.sums import blocked

    told: list[tuple[bool, ...]] = []
    pulled: list[tuple[bool, ...]] = []
    whole, pull = blocked.gradients, Scores.pull

    def gradients(p: Any, v: Any, weighing: Any, g: Any, wanted: Any) -> Any:
        told.append(tuple(wanted))
        return whole(p, v, weighing, g, wanted)

    def counted(self: Any, columns: Any, g: Tensor, into: Any) -> None:
        pulled.append(tuple(each is not None for each in into))
        pull(self, columns, g, into)

    monkeypatch.setattr(blocked, "gradients", gradients)
    monkeypatch.setattr(Scores, "pull", counted)
    monkeypatch.setattr("lamina_kernels.gram.blocked_scores.BLOCK", 10)
    x, y, b = normal(20, seed=0), normal(20, seed=1), torch.tensor(1.3, dtype=torch.float64)
    v = normal(20, 2, seed=2)
    for leaf, flags in ((x, (True, False, False)), (y, (False, True, False)), (b, (False, False, True))):
        leaf.requires_grad_()
        product(x, y, v, kernel=RBF(b)).sum().backward()
        assert (told.pop(), set(pulled), len(pulled)) == ((*flags, False, False), {flags}, 4)
        leaf.requires_grad_(False)
        pulled.clear()
    product(x, y, v.requires_grad_(), kernel=RBF(b)).sum().backward()
    assert (told.pop(), pulled) == ((False, False, False, True, False), [])
    product(x.requires_grad_(), None, v.detach(), kernel=RBF(b)).sum().backward()
    assert (told.pop(), set(pulled), len(pulled)) == ((True, False, False, False, False), {(True, True, False)}, 3)


def test_nothing_else_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_else_is_computed(monkeypatch)


def test_what_nobody_wants_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("gram_gradients_are_all_wanted"), pytest.raises(AssertionError):
        nothing_else_is_computed(monkeypatch)


def of_layers(
    held: dict[str, Tensor], names: tuple[str, ...], groups: Tensor | None, impl: Any = None
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Return the gradients by some of three layers and two bandwidths, of values and features, and those of these."""
    wanted = {key: value.detach().requires_grad_(key in names) for key, value in held.items()}
    x, y, z, b, c = wanted.values()
    value = cka_matrix([x, y, z], kernel=[RBF(b), Linear(), Laplace(c)], groups=groups, impl=impl).value
    some = hsic(x, z, kernel_x=Linear(), kernel_y=Linear(), groups=groups, impl=impl)
    loss = (value * normal(3, 3, seed=9)).sum() + some
    by = [value for key, value in wanted.items() if key in names]
    first = torch.autograd.grad(loss, by, create_graph=True)
    squares = torch.stack([each.square().sum() for each in first]).sum()
    return dict(zip(names, first, strict=True)), torch.autograd.grad(squares, by)


def some_layers_have_the_gradients_that_all_have() -> None:
    held = {name: normal(29, 3, seed=seed) for seed, name in enumerate("xyz")}
    held |= {name: torch.tensor(value, dtype=torch.float64) for name, value in (("b", 1.3), ("c", 2.0))}
    for groups in (None, torch.arange(29) // 3):
        with small_layers(7):
            every, _ = of_layers(held, tuple(held), groups)
            for names in (("x",), ("y",), ("z",), ("b",), ("x", "c")):
                first, second = of_layers(held, names, groups)
                for key, value in first.items():
                    torch.testing.assert_close(value, every[key], rtol=1e-9, atol=1e-12)
                _, expected = of_layers(held, names, groups, impl="reference")
                torch.testing.assert_close(second, expected, rtol=1e-8, atol=1e-11)


def test_some_layers_have_the_gradients_that_all_have() -> None:
    some_layers_have_the_gradients_that_all_have()


@pytest.mark.parametrize("fault", ["dependence_pulls_the_first_layers", "dependence_second_takes_others"])
def test_layers_that_are_taken_for_others_are_noticed(fault: str) -> None:
    with broken(fault), pytest.raises((AssertionError, RuntimeError)):
        some_layers_have_the_gradients_that_all_have()


def test_the_second_order_follows_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from lamina_kernels.gram.dependence import blocked_second

    followed: list[list[bool]] = []

    def twice(whole: Tensor, inner: Any, given: Any, by: Any) -> Any:
        followed.append([each.requires_grad for each in inner])
        # The rows, and the gradients of pairs and of row sums.
        assert len(by) == 1 + 2
        return [None] * len(by)

    monkeypatch.setattr(blocked_second, "twice", twice)
    rows = [normal(20, seed=seed) for seed in range(3)]
    x = rows[1].requires_grad_()
    (first,) = torch.autograd.grad(cka_matrix(rows, kernel=RBF(1.0)).value[0, 1], x, create_graph=True)
    first.sum().backward()
    # Three layers' rows, then their parameters.
    assert followed == [[False, True, False, False, False, False]]
