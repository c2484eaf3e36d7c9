"""Raw files of numbers, whose shape and dtype somebody has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lamina.errors import SchemaError
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.blocks import table_of
from lamina.interchange.given import given_columns
from lamina.interchange.tensors import NAMES, ROW_DTYPES, FileTensor, file_size, numpy_dtype, prod
from lamina.paths import path_of


def from_memmap(
    run: Target,
    path: str | Path,
    *,
    shape: Sequence[int],
    dtype: Any,
    site: str | None = None,
    offset: int = 0,
    order: Literal["C", "F"] = "C",
    columns: Mapping[str, Any] | None = None,
    step: int = 0,
    source: str | None = "capture",
    progress: bool = True,
) -> int:
    """Imports a raw file, such as `numpy.memmap` or `ndarray.tofile` leave, as a site.

    Args:
        run: As in `from_npy`.
        path: The file.
        shape: Of the array, as in `from_npy`; one length may be -1, and follows from the size of the file.
        dtype: A dtype of Lamina's (`"bf16"`, `"f8_e4m3"`, `"f32"`, …), of NumPy's (`">f4"`) or of torch's.
        site: As in `from_npy`.
        offset: Where the first byte of the array lies.
        order: "F" if the first axis varies fastest.
        columns: As in `from_npy`.
        step: As in `from_npy`.
        source: As in `from_npy`.
        progress: As in `from_npy`.

    Returns:
        The number of rows.

    Raises:
        SchemaError: The shape or dtype does not fit the size of the file, or rows cannot have it.
        StorageError: There is no such file.

    Cost:
        One pass over the file, in blocks of 16 MiB.

    Example:
        >>> import lamina, tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> written = torch.ones(100, 8, dtype=torch.bfloat16).view(torch.uint16).numpy().tofile(folder + "/a.bin")
        >>> lamina.interchange.from_memmap(folder + "/run", folder + "/a.bin", shape=(-1, 8), dtype="bf16")
        100
        >>> lamina.open(folder + "/run").rows("a").dtype
        torch.bfloat16
    """
    path = path_of(path)
    name, swapped = _dtype(dtype)
    size = file_size(path) - offset
    if offset < 0 or size < 0:
        raise SchemaError(f"offset={offset}, and the file has {size + offset:,} bytes", str(path))
    whole = _whole(tuple(shape), size, numpy_dtype(name).itemsize, path)
    if (needed := prod(whole) * numpy_dtype(name).itemsize) != size:
        raise SchemaError(
            f"{list(whole)} of {name} takes {needed:,} bytes, and the file has {size:,}",
            str(path),
            hint="give the shape and dtype that it was written with",
        )
    tensor = FileTensor(path, site or path.stem, name, whole, offset, order, swapped)
    table = table_of(whole[0], {site or path.stem: tensor}, *given_columns(columns, whole[0]))
    return arrive(run, [table], step=step, source=source, what=path.name, progress=progress)


def _dtype(dtype: Any) -> tuple[str, bool]:
    """The dtype's name, and whether its bytes are in the other order."""
    if isinstance(dtype, str) and dtype in ROW_DTYPES:
        return dtype, False
    text = str(dtype).removeprefix("torch.")
    torch_names = {"bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3", "float8_e5m2": "f8_e5m2"}
    if text in torch_names:
        return torch_names[text], False
    try:
        known = np.dtype(text if str(dtype).startswith("torch.") else dtype)
    except TypeError:
        known = None
    name = None if known is None else NAMES.get(known.newbyteorder("="))
    if known is None or name not in ROW_DTYPES:
        raise SchemaError(f"dtype={dtype!r}", hint=f"give one of {', '.join(ROW_DTYPES)}")
    return name, not known.isnative


def _whole(shape: tuple[int, ...], size: int, item: int, path: Path) -> tuple[int, ...]:
    """The shape with the length that -1 stands for."""
    if not shape or any(length < -1 for length in shape) or shape.count(-1) > 1:
        raise SchemaError(f"shape={shape!r}", hint="give lengths, of which one may be -1")
    if -1 not in shape:
        return shape
    rest = item * prod(tuple(length for length in shape if length != -1))
    if rest == 0 or size % rest:
        raise SchemaError(
            f"the file has {size:,} bytes, which is no multiple of {rest:,}",
            str(path),
            hint="give the shape and dtype that it was written with",
        )
    return tuple(size // rest if length == -1 else length for length in shape)
