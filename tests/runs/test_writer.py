"""Writing by hand: every dtype bit for bit, every shape, and what is refused."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors
import torch

import lamina
from lamina.errors import SchemaError, WriterError

DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
]


def random_bits(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Any bits at all: NaN payloads, infinities, subnormal numbers."""
    generator = torch.Generator().manual_seed(0)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    size = torch.empty((), dtype=dtype).element_size()
    data = torch.randint(0, 256, (*shape[:-1], shape[-1] * size), generator=generator, dtype=torch.uint8)
    return data.view(dtype)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
    )


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back_bit_for_bit_also_through_safetensors(run: lamina.Run, name: str) -> None:
    x = random_bits(getattr(torch, name), (37, 24))
    with run.writer() as writer:
        writer.append({"x": x}, step=0)
    run.refresh()
    assert same_bits(run.rows("x").gather(range(37)), x)
    with safetensors.safe_open(next(run.path.glob("segments/*")), "pt") as file:
        assert same_bits(file.get_tensor("g000000/x"), x)
    values = run.activations("x").collect()["x"].to_numpy()
    wide = {"bfloat16": torch.float32, "float8_e4m3fn": torch.float32, "float8_e5m2": torch.float32}.get(name, x.dtype)
    np.testing.assert_array_equal(values, x.to(wide).numpy(), strict=True)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64", "float8_e5m2", "float8_e4m3fn"])
def test_values_that_are_not_finite_are_kept_and_counted(run: lamina.Run, name: str) -> None:
    x = torch.tensor([[1.0, float("nan")], [float("inf"), -2.0]]).to(getattr(torch, name))
    with run.writer() as writer:
        writer.append({"x": x}, step=0)
    # e4m3 has no infinity: torch stores its greatest value
    assert run.refresh().sites()["non_finite"].item() == (1 if name == "float8_e4m3fn" else 2)
    assert same_bits(run.rows("x").gather([0, 1]), x)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(4, 6).T,
        torch.arange(48.0).reshape(6, 8)[:, ::2],
        torch.arange(24.0).reshape(6, 4).requires_grad_(),
        torch.arange(4.0).expand(6, 4),
        torch.arange(24.0).reshape(6, 4).flip(0),
        np.asfortranarray(np.arange(24.0).reshape(6, 4)),
        np.arange(24, dtype=">f8").reshape(6, 4),
        torch.nn.Parameter(torch.ones(6, 4)),
    ],
)
def test_any_stride_and_owner(run: lamina.Run, tensor: Any) -> None:
    with run.writer() as writer:
        writer.append({"x": tensor}, step=0)
    expected = tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else tensor
    np.testing.assert_array_equal(run.refresh().rows("x").gather(range(6)).numpy(), expected)


def test_the_axes_of_a_tensor_become_rows(run: lamina.Run) -> None:
    with run.writer() as writer:
        sites = {
            "scalar": np.arange(2.0),
            "vector": np.ones((2, 5)),
            "tokens": np.arange(24.0).reshape(2, 3, 4),
            "image": np.ones((2, 3, 4, 4)),
        }
        writer.append(sites, step=0, example=[7, 8], mask=[[True, True, False], [True, False, False]])
    run.refresh()
    shapes = dict(run.sites().select("site", "shape").rows())
    assert shapes == {"scalar": [], "vector": [5], "tokens": [4], "image": [3, 4, 4]}
    tokens = run.activations("tokens").collect()
    assert tokens.select("example", "position").rows() == [(7, 0), (7, 1), (8, 0)]
    assert tokens["tokens"].to_list() == [[0, 1, 2, 3], [4, 5, 6, 7], [12, 13, 14, 15]]
    others = run.activations(["scalar", "vector", "image"]).collect()
    assert others["example"].to_list() == [7, 8], "a mask over positions is none of examples"
    assert others["scalar"].to_list() == [0.0, 1.0]
    assert others.schema["image"] == pl.Array(pl.Float64, 48)


def test_metadata_of_every_type_with_nulls_and_constants(run: lamina.Run) -> None:
    columns = {
        "integer": [1, None, 3],
        "float": torch.tensor([0.5, float("nan"), -0.0]),
        "text": ["é", None, ""],
        "flag": np.array([True, False, True]),
        "one_text": "same",
        "one_float": 2.5,
        "small": np.array([1, 2, 3], np.uint8),
    }
    with run.writer() as writer:
        writer.append({"x": np.ones((3, 1))}, step=0, **columns)
        writer.append({"x": np.ones((2, 1))}, step=1)
    found = run.refresh().activations("x").drop("row", "step", "x").collect()
    assert found[:3].to_dict(as_series=False) | {"float": None} == {
        "integer": [1, None, 3],
        "float": None,
        "text": ["é", None, ""],
        "flag": [True, False, True],
        "one_text": ["same"] * 3,
        "one_float": [2.5] * 3,
        "small": [1, 2, 3],
    }
    assert found["float"][:3].to_numpy().tobytes() == np.array([0.5, float("nan"), -0.0]).tobytes()
    assert found[3:].null_count().sum_horizontal().item() == 2 * len(columns), "absent is null"


