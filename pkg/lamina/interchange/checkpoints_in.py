"""Checkpoints from elsewhere: into a run, one after the other, never more of them in memory than a block."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from lamina.errors import LaminaWarning, NotFoundError, SchemaError, StorageError
from lamina.interchange.arriving import Target
from lamina.interchange.checkpoint_files import Parts, is_checkpoint, parts_of
from lamina.interchange.checkpoint_steps import Found, step_of, suite_of
from lamina.interchange.drafts import draft_of, publish
from lamina.interchange.sharded import read_json
from lamina.paths import path_of
from lamina.progress import byte_bar
from lamina.runs import Run
from lamina.runs.checkpoints import streamed
from lamina.runs.nearest import nearest_steps
from lamina.runs.steps import Steps, has_step, plain_steps


def from_checkpoints(
    run: Target, path: str | Path, *, step: Steps = None, parts: Parts = None, progress: bool = True
) -> list[int]:
    """Imports a checkpoint, or a folder of them, so that `run.load(step)` gives what the files hold.

    A checkpoint is a safetensors file; a file of `torch.save`; or a folder as Hugging Face's: weights
    (`model.safetensors`, shards with an index, `pytorch_model.bin`), which become the part `model`, and beside them
    `optimizer.pt`, `scheduler.pt` and the like, `config.json`, `generation_config.json` and `trainer_state.json`, which
    become parts of these names. A checkpoint of Lightning becomes the parts `model`, `optimizer` and `trainer`.

    A folder of checkpoints has names that tell the step of each: `step_100`, `step1000-tokens4B`, `checkpoint-100`,
    `iter_0000100.pt`, `epoch=3-step=100.ckpt`; or it is a model in the cache of Hugging Face whose revisions have such
    names.

    Files of `torch.save` are read with `weights_only=True`: what is more than tensors and plain values is refused, or,
    beside weights, left out with a warning. Chunks that the run holds already are not stored again.

    Args:
        run: The run; a path where there is nothing becomes a run when everything is in it.
        path: The file or folder.
        step: Of a folder of checkpoints which ones: a step, several, or a slice. Of a single one the step that it was
            taken at, where no name tells it.
        parts: Which parts: globs; or a mapping from their names in the checkpoint, where also the entries of a file of
            `torch.save` can be named, to those in the run.
        progress: False shows no bar.

    Returns:
        The steps that were imported.

    Raises:
        NotFoundError: There is no such step or part; the hint lists the nearest.
        SchemaError: There is no checkpoint, no step, the run holds one of that step and part, or a file holds what a
            checkpoint cannot.
        DamagedError: A file is cut short, or a shard is missing.

    Cost:
        One pass over the files. Safetensors files are read in blocks of 16 MiB, files of `torch.save` are mapped by
        torch. If it fails, nothing of it is to be seen.

    Example:
        >>> import lamina, tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> for step in (0, 100):
        ...     torch.save({"weight": torch.full((2,), float(step))}, f"{folder}/step_{step}.pt")
        >>> lamina.interchange.from_checkpoints(folder + "/run", folder)
        [0, 100]
        >>> lamina.open(folder + "/run").load(100)["weight"]
        tensor([100., 100.])
    """
    path, wanted = path_of(path), plain_steps(step)
    found = _found(path, wanted)
    if isinstance(run, Run) or path_of(run).exists():
        opened = run if isinstance(run, Run) else Run(run)
        _import(opened, found, parts, path.name, progress)
        opened.refresh()
        return [one.step or 0 for one in found]
    draft = draft_of(path_of(run))
    try:
        _import(Run.create(draft, config={"imported": path.name}), found, parts, path.name, progress)
        publish(draft, path_of(run))
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return [one.step or 0 for one in found]


def _found(path: Path, wanted: Steps) -> list[Found]:
    """What is to be imported."""
    if not path.exists():
        raise StorageError(f"{path} does not exist", str(path))
    suite, silent = ([], []) if not path.is_dir() or is_checkpoint(path) else suite_of(path)
    if not suite:
        step = wanted if isinstance(wanted, int) else None
        return [Found(path, _step_of_one(path) if step is None else step)]
    steps = [one.step for one in suite if one.step is not None]
    named = [] if wanted is None or isinstance(wanted, slice) else [wanted] if isinstance(wanted, int) else wanted
    for step in named:
        if step not in steps:
            raise NotFoundError(f"{path} holds no checkpoint of step {step}", hint=nearest_steps(step, steps))
    if silent and wanted is None:
        text = f"{path}: left out, since their names tell no step: {', '.join(silent)}"
        warnings.warn(text, LaminaWarning, stacklevel=3)
    chosen = [one for one in suite if wanted is None or has_step(wanted, one.step or 0)]
    if not chosen:
        raise NotFoundError(f"{path} holds no checkpoint of these steps", hint=nearest_steps(0, steps))
    return chosen


def _step_of_one(path: Path) -> int:
    step = step_of(path.name)
    if step is None and (state := path / "trainer_state.json").is_file():
        told = read_json(state)
        step = told.get("global_step") if isinstance(told, dict) else None
    if not isinstance(step, int):
        raise SchemaError(f"{path.name} does not tell at which step it was taken", str(path), hint="give step=")
    return step


def _import(run: Run, found: list[Found], parts: Parts, what: str, progress: bool) -> None:
    """Everything, or nothing that anybody sees."""
    held = run.saved_parts()
    total = sum(_size(one.path) for one in found)
    with byte_bar(f"importing {what}", progress) as show, streamed(run.path) as stream:
        done = _Count(total, show)
        for path, step in found:
            saved = []
            for name, part in parts_of(path, parts).items():
                if name in held.get(step or 0, ()):
                    raise SchemaError(
                        f"the run holds a part {name!r} at step {step} already",
                        str(path),
                        hint='another name: parts={"model": "other"}; or another run',
                    )
                saved.append((name, *part.put(stream, done.add)))
            stream.save(step or 0, saved)


class _Count:
    """Bytes that were read, for a bar."""

    def __init__(self, total: int, show: Callable[[int, int], None]) -> None:
        self._done, self._total, self._show = 0, total, show

    def add(self, size: int) -> None:
        self._done += size
        self._show(self._done, max(self._total, self._done))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
