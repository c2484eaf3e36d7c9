"""How long does saving 1 GB of float32 state hold up its caller, and when is it durable?"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
import zarr
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.peers import Worker
from bench.table import Table, spread
from lamina.distributed import StorageWriter

TENSORS, SIDE = 16, 4096
REPETITIONS = 5
PIECE = 8 * 2**20
MEMCPY, WRITE, LAMINA = "memcpy", "write() + fdatasync", "lamina, save"
OURS_BY_DCP = {"lamina, by DCP save": False, "lamina, by DCP async_save": True}
LANCE = "Lance blobs + fsync"
State = dict[str, torch.Tensor]
Saved = dict[str, float]


def synced(places: Iterable[Path]) -> None:
    """Sync files and folders, for libraries that do not."""
    for place in places:
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def all_of(folder: Path) -> list[Path]:
    return [*folder.rglob("*"), folder, folder.parent]


def written(state: State, folder: Path) -> Saved:
    start = perf_counter()
    file = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for tensor in state.values():
        view = tensor.numpy().data.cast("B")
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            while piece:
                piece = piece[os.write(file, piece) :]
    blocked = perf_counter() - start
    os.fdatasync(file)
    os.close(file)
    return {"blocked": blocked, "durable": perf_counter() - start}


def in_one_file(write: Callable[[State, Path], Any]) -> Callable[[State, Path], Saved]:
    """A library that writes a file or folder in one call and leaves syncing to the caller."""

    def case(state: State, folder: Path) -> Saved:
        start = perf_counter()
        write(state, folder / "saved")
        blocked = perf_counter() - start
        synced(all_of(folder))
        return {"blocked": blocked, "durable": perf_counter() - start}

    return case


def save_with_dcp(state: State, path: Path) -> None:
    save(state, storage_writer=FileSystemWriter(path))


def save_with_dcp_later(state: State, folder: Path) -> Saved:
    start = perf_counter()
    future: Any = async_save(state, storage_writer=FileSystemWriter(folder / "saved"))
    blocked = perf_counter() - start
    future.result()
    synced(all_of(folder))
    return {"blocked": blocked, "durable": perf_counter() - start}


def save_with_zarr(state: State, path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    for name, tensor in state.items():
        rows = max(1, PIECE // tensor[0].nbytes)
        array = group.create_array(
            name, shape=tensor.shape, dtype="float32", chunks=(rows, tensor.shape[1]), compressors=None
        )
        array[:] = tensor.numpy()


WAYS: dict[str, Callable[[State, Path], Saved]] = {
    WRITE: written,
    "torch.save + fsync": in_one_file(torch.save),
    "safetensors + fsync": in_one_file(safetensors.torch.save_file),
    "DCP save + fsync": in_one_file(save_with_dcp),
    "DCP async_save + fsync": save_with_dcp_later,
    "zarr v3, not compressed, + fsync": in_one_file(save_with_zarr),
}


def read_back(name: str, state: State, folder: Path) -> State:
    """What a way has written, to see that all wrote the same."""
    path = folder / "saved"
    match name.split()[0]:
        case "torch.save":
            return torch.load(path)
        case "safetensors":
            return safetensors.torch.load_file(path)
        case "DCP":
            empty = {key: torch.empty_like(value) for key, value in state.items()}
            load(empty, storage_reader=FileSystemReader(path))
            return empty
        case "zarr":
            group: Any = zarr.open_group(path, mode="r")
            return {key: torch.from_numpy(group[key][:]) for key in state}
    flat = torch.from_numpy(np.fromfile(folder / "raw", np.float32)).reshape(len(state), *state["w0"].shape)
    return dict(zip(state, flat, strict=True))


def change(state: State) -> None:
    """As a step does: the next save holds other bytes."""
    for tensor in state.values():
        tensor.mul_(1.0009765625)


def into_an_empty_folder(way: Callable[[State, Path], Saved], state: State, folder: Path) -> Case:
    def case() -> Saved:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        change(state)
        return way(state, folder)

    return case


def through_lamina(writer: lamina.Writer, state: State) -> Case:
    steps = iter(range(10**9))

    def case() -> Saved:
        change(state)
        start = perf_counter()
        ticket = writer.save({"model": state}, step=next(steps))
        blocked = perf_counter() - start
        ticket.wait()
        return {"blocked": blocked, "durable": perf_counter() - start}

    return case


def through_dcp(writer: lamina.Writer, state: State, *, later: bool) -> Case:
    """DCP plans what is saved, and Lamina stores it."""
    steps, storage = iter(range(10**9)), StorageWriter(writer, part="model")

    def case() -> Saved:
        change(state)
        start = perf_counter()
        done: Any = (async_save if later else save)(state, checkpoint_id=str(next(steps)), storage_writer=storage)
        blocked = perf_counter() - start
        if later:
            done.result()
        return {"blocked": blocked, "durable": perf_counter() - start}

    return case


def copied(state: State) -> Case:
    out = {name: tensor.clone() for name, tensor in state.items()}

    def case() -> Saved:
        start = perf_counter()
        for name, tensor in state.items():
            np.copyto(out[name].numpy(), tensor.numpy())
        return {"blocked": perf_counter() - start}

    return case


def through_lance(peers: Worker, state: State, path: Path) -> Case:
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    peers.prepare(LANCE, "bench.peer_calls.lance_blobs:saved", arrays, "cpu", {"path": str(path)})
    peers.prepare("loaded", "bench.peer_calls.lance_blobs:loaded", {}, "cpu", {"path": str(path)})

    def case() -> Saved:
        return {phase: value.item() for phase, value in peers.result(LANCE).items()}

    return case


def read_from_lance(peers: Worker, side: int) -> State:
    peers.result(LANCE)
    found = peers.result("loaded").items()
    return {name: torch.from_numpy(data.view(np.float32)).reshape(side, side) for name, data in found}


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    side, repetitions = (64, 1) if quick else (SIDE, REPETITIONS)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    state = {f"w{at}": torch.randn(side, side, generator=generator) for at in range(TENSORS)}
    size = sum(tensor.nbytes for tensor in state.values())
    rule = Within(0)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    rendezvous = tempfile.mktemp(dir=paths.SCRATCH)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    run, shared = (lamina.Run.create(paths.SCRATCH / name) for name in ("run", "shared"))
    # a smoke run must do without the peers' environment
    none = contextlib.nullcontext()
    with run.writer() as writer, shared.writer() as sharing, none if quick else Worker(paths.PEERS) as peers:
        cases: dict[str, Case] = {MEMCPY: copied(state), LAMINA: through_lamina(writer, state)}
        cases[LAMINA]()
        cases[LAMINA]()  # the memory for staging is there
        rule.check(LAMINA, run.refresh().load("last"), state)
        for name, later in OURS_BY_DCP.items():
            cases[name] = through_dcp(sharing, state, later=later)
            cases[name]()
            rule.check(name, shared.refresh().load("last"), state)
        for at, (name, way) in enumerate(WAYS.items()):
            folder = paths.SCRATCH / f"way{at}"
            cases[name] = into_an_empty_folder(way, state, folder)
            cases[name]()
            rule.check(name, read_back(name, state, folder), state)
        if peers is not None:
            # a state of its own, which lies in the worker: what is changed here is not changed there
            cases[LANCE] = through_lance(peers, state, paths.SCRATCH / "lance")
            rule.check(LANCE, read_from_lance(peers, side), state)
        seconds = interleave(cases, repetitions, "saving")
        versions = {} if peers is None else peers.ask("versions", packages=["pylance"])
    dist.destroy_process_group()
    shutil.rmtree(paths.SCRATCH)
    memcpy = spread(seconds[MEMCPY]["blocked"]).median
    limit = spread(seconds[WRITE]["durable"]).median
    rows = []
    for name, phases in seconds.items():
        blocked = spread(phases["blocked"])
        row = {
            "way": name,
            "blocked, ms": 1e3 * blocked.median,
            "quartiles, ms": f"{1e3 * blocked.lower:.3g} to {1e3 * blocked.upper:.3g}",
            "blocked / memcpy": f"{blocked.median / memcpy:.2f}",
        }
        if "durable" in phases:
            durable = spread(phases["durable"])
            row |= {
                "durable, s": durable.median,
                "GB/s": size / durable.median / 1e9,
                "% of the limit": f"{100 * limit / durable.median:.0f}",
            }
        rows.append(row)
    Table(
        question="How long does saving 1 GB of float32 state hold up its caller, and when is it durable?",
        columns=["way", "blocked, ms", "quartiles, ms", "blocked / memcpy", "durable, s", "GB/s", "% of the limit"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions; {TENSORS} tensors, {size / 1e9:.2f} GB, changed before each",
            "blocked: until the call returns. durable: until the bytes survive a power cut, from the same start",
            f"the limits are a memcpy by one thread into memory that is there, and {WRITE} of the same bytes in pieces "
            f"of {PIECE // 2**20} MiB, in the same run",
            "lamina: one writer and one run for all saves, as in a training; the others write into an empty folder",
            "files and folders are synced for libraries that do not",
            "DCP: one process, its default writer; `async_save` with its default stager; by DCP: the same calls with "
            "`lamina.distributed.StorageWriter`, which return, or whose future does, when the checkpoint is durable",
        ],
        packages=["lamina", "torch", "safetensors", "zarr"],
        versions=versions,
        samples={name: dict(phases) for name, phases in seconds.items()},
    ).publish("saving", quick=quick)


if __name__ == "__main__":
    main()
