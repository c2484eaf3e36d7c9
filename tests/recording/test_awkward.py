"""Awkward models, tensors and options: what is recorded is right, or the error says what is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina import Site
from lamina.errors import RecordingError
from tests.faults import broken
from tests.recording.models import linear


def recorded(path: Path, model: nn.Module, x: Any, options: Site | None = None, **columns: Any) -> lamina.Run:
    run = lamina.Run.create(path)
    columns.setdefault("example", range(3))
    with lamina.record(model, run, sites={"output": options or Site()}) as recorder, recorder.step(0, **columns):
        model(x)
    return lamina.open(run.path)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_batches_are_surveyed_and_captured(layout, tmp_path):
    items = [torch.randn(2, 2), torch.randn(4, 2)]
    model, x = linear(), torch.nested.nested_tensor(items, layout=layout)
    for survey in (lamina.sites(model, x), lamina.sites(model, x, sites=["input", "output"])):
        rows = dict(survey.frame.filter(survey.frame["site"].str.ends_with("put")).select("site", "rows").rows())
        assert rows == {"input": 6, "output": 6}
    run = lamina.Run.create(tmp_path / "run")
    lamina.capture(model, run, x, sites="output", progress=False)
    assert run.activations().select("example", "position").collect().rows() == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3),
    ]  # fmt: skip
    assert torch.equal(run.rows("output").gather(range(6)), 2 * torch.cat(items))


@pytest.mark.parametrize("options", [Site(pool="mean"), Site(pool="cls"), Site(positions=0)])
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(4, 2)], layout=torch.jagged), "tokens of all"),
        (torch.ones(3, 2, 4, 4), r"\[3, 2, 4, 4\], a row for each example.*layout="),
    ],
)
def test_options_that_need_positions_raise_where_there_are_none(options, x, says, tmp_path):
    with pytest.raises(RecordingError, match=says):
        recorded(tmp_path / "run", nn.Identity(), x, options, example=range(len(x)))


def test_options_that_need_positions_leave_rows_of_examples_as_they_are(tmp_path):
    for index, options in enumerate((Site(pool="mean"), Site(positions=0))):
        x = torch.randn(3, 2)
        assert torch.equal(
            recorded(tmp_path / f"{index}", nn.Identity(), x, options).rows("output").gather(range(3)), x
        )


@pytest.mark.parametrize("positions", [True, 1.5, "ab", [], [0.5], [True]])
def test_positions_that_are_none_raise_at_once(positions):
    with pytest.raises(RecordingError, match=r"positions=.* chooses none"):
        Site(positions=positions)


def test_a_position_that_is_named_twice_is_one_row(tmp_path):
    x = torch.randn(3, 1, 2)
    run = recorded(tmp_path / "run", nn.Identity(), x, Site(positions=[0, -1]))
    assert run.rows("output").shape == (3, 2)
    run = recorded(tmp_path / "more", nn.Identity(), torch.randn(3, 4, 2), Site(positions=[3, 0, 3]))
    assert run.activations().collect()["position"].to_list() == [3, 0] * 3


@pytest.mark.parametrize("pool", ["last", "mean", "cls"])
def test_examples_without_positions_give_no_pooled_row(pool, tmp_path):
    assert len(recorded(tmp_path / "run", nn.Identity(), torch.zeros(3, 0, 2), Site(pool=pool)).rows("output")) == 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8])
def test_a_mean_of_whole_numbers_is_not_rounded(dtype, tmp_path):
    x = torch.tensor([[[0], [1]], [[1], [1]], [[0], [0]]]).to(dtype)
    for name, mask in (("plain", None), ("masked", torch.ones(3, 2))):
        rows = recorded(tmp_path / name, nn.Identity(), x, Site(pool="mean"), mask=mask).rows("output")
        assert rows.gather(range(3)).flatten().tolist() == [0.5, 1, 0]


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.zeros(3, 4).masked_fill(torch.eye(3, 4).bool(), -torch.inf), "float32 that are neither 0 nor 1"),
        (torch.full((3, 4), torch.nan), "neither 0 nor 1"),
        (torch.full((3,), 2), "int64 that are neither"),
        ("padding", "holds str"),
        (torch.ones(3, 5), r"'mask' has the shape \[3, 5\]"),
        (torch.ones(4), "'mask' has 4 entries"),
    ],
)
def test_a_mask_that_is_none_raises_and_nothing_is_stored(mask, says, tmp_path):
    run = lamina.Run.create(tmp_path / "run")
    model = nn.Identity()
    with lamina.record(model, run, sites="output") as recorder:
        with pytest.raises(RecordingError, match=says), recorder.step(0, example=range(3), mask=mask):
            model(torch.zeros(3, 4, 2))
        with recorder.step(1, example=range(3), mask=torch.ones(3, 4, dtype=torch.bfloat16)):
            model(torch.zeros(3, 4, 2))
    assert lamina.open(run.path).steps() == [1]


def test_an_imaginary_part_is_not_dropped(tmp_path):
    with pytest.raises(RecordingError, match=r"complex64.*float32 would drop its imaginary part"):
        recorded(tmp_path / "run", nn.Identity(), torch.zeros(3, 2, dtype=torch.complex64), Site(dtype=torch.float32))


def test_tensors_that_are_none_of_their_own_raise(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.zeros(3, 2), 0.1, 0, torch.quint8)
    with pytest.raises(RecordingError, match="quantized tensor"):
        recorded(tmp_path / "quantized", nn.Identity(), quantized)
    run, model = lamina.Run.create(tmp_path / "mapped"), linear()
    with lamina.record(model, run, sites="output") as recorder, recorder.step(0, example=range(3)):
        with pytest.raises(RecordingError, match=r"'output' runs inside of torch\.vmap"):
            torch.vmap(model)(torch.ones(3, 2))
        model(torch.ones(3, 2))
    with pytest.raises(lamina.errors.LaminaError, match="device meta"):
        lamina.capture(nn.Identity(), run, torch.zeros(3, 2, device="meta"), sites="output", progress=False)


def test_what_is_no_model_or_no_sites_raises(tmp_path):
    run = lamina.Run.create(tmp_path / "run")
    mistakes: list[tuple[Any, Any, str]] = [
        (torch.relu, "output", r"no torch\.nn\.Module"),
        (linear(), None, "is a NoneType"),
    ]
    for model, sites, says in mistakes:
        with pytest.raises(RecordingError, match=says):
            lamina.record(model, run, sites=sites)


def test_sparse_tensors_are_no_sites():
    assert lamina.sites(nn.Sequential(nn.Identity()), torch.eye(3).to_sparse()).frame.height == 0


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torch_script_takes_no_hooks(tmp_path):
    script: Any = torch.jit.script(nn.Sequential(linear()))
    with pytest.raises(RecordingError, match="the model is TorchScript"):
        lamina.sites(script, torch.ones(3, 2), sites="output")
    model = nn.Sequential(script, nn.Identity())
    with pytest.raises(RecordingError, match=r"the module of '0\.output' is TorchScript"):
        lamina.sites(model, torch.ones(3, 2), sites="*.output")
    assert recorded(tmp_path / "run", model, torch.ones(3, 2)).rows("output").gather([0]).tolist() == [[2, 2]]


def test_a_pass_of_another_recorder_is_none_of_the_step(tmp_path):
    """Probes, captures and surveys within a step leave it alone."""
    model, x, other = linear(), torch.randn(3, 2), torch.randn(3, 2)
    count = iter(range(9))

    def check() -> None:
        runs = [lamina.Run.create(tmp_path / f"{next(count)}") for _ in range(3)]
        with (
            lamina.record(model, runs[0], sites=["output", "output.grad"]) as first,
            lamina.record(model, runs[1], sites="output", probes={"probe": other}) as second,
        ):
            for step in range(2):
                with first.step(step, example=range(3)), second.step(step, example=range(3)):
                    model(x).sum().backward()
                    lamina.sites(model, other)
            with first.step(2, example=range(3)):
                lamina.capture(model, runs[2], other, sites="output", progress=False)
                model(x).sum().backward()
        one, two = (lamina.open(run.path) for run in runs[:2])
        assert one.activations().collect().select("step", "example").rows() == [
            (s, e) for s in range(3) for e in range(3)
        ]
        assert torch.equal(one.rows("output").gather(range(9)), 2 * x.repeat(3, 1))
        assert torch.equal(one.rows("output.grad").gather(range(9)), torch.ones(9, 2))
        assert torch.equal(two.rows("output", source="train").gather(range(6)), 2 * x.repeat(2, 1))
        assert torch.equal(two.rows("output", source="probe").gather(range(9)), 2 * other.repeat(3, 1))

    check()
    with broken("passes_are_seen_by_other_recorders"), pytest.raises((AssertionError, RecordingError)):
        check()
