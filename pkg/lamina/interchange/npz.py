"""NumPy's `.npz`: an archive of arrays. Arrays of Python objects are refused, never unpickled."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from lamina.errors import DamagedError, SchemaError
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.blocks import tables_of
from lamina.interchange.choice import Choice, Names
from lamina.interchange.npy_header import ArrayHeader, array_header, dtype_name
from lamina.interchange.tensors import FileTensor, Tensor, cannot_read, numpy_dtype, prod
from lamina.paths import path_of

_ENCRYPTED = 1
"""The bit of a member's flags."""


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
    path = path_of(path)
    try:
        with zipfile.ZipFile(path) as archive:
            tensors, texts = _members(archive, path)
            tables = tables_of(tensors, Choice(sites, columns, example, position), path, texts=texts)
            return arrive(run, tables, step=step, source=source, what=path.name, progress=progress)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedError(f"no whole .npz file: {error}", str(path)) from error


def _members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
    tensors: dict[str, Tensor] = {}
    texts: dict[str, list[Any]] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if member.flag_bits & _ENCRYPTED:
            raise SchemaError(f"{name!r} is encrypted", str(path), hint="unpack the archive, and import its .npy files")
        with archive.open(member) as stream:
            header = array_header(stream, path, name)
            offset = stream.tell()
            if header.dtype.kind == "U" and len(header.shape) == 1:
                texts[name] = _texts(stream, header, member, path)
                continue
        dtype = dtype_name(header.dtype, path, name)
        whole = offset + prod(header.shape) * header.dtype.itemsize
        if whole != member.file_size:
            raise DamagedError(
                f"{name!r} of shape {list(header.shape)} takes {whole:,} bytes and has {member.file_size:,}", str(path)
            )
        tensors[name] = _MemberTensor(archive, member, path, name, dtype, header, offset)
    return tensors, texts


def _texts(stream: IO[bytes], header: ArrayHeader, member: zipfile.ZipInfo, path: Path) -> list[Any]:
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
        header: ArrayHeader,
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
        return values if self._header.dtype.isnative else values.byteswap(inplace=True)

    def _unpacked(self) -> FileTensor:
        if self._spooled is None:
            file = tempfile.NamedTemporaryFile(prefix="lamina-")  # noqa: SIM115 - it goes with this object
            try:
                with self._archive.open(self._member) as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
                file.flush()
            except (zlib.error, zipfile.BadZipFile, EOFError) as error:
                raise DamagedError(f"{self._name!r} is damaged: {error}", str(self._path)) from error
            swapped = not self._header.dtype.isnative
            tensor = FileTensor(Path(file.name), self._name, self.dtype, self.shape, self._offset, "F", swapped)
            self._spooled = (file, tensor)
        return self._spooled[1]
