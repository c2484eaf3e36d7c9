"""NumPy's `.npy` and `.npz`. Arrays of Python objects are refused, never unpickled."""

from __future__ import annotations

import ast
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from lamina.errors import DamagedError, SchemaError
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.blocks import table_of, tables_of
from lamina.interchange.choice import Choice, Names
from lamina.interchange.given import given_columns
from lamina.interchange.tensors import (
    NAMES,
    FileTensor,
    Tensor,
    cannot_read,
    check_row_dtype,
    numpy_dtype,
    prod,
)

_LONGEST_HEADER = 10_000


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
    path = Path(path)
    tensor = npy_tensor(path)
    name = site or path.stem
    check_row_dtype(tensor.dtype, repr(path.name), path)
    if not tensor.shape:
        raise SchemaError("the array is a single number and has no rows", str(path))
    table = table_of(tensor.shape[0], {name: tensor}, *given_columns(columns, tensor.shape[0]))
    return arrive(run, [table], step=step, source=source, what=path.name, progress=progress)


def from_npz(
    run: Target,
    path: str | Path,
    *,
    sites: Names = None,
    columns: Names = None,
    example: str | None = None,
    position: str | None = None,
    step: int = 0,
    source: str | None = "capture",
    progress: bool = True,
) -> int:
    """Imports the arrays of a `.npz` file, compressed or not, as sites and metadata columns.

    Arrays of the same length share their rows.

    Args:
        run: As in `from_npy`.
        path: The file.
        sites: Which arrays are sites: globs, or a mapping from their names to those of the sites; by default all that
            are no columns.
        columns: Which are columns, likewise; by default those that are called `step`, `example`, `position`, `call`,
            `micro`, `source` or `rank`, and those of texts.
        example: The name of the array that says which example a row is of, if it is not called so.
        position: The name of the one that says at which position.
        step: As in `from_npy`.
        source: As in `from_npy`.
        progress: As in `from_npy`.

    Returns:
        The number of rows.

    Raises:
        NotFoundError: There is no array of a name that was given; the hint lists the nearest.
        SchemaError: As in `from_npy`.
        DamagedError: The file is cut short, its checksums do not match, or it is no `.npz` file.

    Cost:
        One pass. Arrays in Fortran order are first unpacked into a temporary file.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> np.savez(folder + "/a.npz", mlp=np.ones((4, 2)), label=np.array(["a", "b", "a", "b"]))
        >>> lamina.interchange.from_npz(folder + "/run", folder + "/a.npz")
        4
        >>> lamina.open(folder + "/run").rows("mlp").metadata(["label"])["label"].to_list()
        ['a', 'b', 'a', 'b']
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            tensors, texts = _members(archive, path)
            tables = tables_of(tensors, Choice(sites, columns, example, position), path, texts=texts)
            return arrive(run, tables, step=step, source=source, what=path.name, progress=progress)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedError(f"no whole .npz file: {error}", str(path)) from error


class _Header(NamedTuple):
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]


def npy_tensor(path: Path) -> FileTensor:
    """The array of a `.npy` file."""
    try:
        with path.open("rb") as file:
            header = _header(file, path, path.name)
            offset = file.tell()
    except OSError as error:
        raise cannot_read(path, error) from error
    name = _name(header.dtype, path, path.name)
    return FileTensor(path, path.name, name, header.shape, offset, header.order, _swapped(header.dtype))


def _header(file: IO[bytes], path: Path, name: str) -> _Header:
    try:
        version = np.lib.format.read_magic(file)
        width = 2 if version[0] == 1 else 4
        length = int.from_bytes(file.read(width), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header takes {length:,} bytes")
        text = file.read(length).decode("latin1" if version[0] < 3 else "utf-8")
        header = ast.literal_eval(text.strip())
        shape, fortran, dtype = header["shape"], header["fortran_order"], np.lib.format.descr_to_dtype(header["descr"])
        if not all(type(number) is int and number >= 0 for number in shape):
            raise ValueError(f"its shape is {shape}")
    except (ValueError, KeyError, IndexError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "from_npz reads archives" if path.suffix == ".npz" and name == path.name else None
        raise DamagedError(f"{name!r} is no .npy array: {why}", str(path), hint=hint) from error
    return _Header(tuple(shape), "F" if fortran else "C", dtype)


def _name(dtype: np.dtype[Any], path: Path, name: str) -> str:
    if dtype.hasobject:
        raise SchemaError(
            f"{name!r} holds Python objects, which Lamina never unpickles",
            str(path),
            hint="save numbers: if the rows differ in length, pad them, or save one array of all rows",
        )
    if (known := NAMES.get(dtype.newbyteorder("="))) is None:
        what = "fields" if dtype.fields else f"the dtype {dtype}"
        raise SchemaError(f"{name!r} has {what}", str(path), hint="save arrays of plain numbers")
    return known


def _swapped(dtype: np.dtype[Any]) -> bool:
    return not dtype.isnative


def _members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
    tensors: dict[str, Tensor] = {}
    texts: dict[str, list[Any]] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as stream:
            header = _header(stream, path, name)
            offset = stream.tell()
            if header.dtype.kind == "U" and len(header.shape) == 1:
                texts[name] = _texts(stream, header, member, path)
                continue
        dtype = _name(header.dtype, path, name)
        whole = offset + prod(header.shape) * header.dtype.itemsize
        if whole != member.file_size:
            raise DamagedError(
                f"{name!r} of shape {list(header.shape)} takes {whole:,} bytes and has {member.file_size:,}", str(path)
            )
        tensors[name] = _MemberTensor(archive, member, path, name, dtype, header, offset)
    return tensors, texts


def _texts(stream: IO[bytes], header: _Header, member: zipfile.ZipInfo, path: Path) -> list[Any]:
    size = prod(header.shape) * header.dtype.itemsize
    if size > member.file_size:
        raise DamagedError(f"{member.filename!r} is cut short", str(path))
    data = stream.read(size)
    if len(data) != size:
        raise DamagedError(f"{member.filename!r} is cut short", str(path))
    return np.frombuffer(data, header.dtype).tolist()


class _MemberTensor:
    """An array in an archive, read as a stream."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        member: zipfile.ZipInfo,
        path: Path,
        name: str,
        dtype: str,
        header: _Header,
        offset: int,
    ) -> None:
        self.dtype = dtype
        self.shape = header.shape
        self._rows = (*header.shape, 0)[0]
        self._archive = archive
        self._member = member
        self._path = path
        self._name = name
        self._header = header
        self._offset = offset
        self._stream: IO[bytes] | None = None
        self._spooled: tuple[IO[bytes], FileTensor] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._header.order == "F" and len(self.shape) > 1:
            return self._unpacked().read(start, stop)
        if self._stream is None:
            self._stream = self._archive.open(self._member)
            self._stream.read(self._offset)
        values = np.empty((stop - start, *self.shape[1:]), numpy_dtype(self.dtype))
        left = values.reshape(-1).view(np.uint8).data
        try:
            while left:
                data = self._stream.read(min(len(left), 1 << 20))
                if not data:
                    raise DamagedError(f"{self._name!r} ends too early", str(self._path))
                left[: len(data)] = data
                left = left[len(data) :]
            if stop == self._rows:
                self._stream.read()  # whatever is left makes the checksum be compared
        except (zlib.error, zipfile.BadZipFile, EOFError) as error:
            raise DamagedError(f"{self._name!r} is damaged: {error}", str(self._path)) from error
        return values.byteswap(inplace=True) if _swapped(self._header.dtype) else values

    def _unpacked(self) -> FileTensor:
        if self._spooled is None:
            file = tempfile.NamedTemporaryFile(prefix="lamina-")  # noqa: SIM115 - it goes with this object
            try:
                with self._archive.open(self._member) as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
                file.flush()
            except (zlib.error, zipfile.BadZipFile, EOFError) as error:
                raise DamagedError(f"{self._name!r} is damaged: {error}", str(self._path)) from error
            swapped = _swapped(self._header.dtype)
            tensor = FileTensor(Path(file.name), self._name, self.dtype, self.shape, self._offset, "F", swapped)
            self._spooled = (file, tensor)
        return self._spooled[1]
