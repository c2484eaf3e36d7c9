"""The wide frame shows values as they were recorded: what Polars has no type for widens exactly, or is its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina

torch = pytest.importorskip("torch")

ENGINES: list[Any] = ["in-memory", "streaming"]
EIGHT = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def patterns(dtype: Any) -> Any:
    """Every bit pattern of a dtype of two bytes or one, 16 a row."""
    if dtype.itemsize == 2:
        return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).reshape(-1, 16)
    return torch.arange(256, dtype=torch.int16).to(torch.uint8).view(dtype).reshape(-1, 16)


def recorded(run: lamina.Run, tensor: Any) -> lamina.Run:
    with run.writer() as writer:
        writer.append({"x": tensor, "scalar": tensor.reshape(-1)[: len(tensor)]}, step=0)
        writer.append({"other": np.zeros(1)}, step=1)
    return run.refresh()


@pytest.mark.parametrize("engine", ENGINES)
def test_all_patterns_of_bf16_widen_to_the_bits_that_torch_widens_them_to(run: lamina.Run, engine: Any) -> None:
    tensor = patterns(torch.bfloat16)
    frame = recorded(run, tensor).activations().collect(engine=engine)
    assert frame.schema["x"] == pl.Array(pl.Float32, 16)
    truth = tensor.float().numpy().view(np.uint32)
    assert np.array_equal(frame["x"].drop_nulls().to_numpy().view(np.uint32), truth)
    assert np.array_equal(frame["scalar"].drop_nulls().to_numpy().view(np.uint32), truth.reshape(-1)[: len(tensor)])


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize("engine", ENGINES)
def test_all_patterns_of_8_bit_floats_widen_to_their_values(run: lamina.Run, kind: str, engine: Any) -> None:
    tensor = patterns(EIGHT[kind])
    found = recorded(run, tensor).activations("x").collect(engine=engine)["x"].to_numpy()
    truth = tensor.float().numpy()
    assert np.array_equal(found, truth, equal_nan=True)
    numbers = ~np.isnan(truth)
    assert np.array_equal(np.signbit(found)[numbers], np.signbit(truth)[numbers]), "zeros keep their signs"


@pytest.mark.parametrize(
    ("dtype", "element"), [(torch.bfloat16, pl.UInt16), (EIGHT["e4m3"], pl.UInt8), (EIGHT["e5m2"], pl.UInt8)]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_bits_are_the_raw_bits(run: lamina.Run, dtype: Any, element: Any, engine: Any) -> None:
    tensor = patterns(dtype)
    lazy = recorded(run, tensor).activations(bits=True)
    assert lazy.collect_schema()["x"] == pl.Array(element, 16)
    assert lazy.collect_schema()["scalar"] == element
    frame = lazy.collect(engine=engine)
    raw = tensor.view(torch.uint16 if element == pl.UInt16 else torch.uint8).numpy()
    assert np.array_equal(frame["x"].drop_nulls().to_numpy(), raw)
    assert np.array_equal(frame["scalar"].drop_nulls().to_numpy(), raw.reshape(-1)[: len(tensor)])
    some = lazy.filter(pl.col("x").arr.get(1) == 17).collect(engine=engine)
    assert some["x"].to_numpy().tolist() == raw[raw[:, 1] == 17].tolist()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_what_polars_has_a_type_for_keeps_it(run: lamina.Run, dtype: str) -> None:
    values = np.array([[0, 1, 2], [3, 100, 0]]).astype(dtype)
    frame = recorded(run, values).activations(bits=True).collect()
    assert frame["x"].drop_nulls().to_numpy().dtype == dtype
    assert np.array_equal(frame["x"].drop_nulls().to_numpy(), values)
    assert frame["scalar"].to_list() == [*values.reshape(-1)[:2].tolist(), None]
