"""Folders that `torch.distributed.checkpoint` writes: what they hold, and how one is filled from a run."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import WriteItem

from lamina.distributed.leaves import Leaves, Stored
from lamina.errors import DamagedError, SchemaError, StorageError

_METADATA = ".metadata"
_OWN = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "collections": {"OrderedDict"},
}
"""What a folder's metadata is made of."""


class _Unpickler(pickle.Unpickler):
    """Takes the classes of metadata and dtypes, and nothing that could do anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _OWN.get(module, ()) or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        if module in ("pathlib", "pathlib._local") and name.endswith("Path"):
            return PurePath  # where it was saved, which is of no use here
        raise pickle.UnpicklingError(f"it names {module}.{name}")


class Folder:
    """A folder of DCP.

    Raises:
        StorageError: There is none.
        DamagedError: Its metadata is none, or asks for what metadata does not need.
        SchemaError: It was written in a way that Lamina does not read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        file = path / _METADATA
        try:
            with file.open("rb") as stream:
                self.metadata: Metadata = _Unpickler(stream).load()
        except OSError as error:
            text = f"{path} is no folder of torch.distributed.checkpoint: {error.strerror}"
            raise StorageError(text, str(file)) from error
        except Exception as error:
            # a pickle that is cut or made up fails in any way
            raise DamagedError(f"the metadata is not understood: {error}", str(file)) from error
        if not isinstance(self.metadata, Metadata) or not isinstance(self.metadata.storage_data, dict):
            raise DamagedError("the metadata is not understood", str(file))

    def indices(self) -> list[MetadataIndex]:
        """Every shard and object, file after file."""
        places = self.metadata.storage_data
        return sorted(places, key=lambda index: (places[index].relative_path, places[index].offset))

    def size_of(self, index: MetadataIndex) -> int:
        """The bytes of a shard or an object, as the metadata says: 0 where that is no number."""
        length = getattr(self.metadata.storage_data[index], "length", None)
        return length if isinstance(length, int) else 0

    def bytes_of(self, index: MetadataIndex) -> bytes:
        """A shard or an object as it was saved."""
        info = self.metadata.storage_data[index]
        if getattr(info, "transform_descriptors", None):
            raise SchemaError(f"{index.fqn!r} was saved through {info.transform_descriptors}", str(self._path))
        file = (self._path / info.relative_path).resolve()
        if file.parent != self._path.resolve():
            raise DamagedError(f"the metadata names a file elsewhere: {info.relative_path!r}", str(self._path))
        try:
            with file.open("rb") as stream:
                stream.seek(info.offset)
                return stream.read(info.length)
        except (OSError, ValueError, TypeError) as error:
            raise DamagedError(f"{index.fqn!r} cannot be read: {error}", str(file)) from error

    def tensor(self, index: MetadataIndex) -> torch.Tensor:
        """A shard."""
        data = self.bytes_of(index)
        try:
            tensor = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except Exception as error:
            name = self.metadata.storage_data[index].relative_path
            raise DamagedError(f"a shard of {index.fqn!r} is not understood: {error}", name) from error
        if not isinstance(tensor, torch.Tensor):
            raise DamagedError(f"{index.fqn!r} is a {type(tensor).__name__}", str(self._path))
        return tensor


class LeavesPlanner(DefaultSavePlanner):
    """Saves a checkpoint of a run; a tensor is read when its turn comes.

    Args:
        leaves: The checkpoint.
        show: Called with the bytes of tensors that were read, and with those in all.
    """

    def __init__(self, leaves: Leaves, show: Callable[[int, int], None]) -> None:
        super().__init__()
        self._leaves, self._show, self._read = leaves, show, 0
        stored = (leaf for leaf in leaves.leaves.values() if isinstance(leaf, Stored))
        self._total = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in stored)

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        """Take the leaves for the state, tensors with a shape and no memory."""
        self.state_dict = {
            name: torch.empty(1, dtype=leaf.dtype).as_strided(leaf.shape, [0] * len(leaf.shape))
            if isinstance(leaf, Stored)
            else leaf
            for name, leaf in self._leaves.leaves.items()
        }
        self.mappings, self.is_coordinator = self._leaves.paths, is_coordinator

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        """Read a tensor."""
        leaf = self._leaves.leaves[write_item.index.fqn]
        if not isinstance(leaf, Stored):
            return super().resolve_data(write_item)
        read = torch.empty(leaf.shape, dtype=leaf.dtype)
        self._leaves.read(leaf, (0,) * read.dim(), read)
        self._read += read.nbytes
        self._show(self._read, self._total)
        return read
