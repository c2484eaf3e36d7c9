"""A tensor's bytes through ZipNN, on one thread. Runs in the peers' environment: no Lamina."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from zipnn import ZipNN  # pyright: ignore[reportMissingImports]

Ready = Callable[[], dict[str, np.ndarray]]


def _coder(dtype: str) -> ZipNN:
    return ZipNN(method="huffman", input_format="byte", bytearray_dtype=dtype, threads=1)


def size(data: np.ndarray, *, dtype: str, device: str) -> Ready:
    """Bytes that it leaves, and whether all return."""
    assert device == "cpu"
    # It changes the bytes that it is given.
    coded = _coder(dtype).compress(bytearray(data.tobytes()))
    back = np.frombuffer(_coder(dtype).decompress(coded), np.uint8)
    return lambda: {"bytes": np.array(len(coded)), "same": np.array(np.array_equal(back, data.view(np.uint8)))}


def encode(data: np.ndarray, *, dtype: str, device: str) -> Ready:
    """Compress a copy, which is part of its cost: it changes the bytes that it is given."""
    assert device == "cpu"
    coder, scratch = _coder(dtype), bytearray(data.nbytes)

    def call() -> dict[str, np.ndarray]:
        scratch[:] = data.data.cast("B")
        coder.compress(scratch)
        return {}

    return call


def decode(data: np.ndarray, *, dtype: str, device: str) -> Ready:
    """Decompress."""
    assert device == "cpu"
    coder = _coder(dtype)
    coded = coder.compress(bytearray(data.tobytes()))

    def call() -> dict[str, np.ndarray]:
        coder.decompress(coded)
        return {}

    return call
