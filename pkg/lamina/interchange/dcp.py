"""Folders of `torch.distributed.checkpoint`: into a run, and out of one."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lamina.errors import DamagedError
from lamina.interchange.arriving import Target
from lamina.interchange.drafts import draft_of, drafted, publish
from lamina.paths import path_of
from lamina.progress import byte_bar
from lamina.runs import Run

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata


def from_dcp(run: Target, path: str | Path, *, step: int, part: str | None = None, progress: bool = True) -> None:
    """Imports a folder that `torch.distributed.checkpoint` wrote, by however many processes, as a checkpoint.

    Its tensors stay in the shards that they were saved in, and `run.load(step)` gives them whole. Nothing that is
    pickled in the folder is run: of its metadata DCP's own classes are taken, of its objects what `weights_only=True`
    takes.

    Args:
        run: The run; a path where there is nothing becomes a run when everything is in it.
        path: The folder.
        step: The step that the checkpoint was taken at.
        part: Makes the whole state one part of this name. By default the entries of its top level are the parts; a
            state whose top level holds tensors becomes the part `model`.
        progress: Whether to show a bar on a terminal.

    Raises:
        StorageError: There is no such folder.
        DamagedError: A file is cut short, or holds what none of DCP does.
        SchemaError: The state holds what a checkpoint cannot.

    Cost:
        One pass over the files; one shard is in memory at a time, beside the writer's queue. If it fails, nothing of it
        is to be seen.

    Example:
        >>> import lamina, tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> run = lamina.Run.create(folder + "/run")
        >>> with run.writer() as writer:
        ...     ticket = writer.save({"model": {"weight": torch.ones(2)}, "progress": {"tokens": 10}}, step=7)
        >>> lamina.interchange.to_dcp(run.refresh(), folder + "/dcp")
        >>> lamina.interchange.from_dcp(folder + "/again", folder + "/dcp", step=7)
        >>> lamina.open(folder + "/again").load(7, part=None)
        {'model': {'weight': tensor([1., 1.])}, 'progress': {'tokens': 10}}
    """
    path = path_of(path)
    if isinstance(run, Run) or path_of(run).exists():
        opened = run if isinstance(run, Run) else Run(run)
        _import(opened, path, step, part, progress)
        opened.refresh()
        return
    draft = draft_of(path_of(run))
    try:
        _import(Run.create(draft, config={"imported": path.name}), path, step, part, progress)
        publish(draft, path_of(run))
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _import(run: Run, path: Path, step: int, part: str | None, progress: bool) -> None:
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata, TensorStorageMetadata

    from lamina.distributed.folders import Folder
    from lamina.distributed.staged import Staged
    from lamina.distributed.writing import StorageWriter, stored_results
    from lamina.runs.buffers import flatten

    folder = Folder(path)
    done, total = 0, sum(folder.size_of(index) for index in folder.indices())
    with run.writer() as writer, byte_bar(f"importing {path.name}", progress) as show:
        staged, objects, shards = Staged(writer._core), [], []
        for index in folder.indices():
            show(done, total)
            done += folder.size_of(index)
            if isinstance(folder.metadata.state_dict_metadata.get(index.fqn), BytesStorageMetadata):
                objects.append((index, folder.bytes_of(index)))
                continue
            tensor = folder.tensor(index)
            entry = folder.metadata.state_dict_metadata.get(index.fqn)
            if not isinstance(entry, TensorStorageMetadata) or entry.properties.dtype != tensor.dtype:
                raise DamagedError(f"a shard of {index.fqn!r} is not what the metadata says", str(path))
            shards.append((index, tuple(tensor.shape)))
            staged.add(index.fqn, flatten(tensor, f"tensor {index.fqn!r}"))
        show(done, total)
        one = part or ("model" if _is_flat(folder.metadata) else None)
        results = stored_results(staged, shards, objects)
        StorageWriter(writer, step=step, part=one).finish(folder.metadata, [results])


def _is_flat(metadata: Metadata) -> bool:
    """Whether the state's top level holds tensors."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    paths = metadata.planner_data if isinstance(metadata.planner_data, dict) else {}
    entries = metadata.state_dict_metadata.items()
    return any(
        len(paths.get(name, (name,))) == 1 for name, entry in entries if isinstance(entry, TensorStorageMetadata)
    )


def to_dcp(
    run: Run,
    path: str | Path,
    *,
    step: int | Literal["last"] = "last",
    part: str | None = None,
    progress: bool = True,
) -> None:
    """Exports a checkpoint as a folder that `torch.distributed.checkpoint.load` reads, by any number of processes.

    Args:
        run: The run.
        path: The folder to be. Nothing is overwritten, and it appears when it is whole and synced to the disk.
        step: The step, or "last".
        part: The state of this part alone; by default a state with an entry for each part.
        progress: Whether to show a bar on a terminal.

    Raises:
        NotFoundError: There is no such checkpoint or part; the hint lists the nearest.
        StorageError: The path exists, or the file system refuses.

    Cost:
        One reading; one tensor is in memory at a time.

    Example:
        `from_dcp` has one.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    from lamina.distributed.folders import LeavesPlanner
    from lamina.distributed.leaves import Leaves

    leaves = Leaves(run, step, part)
    with (
        byte_bar(f"exporting {run.name}", progress) as show,
        drafted(path_of(path), folder=True) as draft,
        warnings.catch_warnings(),
    ):
        planner = LeavesPlanner(leaves, show)
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        save({}, storage_writer=FileSystemWriter(draft), planner=planner, no_dist=True)
