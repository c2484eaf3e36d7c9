"""`lamina import` and `lamina export`: which format it is, and what the options mean there."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from lamina.cli.show import out
from lamina.errors import LaminaError, SchemaError


class From(StrEnum):
    """What can be imported."""

    npy = "npy"
    npz = "npz"
    raw = "raw"
    safetensors = "safetensors"
    parquet = "parquet"
    datasets = "datasets"


class To(StrEnum):
    """What can be exported."""

    safetensors = "safetensors"
    parquet = "parquet"
    zarr = "zarr"


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
    step: Annotated[int, typer.Option(help="The step of rows that name none.")] = 0,
    row_source: Annotated[str, typer.Option("--source", help="Their source; '' for none.")] = "capture",
    shape: Annotated[str | None, typer.Option(help="Of a raw file, such as -1,768.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a raw file, such as bf16.")] = None,
) -> None:
    """Import activations: npy, npz, raw files, safetensors, Parquet, folders of Hugging Face datasets."""
    from lamina import interchange

    kind = format or _format_of(source)
    options: dict[str, Any] = {"step": step, "source": row_source or None}
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
    step: Annotated[list[int] | None, typer.Option(help="A step.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="A source.")] = None,
    where: Annotated[str | None, typer.Option(help='A condition in SQL, such as "example < 100".')] = None,
    bits: Annotated[bool, typer.Option("--bits", help="Parquet: keep the bits of bf16 and f8.")] = False,
    shard_bytes: Annotated[int | None, typer.Option(help="safetensors: a folder of files of this size.")] = None,
) -> None:
    """Export sites and their metadata: safetensors, Parquet, zarr."""
    import lamina
    from lamina import interchange

    kind = format or next((kind for kind in To if target.suffix == f".{kind.value}"), None)
    if kind is None:
        raise SchemaError(f"{target} has no ending that names a format", hint="give --format, or end in .safetensors")
    options: dict[str, Any] = {"sites": site or None, "step": step or None, "source": source or None}
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
    rows = writers[kind](lamina.open(run), target, **options)
    out().print(f"{rows:,} rows in {target}", soft_wrap=True)


_ENDINGS = {
    ".npy": From.npy,
    ".npz": From.npz,
    ".safetensors": From.safetensors,
    ".parquet": From.parquet,
    ".arrow": From.datasets,
}


def _format_of(source: str) -> From:
    path = Path(source)
    if not path.is_dir():
        found = _ENDINGS.get(path.suffix)
    elif (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        found = From.datasets
    else:
        holds = {file.suffix for file in path.iterdir()}
        found = next((kind for ending, kind in _ENDINGS.items() if ending in holds and kind not in _SINGLE), None)
        found = From.datasets if found is None and any(path.glob("*/state.json")) else found
    if found is None:
        raise SchemaError(
            f"{source} does not show its format", hint=f"give --format: {', '.join(k.value for k in From)}"
        )
    return found


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
