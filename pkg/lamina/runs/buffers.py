"""Tensors and arrays as contiguous bytes with a dtype's name, and back."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.staging import LARGE, is_remote

if TYPE_CHECKING:
    import torch

    from lamina._core import Memory
    from lamina.runs.staging import Staging

NUMPY_DTYPES = {
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "i64": np.int64,
    "i32": np.int32,
    "i16": np.int16,
    "i8": np.int8,
    "u64": np.uint64,
    "u32": np.uint32,
    "u16": np.uint16,
    "u8": np.uint8,
    "bool": np.bool_,
    "c64": np.complex64,
    "c128": np.complex128,
}
_NAMES = {np.dtype(kind): name for name, kind in NUMPY_DTYPES.items()}
_TORCH_NAMES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f8_e4m3": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u64": "uint64",
    "u32": "uint32",
    "u16": "uint16",
    "u8": "uint8",
    "bool": "bool",
    "c64": "complex64",
    "c128": "complex128",
}


class Flat(NamedTuple):
    """A tensor's dtype name, shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    bytes: np.ndarray | Memory


class Lent(NamedTuple):
    """A tensor that fills memory of a pool, which the writer keeps until it is written, instead of a copy.

    Nobody writes to it any more: a change would be stored in part, with checksums that fit neither.
    """

    tensor: torch.Tensor
    memory: Memory


def dtype_name(dtype: np.dtype) -> str | None:
    """The name of a NumPy dtype in this machine's order of bytes; None if it has none on disk."""
    return _NAMES.get(dtype)


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, of Python, NumPy or torch, and no bool."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor; imports torch only if somebody already did."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name."""
    import torch

    return getattr(torch, _TORCH_NAMES[name])


@cache
def _names_of_torch() -> dict[torch.dtype, str]:
    import torch

    return {getattr(torch, kind): name for name, kind in _TORCH_NAMES.items()}


def name_of_torch(dtype: torch.dtype) -> str | None:
    """The name of a torch dtype; None if it has none on disk."""
    return _names_of_torch().get(dtype)


def flatten(value: Any, what: str, staging: Staging | None = None) -> Flat:
    """The value's bytes: a view where it is contiguous on the CPU, else one copy.

    Args:
        value: A torch tensor (any device, stride and dtype, with or without gradient) or a NumPy array.
        what: What it is, for errors.
        staging: Where a large copy goes, for a writer to keep.

    Raises:
        SchemaError: It is neither, or its dtype has no name on disk.
    """
    if type(value) is Lent:
        if (name := name_of_torch(value.tensor.dtype)) is not None:
            return Flat(name, tuple(value.tensor.shape), value.memory)
        value = value.tensor
    if is_tensor(value):
        return _flatten_tensor(value, what, staging)
    if not isinstance(value, np.ndarray | np.generic):
        raise SchemaError(f"{what} is a {type(value).__name__}", hint="give a torch tensor or a NumPy array")
    # between steps of a training the caches hold other things, and each further function costs tens of microseconds
    array = value if type(value) is np.ndarray else np.asarray(value)
    shape = array.shape
    if (name := _NAMES.get(array.dtype)) is None:
        if (name := _NAMES.get(array.dtype.newbyteorder("="))) is None:
            raise SchemaError(f"{what} has the dtype {array.dtype}", hint=f"known are {', '.join(NUMPY_DTYPES)}")
        if staging and array.nbytes >= LARGE:
            return Flat(name, shape, staging.of_array(array, array.dtype.newbyteorder("=")))
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.c_contiguous:
        if staging and array.nbytes >= LARGE:
            return Flat(name, shape, staging.of_array(array, array.dtype))
        array = np.ascontiguousarray(array)
    return Flat(name, shape, array.reshape(-1).view(np.uint8))


def _flatten_tensor(tensor: torch.Tensor, what: str, staging: Staging | None) -> Flat:
    # not imported: where there are many sites, each call that is none counts
    torch = sys.modules["torch"]
    if (name := name_of_torch(tensor.dtype)) is None:
        raise SchemaError(f"{what} has the dtype {tensor.dtype}", hint=f"known are {', '.join(_TORCH_NAMES)}")
    if tensor.layout != torch.strided:
        raise SchemaError(f"{what} has the layout {tensor.layout}", hint="call .to_dense() first")
    if tensor.device.type == "meta":
        raise SchemaError(f"{what} is on the device meta, where tensors have no values")
    if not tensor.numel():  # whose strides may be any
        return Flat(name, tuple(tensor.shape), np.empty(0, np.uint8))
    if not _is_plain(tensor):
        tensor = tensor.detach()
        as_it_lies = tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg()) and not is_remote(tensor)
        if staging and not as_it_lies and tensor.nbytes >= LARGE:
            return Flat(name, tuple(tensor.shape), staging.of_tensor(tensor))
        # contiguous first: a tensor on a GPU is then put in order there, and copied to this side once
        tensor = tensor.resolve_conj().resolve_neg().contiguous().cpu()
    if name in NUMPY_DTYPES:
        return Flat(name, tuple(tensor.shape), tensor.numpy().reshape(-1).view(np.uint8))
    return Flat(name, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy())


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether NumPy takes the tensor as it is: what a recorder captured is mostly so."""
    return (
        tensor.is_cpu
        and not is_remote(tensor)
        and tensor.is_contiguous()
        and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg())
        and type(tensor) is sys.modules["torch"].Tensor
    )


def empty_tensor(dtype: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, np.ndarray]:
    """An uninitialised CPU tensor and its bytes, to be filled."""
    import torch

    tensor = torch.empty(shape, dtype=torch_dtype(dtype))
    return tensor, tensor.reshape(-1).view(torch.uint8).numpy()
