"""Tensors that lie in files and are read some rows at a time.

They are never mapped: a file that shrinks must not end the process, and mapped pages count as its memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from lamina.errors import DamagedError, SchemaError, StorageError
from lamina.runs.buffers import NUMPY_DTYPES, torch_dtype

BITS = {"bf16": np.dtype(np.uint16), "f8_e4m3": np.dtype(np.uint8), "f8_e5m2": np.dtype(np.uint8)}
"""Dtypes that NumPy does not know, and the integers that carry their bits."""

ROW_DTYPES = ("f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "i64", "i32", "i16", "i8", "u8", "bool")
"""What a row of a site may be made of."""

NAMES = {np.dtype(kind): name for name, kind in NUMPY_DTYPES.items()}


class Tensor(Protocol):
    """A tensor whose rows are read piece by piece, from the first to the last."""

    dtype: str
    shape: tuple[int, ...]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`; pieces are asked for in order, without gaps. bf16 and f8 come as their bits."""
        ...


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of that name; for bf16 and f8 that of their bits."""
    return BITS[name] if name in BITS else np.dtype(NUMPY_DTYPES[name])


def item_bytes(tensor: Tensor) -> int:
    """How many bytes one row of it takes."""
    return numpy_dtype(tensor.dtype).itemsize * int(np.prod(tensor.shape[1:], dtype=np.int64))


def as_stored(values: np.ndarray, dtype: str) -> Any:
    """An array, or for bf16 and f8 the torch tensor whose bits it holds: what a writer takes."""
    if dtype not in BITS:
        return values
    import torch

    values = np.require(values, requirements=("C", "W"))  # torch warns of memory that it may not write to
    return torch.from_numpy(values).view(torch_dtype(dtype))


def as_bits(values: Any) -> np.ndarray:
    """The other way: a torch tensor as an array, bf16 and f8 as their bits."""
    import torch

    if values.dtype == torch.bfloat16:
        return values.view(torch.uint16).numpy()
    if values.itemsize == 1 and values.is_floating_point():
        return values.view(torch.uint8).numpy()
    return values.numpy()


@dataclass
class FileTensor:
    """A tensor at a place of an uncompressed file.

    Attributes:
        path: The file.
        name: What the tensor is called, for errors.
        dtype: The dtype's name.
        shape: Its shape.
        offset: Where its first byte lies.
        order: "C" where the last axis varies fastest, "F" where the first does.
        swapped: Whether the bytes of its elements stand in big-endian order.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    order: Literal["C", "F"] = "C"
    swapped: bool = False

    def __post_init__(self) -> None:
        self._file: int | None = None
        self._kind = numpy_dtype(self.dtype)
        size, end = file_size(self.path), self.offset + self._kind.itemsize * prod(self.shape)
        if size < end:
            raise DamagedError(
                f"{self.name!r} of shape {list(self.shape)} and dtype {self.dtype} ends at byte {end:,}, "
                f"the file at byte {size:,}",
                str(self.path),
                size,
                hint="the file was cut short, or its shape or dtype is another",
            )

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, in native byte order."""
        shape = (stop - start, *self.shape[1:])
        size, items = self._kind.itemsize, prod(self.shape[1:])
        if self.order == "C" or items == 1:
            values = np.empty(shape, self._kind)
            self._fill(values, self.offset + start * items * size)
        else:
            values = np.empty(shape, self._kind, order="F")
            lines = values.reshape(shape[0], items, order="F").T  # an element of the item a line, in the file's order
            for number, line in enumerate(lines):
                self._fill(line, self.offset + (number * self.shape[0] + start) * size)
        return values.byteswap(inplace=True) if self.swapped else values

    def _fill(self, values: np.ndarray, offset: int) -> None:
        left = values.reshape(-1).view(np.uint8).data
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            while left:
                count = os.preadv(self._file, [left], offset)
                if not count:
                    raise DamagedError(f"{self.name!r} ends too early: the file has shrunk", str(self.path), offset)
                left, offset = left[count:], offset + count
        except OSError as error:
            raise cannot_read(self.path, error) from error


def prod(shape: tuple[int, ...]) -> int:
    """The product, in integers without end: a hostile shape must not wrap around."""
    result = 1
    for length in shape:
        result *= length
    return result


def file_size(path: Path) -> int:
    """The length of a file; StorageError where there is none."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: OSError) -> StorageError:
    """The error for what the file system refused."""
    return StorageError(f"cannot read {path}: {error.strerror or error}", str(path))


def check_row_dtype(dtype: str, what: str, path: Path) -> None:
    """Raise SchemaError for a dtype that rows cannot have."""
    if dtype not in ROW_DTYPES:
        raise SchemaError(
            f"{what} has the dtype {dtype}, which rows cannot have",
            str(path),
            hint=f"convert it to one of {', '.join(ROW_DTYPES)}, or leave it out with sites=",
        )
