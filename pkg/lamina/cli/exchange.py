"""`lamina import` and `lamina export`: which format it is, and what the options mean there."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from lamina.cli.show import out
from lamina.errors import LaminaError, NotFoundError, SchemaError
from lamina.paths import path_of


class From(StrEnum):
    """What can be imported."""

    npy = "npy"
    npz = "npz"
    raw = "raw"
    safetensors = "safetensors"
    parquet = "parquet"
    datasets = "datasets"
    checkpoint = "checkpoint"
    dcp = "dcp"


class To(StrEnum):
    """What can be exported."""

    safetensors = "safetensors"
    parquet = "parquet"
    zarr = "zarr"
    torch = "torch"
    lightning = "lightning"
    folder = "folder"
    dcp = "dcp"


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a folder, or a quoted pattern.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or where one is to be made.")],
    format: Annotated[From | None, typer.Option(help="By default by the ending, or by what the folder holds.")] = None,  # noqa: A002
    site: Annotated[
        list[str] | None,
        typer.Option(help="What becomes a site: a glob, or NAME=SITE. For npy and raw: its name."),
    ] = None,
    column: Annotated[list[str] | None, typer.Option(help="What becomes a column: a glob, or NAME=COLUMN.")] = None,
    example: Annotated[str | None, typer.Option(help="What says which example a row is of.")] = None,
    position: Annotated[str | None, typer.Option(help="What says at which position.")] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="The step of rows that name none, by default 0; of a checkpoint whose name tells none. Of a folder of "
            "checkpoints: which of them, a step or FIRST:LAST; may be given again."
        ),
    ] = None,
    row_source: Annotated[str, typer.Option("--source", help="Their source; '' for none.")] = "capture",
    shape: Annotated[str | None, typer.Option(help="Of a raw file, such as -1,768.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a raw file, such as bf16.")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoints: a part, or PART=NAME to give it another name; may be given again."),
    ] = None,
) -> None:
    """Import activations (npy, npz, raw, safetensors, Parquet, Hugging Face datasets) or checkpoints.

    Checkpoints are safetensors files (with --part or --format checkpoint), files of torch.save, folders of Hugging Face
    models, folders of such with names that tell the step (step_100, checkpoint-100, iter_0000100.pt), and one folder of
    torch.distributed.checkpoint, with its --step.
    """
    from lamina import interchange

    if not (os.path.lexists(source) or any(mark in source for mark in "*?[")):
        raise NotFoundError(f"there is nothing at {source}", hint="check the path")
    kind = format or (From.checkpoint if part and not _is_dcp(source) else _format_of(source))
    if kind == From.dcp:
        if column or example or position or site or shape or dtype or (part and len(part) > 1):
            raise SchemaError("a checkpoint has no sites or columns", hint="--part makes its whole state that part")
        if not step:
            raise SchemaError(f"{source} does not tell at which step it was taken", hint="give --step")
        interchange.from_dcp(run, source, step=_one_step(step), part=part[0] if part else None)
        out().print(f"1 checkpoint in {run}", soft_wrap=True)
        return
    if kind == From.checkpoint:
        if column or example or position or site or shape or dtype:
            raise SchemaError("checkpoints have no sites or columns", hint="--part chooses what of them is imported")
        steps = interchange.from_checkpoints(run, source, step=_steps(step), parts=_names(part))
        out().print(f"{len(steps):,} checkpoint{'s' * (len(steps) != 1)} in {run}", soft_wrap=True)
        return
    options: dict[str, Any] = {"step": _one_step(step), "source": row_source or None}
    if kind in (From.npy, From.raw):
        if column or example or position or (site and len(site) > 1):
            raise SchemaError(f"a file of the format {kind.value} is one site and has no columns")
        options["site"] = site[0] if site else None
    else:
        options |= {"sites": _names(site), "columns": _names(column), "example": example, "position": position}
    if kind == From.raw:
        if shape is None or dtype is None:
            raise SchemaError("a raw file does not say what it holds", hint="give --shape and --dtype")
        options |= {"shape": _shape(shape), "dtype": dtype}
    readers: dict[From, Callable[..., int]] = {
        From.npy: interchange.from_npy,
        From.npz: interchange.from_npz,
        From.raw: interchange.from_memmap,
        From.safetensors: interchange.from_safetensors,
        From.parquet: interchange.from_parquet,
        From.datasets: interchange.from_datasets,
    }
    rows = readers[kind](run, source, **options)
    out().print(f"{rows:,} rows in {run}", soft_wrap=True)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    target: Annotated[Path, typer.Argument(metavar="DEST", help="What is to be written; nothing is overwritten.")],
    format: Annotated[To | None, typer.Option(help="By default by the ending.")] = None,  # noqa: A002
    site: Annotated[list[str] | None, typer.Option(help="A site, or a glob.")] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(help="A step, or FIRST:LAST; may be given again. Of checkpoints also last, or all."),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="A source.")] = None,
    where: Annotated[str | None, typer.Option(help='A condition in SQL, such as "example < 100".')] = None,
    bits: Annotated[bool, typer.Option("--bits", help="Parquet: keep the bits of bf16 and f8.")] = False,
    shard_bytes: Annotated[int | None, typer.Option(help="safetensors: a folder of files of this size.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="A checkpoint's part, such as model; may be given again for a folder.")
    ] = None,
) -> None:
    """Export sites and their metadata (safetensors, Parquet, zarr), or checkpoints.

    A checkpoint is meant where --part is given, where DEST ends in .pt, .pth, .bin or .ckpt, where the format is
    torch, lightning, folder or dcp, and where the run holds nothing else. It is the last one unless --step says which.
    """
    import lamina
    from lamina import interchange

    opened = lamina.open(run)
    kind = format or _format_to(target)
    if part or kind in _CHECKPOINTS or (kind in (None, To.safetensors) and not opened.steps()):
        if site or source or where is not None or bits:
            raise SchemaError("checkpoints have no sites, sources or rows", hint="--part and --step choose")
        if kind not in (None, To.safetensors, *_CHECKPOINTS):
            raise SchemaError(f"checkpoints are not exported to {kind.value}", hint="to .safetensors, .pt or a folder")
        given: dict[str, Any] = {} if shard_bytes is None else {"shard_bytes": shard_bytes}
        if kind == To.dcp:
            at = _checkpoint(step)
            if given or (part and len(part) > 1) or not (at == "last" or isinstance(at, int)):
                raise SchemaError("a folder of torch.distributed.checkpoint holds one step", hint="--step, one --part")
            interchange.to_dcp(opened, target, step=at, part=part[0] if part else None)
            out().print(f"step {at} in {target}", soft_wrap=True)
            return
        given |= {} if kind is None else {"format": kind.value}
        steps = interchange.to_checkpoint(opened, target, step=_checkpoint(step), parts=part or None, **given)
        named = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps):,} steps, {steps[0]} to {steps[-1]},"
        out().print(f"{named} in {target}", soft_wrap=True)
        return
    if kind is None:
        raise SchemaError(
            f"{target} has no ending that names a format", hint="give --format, or end in .safetensors, .parquet, .zarr"
        )
    options: dict[str, Any] = {"sites": site or None, "step": _steps(step), "source": source or None}
    if where is not None:
        options["where"] = _condition(where)
    if bits:
        if kind != To.parquet:
            raise SchemaError("--bits is for Parquet", hint="the other formats keep the bits anyway")
        options["bits"] = True
    if shard_bytes is not None:
        if kind != To.safetensors:
            raise SchemaError("--shard-bytes is for safetensors")
        options["shard_bytes"] = shard_bytes
    writers: dict[To, Callable[..., int]] = {
        To.safetensors: interchange.to_safetensors,
        To.parquet: interchange.to_parquet,
        To.zarr: interchange.to_zarr,
    }
    rows = writers[kind](opened, target, **options)
    out().print(f"{rows:,} rows in {target}", soft_wrap=True)


_CHECKPOINTS = (To.torch, To.lightning, To.folder, To.dcp)


def _format_to(target: Path) -> To | None:
    if target.suffix in (".pt", ".pth", ".bin"):
        return To.torch
    if target.suffix == ".ckpt":
        return To.lightning
    return next((kind for kind in To if target.suffix == f".{kind.value}"), None)


_ENDINGS = {
    ".npy": From.npy,
    ".npz": From.npz,
    ".safetensors": From.safetensors,
    ".parquet": From.parquet,
    ".arrow": From.datasets,
    ".pt": From.checkpoint,
    ".pth": From.checkpoint,
    ".ckpt": From.checkpoint,
}


def _format_of(source: str) -> From:
    path = path_of(source)
    if not path.is_dir():
        found = _ENDINGS.get(path.suffix)
    elif (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        found = From.datasets
    elif _is_dcp(source):
        found = From.dcp
    elif _holds_checkpoints(path):
        found = From.checkpoint
    else:
        holds = {file.suffix for file in path.iterdir()}
        found = next((kind for ending, kind in _ENDINGS.items() if ending in holds and kind not in _SINGLE), None)
        found = From.datasets if found is None and any(path.glob("*/state.json")) else found
    if found is None:
        raise SchemaError(
            f"{source} does not show its format", hint=f"give --format: {', '.join(k.value for k in From)}"
        )
    return found


def _is_dcp(source: str) -> bool:
    """Whether it is a folder of torch.distributed.checkpoint."""
    return (path_of(source) / ".metadata").is_file()


def _holds_checkpoints(folder: Path) -> bool:
    """Whether it is a folder of a model, or one of checkpoints whose names tell their steps.

    Other safetensors files may hold activations as well, so they say nothing.
    """
    from lamina.interchange.checkpoint_steps import suite_of

    model = (*folder.glob("*.index.json"), folder / "model.safetensors", folder / "pytorch_model.bin")
    return any(file.exists() for file in model) or any(
        found.path.suffix != ".safetensors" for found in suite_of(folder)[0]
    )


def _steps(given: list[str] | None) -> Any:
    """What `step=` takes, for steps and spans."""
    if not given:
        return None
    try:
        spans = [[int(number) for number in one.split(":")] for one in given]
        if len(spans) == 1 and len(spans[0]) == 2:
            return slice(spans[0][0], spans[0][1] + 1)
        steps = [number for (number,) in spans]
    except ValueError:
        raise SchemaError(f"--step {' '.join(given)}", hint="give a step (again for several), or FIRST:LAST") from None
    return steps[0] if len(steps) == 1 else steps


def _one_step(given: list[str] | None) -> int:
    step = _steps(given)
    if step is not None and not isinstance(step, int):
        raise SchemaError("the rows of a file are of one step", hint="give --step once, with a number")
    return step or 0


def _checkpoint(given: list[str] | None) -> Any:
    if not given or given == ["last"]:
        return "last"
    return None if given == ["all"] else _steps(given)


_SINGLE = (From.npy, From.npz)
"""Formats of files, never of folders."""


def _names(given: list[str] | None) -> list[str] | dict[str, str] | None:
    if not given:
        return None
    if not any("=" in name for name in given):
        return given
    pairs = [name.rpartition("=") for name in given]
    return {name or meant: meant for name, _, meant in pairs}


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(length) for length in text.split(","))
    except ValueError:
        raise SchemaError(f"--shape {text}", hint="give lengths with commas, such as -1,768") from None


def _condition(text: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise LaminaError(f"--where {text}: {error}", hint='give a condition such as "example < 100"') from error
