from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lamina
from lamina import interchange
from lamina.errors import SchemaError, StorageError
from tests.interchange.planted import DTYPES, bits, held, same_bits


def test_every_dtype_comes_from_a_raw_file(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    for dtype in DTYPES:
        (tmp_path / "x.bin").write_bytes(b"head" + bits(dtype, (9, 4)).tobytes())
        interchange.from_memmap(
            run, tmp_path / "x.bin", site=dtype, shape=(-1, 4), dtype=dtype, offset=4, progress=False
        )
    for dtype in DTYPES:
        assert same_bits(held(run, dtype), bits(dtype, (9, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", torch.float8_e5m2, "f8_e4m3", ">f4", "float16", np.int8])
def test_dtypes_of_torch_and_numpy(tmp_path: Path, dtype: object) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(48))
    assert interchange.from_memmap(tmp_path / "run", tmp_path / "x.bin", shape=(-1, 4), dtype=dtype, progress=False) > 0


def test_big_endian_and_fortran_order(tmp_path: Path) -> None:
    values = bits("f32", (6, 4))
    (tmp_path / "x.bin").write_bytes(values.byteswap().tobytes("F"))
    interchange.from_memmap(tmp_path / "run", tmp_path / "x.bin", shape=(6, 4), dtype=">f4", order="F", progress=False)
    assert same_bits(held(lamina.open(tmp_path / "run"), "x"), values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (7, 2), "dtype": "f32"}, "takes 56 bytes, and the file has 48"),
        ({"shape": (5, 2), "dtype": "f32"}, "takes 40 bytes, and the file has 48"),
        ({"shape": (-1, 5), "dtype": "f32"}, "no multiple of 20"),
        ({"shape": (-1, -1), "dtype": "f32"}, r"shape=\(-1, -1\)"),
        ({"shape": (), "dtype": "f32"}, r"shape=\(\)"),
        ({"shape": (-1,), "dtype": "f33"}, "dtype='f33'"),
        ({"shape": (-1,), "dtype": "u2"}, "dtype='u2'"),
        ({"shape": (-1,), "dtype": object}, "dtype="),
        ({"shape": (-1,), "dtype": "f32", "offset": 100}, "offset=100, and the file has 48"),
    ],
)
def test_what_does_not_fit_says_so(tmp_path: Path, options: dict, message: str) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(48))
    with pytest.raises((SchemaError, StorageError), match=message):
        interchange.from_memmap(tmp_path / "run", tmp_path / "x.bin", **options)
    assert not (tmp_path / "run").exists()
