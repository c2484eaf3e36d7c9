"""NumPy's `.npy`: one array. Arrays of Python objects are refused, never unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.errors import SchemaError
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.blocks import table_of
from lamina.interchange.given import given_columns
from lamina.interchange.npy_header import array_header, dtype_name
from lamina.interchange.tensors import FileTensor, cannot_read, check_row_dtype
from lamina.paths import path_of


def from_npy(
    run: Target,
    path: str | Path,
    *,
    site: str | None = None,
    columns: Mapping[str, Any] | None = None,
    step: int = 0,
    source: str | None = "capture",
    progress: bool = True,
) -> int:
    """Imports the array of a `.npy` file as a site.

    Args:
        run: A run, or a path; where there is nothing yet a run appears when all rows are in it.
        path: The file: [n] (scalars), [n, d], [n, T, d] (n * T rows, with `position` filled), or [n, …] (rows with an
            item shape); of any byte order and of C or Fortran order.
        site: The site's name; by default the file's without its ending.
        columns: Metadata by name: arrays or lists of n entries, or [n, T]; also values that hold for all rows. Without
            `example` each of the n rows counts as an example of its own, numbered behind those in the run.
        step: The step of the rows, if no column `step` says it.
        source: Their source, if no column `source` says it; None for none.
        progress: False shows no bar.

    Returns:
        The number of rows.

    Raises:
        SchemaError: An array of objects or of a dtype that rows cannot have, or columns that do not fit.
        DamagedError: The file is cut short, or no `.npy` file.

    Cost:
        One pass over the file, in blocks of 16 MiB.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> np.save(folder + "/mlp.npy", np.ones((1000, 64), np.float16))
        >>> lamina.interchange.from_npy(folder + "/run", folder + "/mlp.npy", site="mlp.output", step=10)
        1000
        >>> lamina.open(folder + "/run").rows("mlp.output", step=10).shape
        (1000, 64)
    """
    path = path_of(path)
    tensor = npy_tensor(path)
    name = site or path.stem
    check_row_dtype(tensor.dtype, repr(path.name), path)
    if not tensor.shape:
        raise SchemaError("the array is a single number and has no rows", str(path))
    table = table_of(tensor.shape[0], {name: tensor}, *given_columns(columns, tensor.shape[0]))
    return arrive(run, [table], step=step, source=source, what=path.name, progress=progress)


def npy_tensor(path: Path) -> FileTensor:
    """The array of a `.npy` file."""
    try:
        with path.open("rb") as file:
            header = array_header(file, path, path.name)
            offset = file.tell()
    except OSError as error:
        raise cannot_read(path, error) from error
    name = dtype_name(header.dtype, path, path.name)
    return FileTensor(path, path.name, name, header.shape, offset, header.order, not header.dtype.isnative)
