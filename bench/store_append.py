"""How fast does 1 GiB of activations become durable, beside a plain write of the same bytes?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import safetensors.numpy
import torch

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.table import Table, spread

TOTAL = 2**30
PIECE = 8 * 2**20
WIDTHS = (768, 4096)
REPETITIONS = 7
LIMIT = "write() + fdatasync"
SITE = "mlp.output"


def raw(data: torch.Tensor, folder: Path) -> dict[str, float]:
    view = data.numpy().data.cast("B")
    start = perf_counter()
    file = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for at in range(0, len(view), PIECE):
        piece = view[at : at + PIECE]
        while piece:
            piece = piece[os.write(file, piece) :]
    os.fdatasync(file)
    seconds = perf_counter() - start
    os.close(file)
    return {"durable": seconds}


def through_lamina(data: torch.Tensor, folder: Path) -> dict[str, float]:
    run = lamina.Run.create(folder / "run")
    rows = PIECE // (data.shape[1] * data.element_size())
    writer = run.writer()
    start = perf_counter()
    for step, at in enumerate(range(0, len(data), rows)):
        writer.append({SITE: data[at : at + rows]}, step=step)
    writer.flush()
    durable = perf_counter()
    writer.close()
    return {"durable": durable - start, "close": perf_counter() - durable}


def saved(save: Callable[[torch.Tensor, Path], None]) -> Callable[[torch.Tensor, Path], dict[str, float]]:
    """A case of a library that writes a file in one call and leaves syncing to the caller."""

    def case(data: torch.Tensor, folder: Path) -> dict[str, float]:
        start = perf_counter()
        save(data, folder / "file")
        for path in (folder / "file", folder):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return {"durable": perf_counter() - start}

    return case


def save_with_numpy(data: torch.Tensor, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, data.numpy())


WRITERS: dict[str, Callable[[torch.Tensor, Path], dict[str, float]]] = {
    LIMIT: raw,
    "lamina append + flush": through_lamina,
    "safetensors save_file + fsync": saved(lambda data, path: safetensors.numpy.save_file({SITE: data.numpy()}, path)),
    "torch.save + fsync": saved(torch.save),
    "np.save + fsync": saved(save_with_numpy),
}


def read_back(folder: Path, width: int) -> dict[str, Callable[[], torch.Tensor]]:
    """How each writer's bytes are read again, to see that all wrote the same."""
    return {
        LIMIT: lambda: torch.from_numpy(np.fromfile(folder / "raw", np.float16).reshape(-1, width)),
        "lamina append + flush": lambda: torch.cat(list(lamina.open(folder / "run").rows(SITE).blocks(65536))),
        "safetensors save_file + fsync": lambda: torch.from_numpy(safetensors.numpy.load_file(folder / "file")[SITE]),
        "torch.save + fsync": lambda: torch.load(folder / "file"),
        "np.save + fsync": lambda: torch.from_numpy(np.load(folder / "file")),
    }


def back_memory(data: torch.Tensor, folder: Path) -> None:
    """Touch and free more pages than a case needs.

    A virtual machine may give its free pages back to the host and pay a fault for each that it takes again: measured,
    a GiB of page cache then costs 1.4 s instead of 0.2 s, whoever asks for it. Freed just before, the pages are there.
    """
    view = data.numpy().data.cast("B")
    with (folder / "touched").open("wb") as file:
        file.write(view)
        file.write(view[: len(view) // 4])
    (folder / "touched").unlink()


def in_an_empty_folder(write: Callable[[torch.Tensor, Path], dict[str, float]], data: torch.Tensor) -> Case:
    def case() -> dict[str, float]:
        shutil.rmtree(paths.SCRATCH, ignore_errors=True)
        paths.SCRATCH.mkdir(parents=True)
        back_memory(data, paths.SCRATCH)
        return write(data, paths.SCRATCH)

    return case


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    total, repetitions = (2**23, 1) if quick else (TOTAL, REPETITIONS)
    rows, samples = [], {}
    for width in WIDTHS:
        generator = torch.Generator().manual_seed(width)
        data = torch.randn(total // (2 * width), width, generator=generator).half()
        cases = {name: in_an_empty_folder(write, data) for name, write in WRITERS.items()}
        for name, case in cases.items():
            case()
            Within(0).check(name, {"rows": read_back(paths.SCRATCH, width)[name]()}, {"rows": data})
        seconds = interleave(cases, repetitions, f"d = {width}")
        samples[f"d={width}"] = seconds
        size = data.numel() * data.element_size()
        limit = spread(seconds[LIMIT]["durable"]).median
        for name, phases in seconds.items():
            durable = spread(phases["durable"])
            rows.append(
                {
                    "d": width,
                    "writer": name,
                    "median, s": durable.median,
                    "min, s": durable.least,
                    "quartiles, s": f"{durable.lower:.3g} to {durable.upper:.3g}",
                    "GB/s": size / durable.median / 1e9,
                    "% of the limit": f"{100 * limit / durable.median:.0f}",
                    "close, ms": 1e3 * spread(phases["close"]).median if "close" in phases else None,
                }
            )
    shutil.rmtree(paths.SCRATCH)
    Table(
        question="How fast does 1 GiB of float16 activations become durable?",
        columns=["d", "writer", "median, s", "min, s", "quartiles, s", "GB/s", "% of the limit", "close, ms"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions into an empty folder, after one that was read back and compared",
            f"the limit is {LIMIT} of the same bytes in pieces of {PIECE // 2**20} MiB, in the same run",
            "lamina: appends of 8 MiB through `run.writer()`, then `flush()`; closing (sealing the segments) apart",
            "files and folder are synced for libraries that do not",
            "before each case a larger file is written and removed, so that all find memory that the host backs",
        ],
        packages=["lamina", "torch", "numpy", "safetensors"],
        samples=samples,
    ).publish("store_append", quick=quick)


if __name__ == "__main__":
    main()
