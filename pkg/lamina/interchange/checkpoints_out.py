"""A run's checkpoints as files that any other program reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lamina.errors import NotFoundError, SchemaError
from lamina.interchange import lightning_parts
from lamina.interchange.checkpoint_files import JSON, MODEL
from lamina.interchange.drafts import check_free, drafted
from lamina.interchange.leaving_parts import state_of
from lamina.interchange.torch_files import ENDINGS
from lamina.interchange.weights_out import named_tensors, write_shards, write_weights
from lamina.paths import path_of
from lamina.progress import byte_bar
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.steps import Steps, has_step, plain_steps

if TYPE_CHECKING:
    from lamina.runs import Run

Format = Literal["safetensors", "torch", "lightning", "folder"]

_SHARD = 5 << 30


def to_checkpoint(
    run: Run,
    path: str | Path,
    *,
    step: Steps | Literal["last"] = "last",
    parts: str | Sequence[str] | None = None,
    format: Format | None = None,  # noqa: A002
    shard_bytes: int = _SHARD,
    progress: bool = True,
) -> list[int]:
    """Exports a checkpoint, or a folder `step_<N>` of several.

    | format | by the ending | what is written |
    |---|---|---|
    | `safetensors` | `.safetensors` | the tensors of one part by their dotted names |
    | `torch` | `.pt`, `.pth`, `.bin` | one part, just as `run.load` gives it, by `torch.save` |
    | `lightning` | `.ckpt` | all parts of a checkpoint that Lightning wrote, as it writes them |
    | `folder` | none of these | the part `model` as `model.safetensors`, or as shards with an index; `config`, |
    | | | `generation_config` and `trainer_state` as JSON; every other part as `<part>.pt` |

    Such a folder is what `from_pretrained` of Transformers reads, and what its Trainer resumes from.

    Args:
        run: The run.
        path: The file or folder to be. Nothing is overwritten, and it appears when it is whole and synced to the disk.
        step: The step; with several (or a slice, or None for all) a folder that holds a checkpoint a step.
        parts: Names of parts. Files hold one, by default `model`; folders all, by default.
        format: By default by the ending; of several steps `folder`.
        shard_bytes: The size at which the weights of a folder are cut into shards.
        progress: False shows no bar.

    Returns:
        The steps that were exported.

    Raises:
        NotFoundError: There is no such step or part; the hint lists the nearest.
        SchemaError: A part holds what the format cannot.
        StorageError: The path exists, or the file system refuses.

    Cost:
        One reading of each part: in blocks of 16 MiB where safetensors files are written, of the whole part into memory
        where `torch.save` writes.

    Example:
        >>> import lamina, tempfile, torch
        >>> from safetensors.torch import load_file
        >>> folder = tempfile.mkdtemp()
        >>> run = lamina.Run.create(folder + "/run")
        >>> with run.writer() as writer:
        ...     ticket = writer.save({"model": {"weight": torch.ones(2)}}, step=7)
        >>> lamina.interchange.to_checkpoint(run.refresh(), folder + "/model.safetensors")
        [7]
        >>> load_file(folder + "/model.safetensors")
        {'weight': tensor([1., 1.])}
    """
    path = path_of(path)
    check_free(path)
    if shard_bytes < 1:
        raise SchemaError(f"shard_bytes={shard_bytes}", hint="give a size in bytes, such as 1 << 30")
    saved = run.saved_parts()
    if not saved:
        raise NotFoundError(f"{run.path} holds no checkpoint" + ("" if run.steps() else ", and no rows either"))
    steps, single = _steps(step, saved)
    kind: str = format or (_format_of(path) if single else "folder")
    sizes = run.checkpoints().filter(step=steps[0]) if single else run.checkpoints()
    total = int(sizes.select("bytes").sum().collect().item())
    with (
        drafted(path, folder=not single or kind == "folder") as draft,
        byte_bar(f"exporting {run.name}", progress) as show,
    ):
        done = 0
        for one in steps:
            names = _parts(saved[one], parts, kind, one)
            target = draft if single else draft / f"step_{one}{_ENDING[kind]}"
            if not single and kind == "folder":
                target.mkdir()
            for size in _write(run, one, names, target, kind, shard_bytes):
                done += size
                show(done, max(total, done))
    return steps


_ENDING = {"safetensors": ".safetensors", "torch": ".pt", "lightning": ".ckpt", "folder": ""}


def _format_of(path: Path) -> str:
    if path.suffix == ".safetensors":
        return "safetensors"
    if path.suffix == ".ckpt":
        return "lightning"
    return "torch" if path.suffix in ENDINGS else "folder"


def _steps(wanted: Any, saved: dict[int, list[str]]) -> tuple[list[int], bool]:
    """The steps, and whether just one was asked for."""
    if isinstance(wanted, str):
        if wanted != "last":
            raise SchemaError(f"step={wanted!r}", hint='give a step, several, or "last"')
        return [max(saved)], True
    wanted = plain_steps(wanted)
    named = [] if wanted is None or isinstance(wanted, slice) else [wanted] if isinstance(wanted, int) else wanted
    for step in named:
        if step not in saved:
            raise NotFoundError(f"no checkpoint at step {step}", hint=nearest_steps(step, sorted(saved)))
    chosen = [step for step in sorted(saved) if wanted is None or has_step(wanted, step)]
    if not chosen:
        raise NotFoundError("no checkpoint at these steps", hint=nearest_steps(0, sorted(saved)))
    return chosen, isinstance(wanted, int)


def _parts(there: list[str], wanted: str | Sequence[str] | None, kind: str, step: int) -> list[str]:
    if wanted is None:
        names = there if kind in ("folder", "lightning") else [MODEL]
    else:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in there:
            raise NotFoundError(f"step {step} has no part {name!r}", hint=nearest_names(name, there))
    if kind in ("safetensors", "torch") and len(names) != 1:
        raise SchemaError("a file holds one part", hint="export a folder, which holds all of them")
    if kind == "lightning" and lightning_parts.TRAINER not in names:
        raise SchemaError(f"the checkpoint of step {step} is none of Lightning's", hint="export to a .pt file")
    return names


def _write(run: Run, step: int, parts: list[str], path: Path, kind: str, shard_bytes: int) -> Iterator[int]:
    if kind == "safetensors":
        yield from write_weights(path, named_tensors(state_of(run, step, parts[0]), parts[0]))
    elif kind == "torch":
        yield _write_torch(path, run.load(step, part=parts[0]))
    elif kind == "lightning":
        yield _write_torch(path, lightning_parts.join({name: run.load(step, part=name) for name in parts}))
    else:
        for name in parts:
            if name == MODEL:
                yield from write_shards(path, named_tensors(state_of(run, step, name), name), shard_bytes)
            elif name in JSON:
                (path / f"{name}.json").write_text(json.dumps(run.load(step, part=name), indent=2))
            else:
                ending = ".pth" if name.startswith("rng_state") else ".pt"  # what the Trainer looks for
                yield _write_torch(path / f"{_file_name(name)}{ending}", run.load(step, part=name))


def _write_torch(path: Path, state: Any) -> int:
    import torch

    with path.open("wb") as file:  # opened here: where torch cannot open a path it raises a RuntimeError
        torch.save(state, file)
    return path.stat().st_size


def _file_name(part: str) -> str:
    if "/" in part or part.startswith("."):
        raise SchemaError(f"the part {part!r} has a name that no file can have", hint="name other parts with parts=")
    return part