ONES = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("sites", "columns", "says"),
    [
        (
            {"x": np.ones((3, 4), np.float32)},
            {},
            r"'x' holds f32 \[2\], now given f32 \[4\]|\"x\" holds f32 \[2\], now given f32 \[4\]",
        ),
        ({"x": np.ones((3, 2), np.float64)}, {}, r"holds f32 \[2\], now given f64 \[2\]"),
        ({"x": ONES}, {"example": ["a", "b", "c"]}, 'column "example" holds int, now given str'),
        ({"x": ONES}, {"label": [1, 2]}, "'label' has the shape \\[2\\], the sites have rows \\[3\\]"),
        ({"x": ONES}, {"label": [[1, 2], [3]]}, "'label'|different lengths"),
        ({"x": ONES}, {"row": 1}, "'step' is given beside row="),
        ({"x": ONES}, {"x": 1}, "given twice"),
        ({"step": ONES}, {}, "given twice"),
        ({"example": ONES}, {}, "reserved"),
        ({"": ONES}, {}, "empty"),
        ({"y": np.ones((3, 0), np.float32)}, {}, "no elements"),
        ({"y": np.float32(1)}, {}, "no rows"),
        ({"y": [1.0, 2.0]}, {}, "is a list"),
        ({"y": np.array(["a"])}, {}, "dtype"),
        ({"y": torch.ones(2, dtype=torch.complex64)}, {}, "c64"),
        ({}, {}, "at least one site"),
        ({"x": ONES}, {"label": [1, "a", 2]}, "mixes int, str"),
        ({"x": ONES}, {"label": object()}, "object"),
        ({"x": ONES}, {"label": [2**63, 1, 1]}, "63 bits"),
        ({"x": ONES}, {"label": None}, "None"),
    ],
)
def test_bad_input_is_named_and_loses_nothing(run: lamina.Run, sites: Any, columns: Any, says: str) -> None:
    with run.writer() as writer:
        writer.append({"x": ONES}, step=0, example=[0, 1, 2])
        with pytest.raises(SchemaError, match=says):
            writer.append(sites, step=1, **columns)
        writer.append({"x": ONES}, step=2, example=[0, 1, 2])
    assert run.refresh().activations("x").collect()["step"].to_list() == [0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize("step", [None, 1.5, "3", True])
def test_a_step_is_an_integer(run: lamina.Run, step: Any) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match="step"):
        writer.append({"x": ONES}, step=step)


def test_zero_rows_declare_the_site_and_nothing_else(run: lamina.Run) -> None:
    with run.writer() as writer:
        assert writer.append({"x": np.ones((0, 3), np.float32)}, step=0, example=[]).wait()
    run.refresh()
    assert run.sites().select("site", "shape", "rows").rows() == [("x", [3], 0)]
    assert run.activations("x").collect().shape == (0, 3)
    assert run.rows("x").shape == (0, 3)


def test_a_ticket_tells_staged_from_durable(run: lamina.Run) -> None:
    with run.writer() as writer:
        ticket = writer.append({"x": ONES}, step=0)
        assert ticket.state in ("staged", "written", "durable")
        assert ticket.wait(timeout=20)
        assert ticket.state == "durable"
        assert ticket.error is None
        assert run.refresh().sites()["rows"].item() == 3, "durable rows are seen before the writer closes"


def test_values_change_after_the_append_and_the_old_ones_are_stored(run: lamina.Run) -> None:
    x = torch.zeros(3, 2)
    with run.writer() as writer:
        writer.append({"x": x}, step=0)
        writer.save({"model": {"x": x}}, step=0)
        x.fill_(7)
    assert run.refresh().rows("x").gather(range(3)).sum() == 0
    assert run.load(0)["x"].sum() == 0


def test_a_closed_writer_refuses(run: lamina.Run) -> None:
    writer = run.writer()
    writer.close()
    writer.close()
    with pytest.raises(WriterError, match="closed"):
        writer.append({"x": ONES}, step=0)
    with pytest.raises(WriterError, match="closed"):
        writer.log({"loss": 1.0}, step=0)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_writer_from_before_a_fork_refuses(run: lamina.Run) -> None:
    with run.writer() as writer:
        child = os.fork()
        if child == 0:
            try:
                writer.append({"x": ONES}, step=0)
            except WriterError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_rank_is_a_column_of_rows_and_metrics(run: lamina.Run) -> None:
    with run.writer(rank=3) as writer:
        writer.append({"x": ONES}, step=0)
        writer.log({"loss": 1}, step=0)
    assert run.refresh().activations().collect()["rank"].to_list() == [3, 3, 3]
    assert run.metrics().collect()["rank"].to_list() == [3]
