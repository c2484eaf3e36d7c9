"""Which Polars type a column or a site has in the wide frame."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import polars as pl

COLUMN_TYPES: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "str": pl.String(),
    "time": pl.Datetime("us", "UTC"),
}
_ELEMENTS: dict[str, pl.DataType] = {
    "f64": pl.Float64(),
    "f32": pl.Float32(),
    "f16": pl.Float16(),
    "bf16": pl.Float32(),
    "f8_e4m3": pl.Float32(),
    "f8_e5m2": pl.Float32(),
    "i64": pl.Int64(),
    "i32": pl.Int32(),
    "i16": pl.Int16(),
    "i8": pl.Int8(),
    "u8": pl.UInt8(),
    "bool": pl.Boolean(),
}
_BITS: dict[str, pl.DataType] = {"bf16": pl.UInt16(), "f8_e4m3": pl.UInt8(), "f8_e5m2": pl.UInt8()}


def site_type(dtype: str, shape: Sequence[int], *, bits: bool = False) -> pl.DataType:
    """The column type of a site: item shapes are flattened, scalars stay scalars.

    Polars has neither bf16 nor f8: they widen to f32, or with `bits` are their bits as unsigned integers.
    """
    element = _BITS.get(dtype, _ELEMENTS[dtype]) if bits else _ELEMENTS[dtype]
    return pl.Array(element, prod(shape)) if shape else element


def row_bytes(kind: pl.DataType) -> int:
    """Bytes that a row of a site takes in a frame; as many where it has no value."""
    width, element = (kind.size, kind.inner) if isinstance(kind, pl.Array) else (1, kind)
    sizes = {"Float64": 8, "Int64": 8, "Float16": 2, "Int16": 2, "UInt16": 2, "Int8": 1, "UInt8": 1, "Boolean": 1}
    return width * sizes.get(str(element), 4)
