"""What a user mistypes first: each is an error that names it and says what to do, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina import interchange, similarity
from lamina.errors import LaminaError, NotFoundError, SchemaError


@pytest.fixture
def asked(run: lamina.Run) -> lamina.Run:
    with run.writer() as writer:
        for step in (0, 10):
            writer.append({"mlp.output": torch.randn(6, 4)}, step=step, example=np.arange(6), source="train")
            writer.features("mlp.output/sae", np.eye(6, dtype=np.float32), threshold=0, step=step)
            writer.save({"model": {"w": torch.ones(3, 3)}}, step=step)
            writer.log({"loss": 1.0}, step=step)
    return run.refresh()


ASKED: list[tuple[Callable[[Any], object], type[LaminaError], str]] = [
    (lambda run: run.activations(7), SchemaError, "a site is called 7"),
    (lambda run: run.activations(["mlp.output", 7]), SchemaError, "texts"),
    (lambda run: run.activations("*"), NotFoundError, "for any number"),
    (lambda run: run.activations("mlp.output", step=range(3)), NotFoundError, "a slice takes the steps that there are"),
    (lambda run: run.activations("mlp.output", source=3), NotFoundError, "source 3"),
    (lambda run: run.rows(None), NotFoundError, "no site None"),
    (lambda run: run.rows("w"), NotFoundError, "no tensor of a checkpoint at step=None.*nearest: 0, 10"),
    (lambda run: run.rows("w", step=11), NotFoundError, "no tensor of a checkpoint at step=11.*nearest: 0, 10"),
    (lambda run: np.asarray(run.rows("mlp.output", step=0)), SchemaError, r"gather\(slice\(None\)\) all of them"),
    (lambda run: run.rows("mlp.output", step=0).sample(3, seed="a"), SchemaError, "seed='a'"),
    (lambda run: run.retain(lowest=["loss"]), SchemaError, r"lowest=\['loss'\]"),
    (lambda run: similarity.cka(run, run), SchemaError, r"rows of a Run: no numbers.*run.rows\(site"),
    (lambda run: interchange.to_safetensors(run.path, "a.safetensors"), SchemaError, "lamina.open"),
]


@pytest.mark.parametrize(("call", "error", "says"), ASKED)
def test_a_question(asked: lamina.Run, call: Callable, error: type[LaminaError], says: str) -> None:
    with pytest.raises(error, match=says):
        call(asked)


WRITTEN: list[tuple[Callable[[Any], object], str]] = [
    (lambda writer: writer.append(torch.ones(3, 2), step=0), "the sites are a Tensor.*mlp.output"),
    (lambda writer: writer.log(0.7, step=0), "the metrics are a float.*loss"),
    (lambda writer: writer.save(torch.nn.Linear(2, 2).state_dict(), step=0), "state of a module.*model.state_dict"),
    (lambda writer: writer.examples(pl.LazyFrame({"example": [1]})), r"a LazyFrame \(collect\(\) it\)"),
    (lambda writer: writer.examples([{"example": 1}]), "the examples are a list"),
]


@pytest.mark.parametrize(("call", "says"), WRITTEN)
def test_what_is_written(run: lamina.Run, call: Callable, says: str) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match=says):
        call(writer)
    assert (run.refresh().sites().height, run.metrics().collect().height, run.checkpoints().collect().height) == (
        0,
    ) * 3


def test_integers_of_numpy_and_torch_are_steps_of_parameters(asked: lamina.Run) -> None:
    steps: list[Any] = [np.int64(10), torch.tensor(10)]
    assert [asked.rows("w", step=step).shape for step in steps] == [(3, 3), (3, 3)]


def test_an_estimate_says_what_it_is_asked_for() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    estimate: Any = similarity.cka(x, x.flip(1))
    test: Any = lamina.measures.permutation_test
    for call, says in (
        (lambda: estimate.interval(95), r"level=95 \(give a probability"),
        (lambda: estimate.at(layer=1), "it is a single number"),
        (lambda: lamina.summarize(estimate), "the frame is a Estimate"),
        (lambda: test(similarity.cka, x, x, seed=0, permutations=0), "give at least 1"),
        (lambda: test(similarity.cka, x, x, seed=0, alternative="more"), "it is 'greater'"),
    ):
        with pytest.raises(LaminaError, match=says):
            call()


def test_what_a_notebook_shows_is_a_sentence(asked: lamina.Run, tmp_path: Path) -> None:
    assert repr(asked.status) == "finished"
    asked.writer().close("killed")
    assert repr(asked.refresh().status) == "failed (killed; 1 of 2 writers)"
    shown = [asked.verify(), asked.retain(last=1), asked.index(), asked.compact(), asked.gc()]
    assert [repr(one) for one in shown] == [str(one) for one in shown]
    assert all("\n" not in repr(one) for one in shown)
