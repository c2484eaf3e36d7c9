# pyright: reportMissingImports=false, reportPrivateImportUsage=false, reportArgumentType=false, reportIndexIssue=false
"""What peers do and what they find afterwards, in an environment that has them.

A server of forks: each line of input is a JSON list of action, writer, path and number, each line of output what came
of it. Forks, because the imports take longer than all else, and a process that ended holds no file of what is to be
unmounted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zarr
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint

ROWS, WIDTH = 512, 768
PATIENCE = 30
Array = np.ndarray[Any, np.dtype[np.float32]]


def data(number: int) -> Array:
    return np.random.default_rng(number).standard_normal((ROWS, WIDTH), np.float32)


class Peer(NamedTuple):
    """How it writes (`append`: behind what `data(0)` left; else instead of it or, `new`, where nothing was)."""

    package: str
    write: Callable[[Path, Array], None]
    read: Callable[[Path], Array]
    kind: str


def _safetensors(path: Path, x: Array) -> None:
    save_file({"x": torch.from_numpy(x)}, path)


def _torch(path: Path, x: Array) -> None:
    torch.save({"x": torch.from_numpy(x)}, path)


def _dcp(path: Path, x: Array) -> None:
    checkpoint.save({"x": torch.from_numpy(x)}, checkpoint_id=path, no_dist=True)


def _read_dcp(path: Path) -> Array:
    state = {"x": torch.zeros(ROWS, WIDTH)}
    checkpoint.load(state, checkpoint_id=path, no_dist=True)
    return state["x"].numpy()


def _table(x: Array) -> pa.Table:
    return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), WIDTH)})


def _vectors(table: pa.Table) -> Array:
    return table["x"].combine_chunks().flatten().to_numpy().reshape(-1, WIDTH)


def _lance(path: Path, x: Array) -> None:
    lance.write_dataset(_table(x), str(path), mode="append" if path.exists() else "create")


def _zarr(path: Path, x: Array) -> None:
    if path.exists():
        zarr.open_array(str(path), mode="r+").append(x)
    else:
        zarr.create_array(str(path), data=x, chunks=(128, WIDTH))


def _hdf5(path: Path, x: Array) -> None:
    with h5py.File(path, "a") as file:
        if "x" not in file:
            file.create_dataset("x", data=x, maxshape=(None, WIDTH), chunks=(128, WIDTH))
        else:
            held = file["x"]
            held.resize(len(held) + ROWS, axis=0)
            held[-ROWS:] = x
        file.flush()


def _read_hdf5(path: Path) -> Array:
    with h5py.File(path, "r") as file:
        return file["x"][:]


PEERS = {
    "safetensors, new file": Peer("safetensors", _safetensors, lambda path: load_file(path)["x"].numpy(), "new"),
    "safetensors, overwrite": Peer("safetensors", _safetensors, lambda path: load_file(path)["x"].numpy(), "instead"),
    "torch.save, new file": Peer("torch", _torch, lambda path: torch.load(path)["x"].numpy(), "new"),
    "torch.save, overwrite": Peer("torch", _torch, lambda path: torch.load(path)["x"].numpy(), "instead"),
    "torch DCP, new folder": Peer("torch", _dcp, _read_dcp, "new"),
    "Lance, append": Peer("pylance", _lance, lambda path: _vectors(lance.dataset(str(path)).to_table()), "append"),
    "zarr v3, append": Peer("zarr", _zarr, lambda path: zarr.open_array(str(path), mode="r")[:], "append"),
    "h5py, append": Peer("h5py", _hdf5, _read_hdf5, "append"),
    "Parquet, new file": Peer(
        "pyarrow", lambda path, x: pq.write_table(_table(x), path), lambda path: _vectors(pq.read_table(path)), "new"
    ),
}


def prepare(peer: Peer, path: Path, number: int) -> str:
    """What was there before, long enough to be on the disk."""
    path.parent.mkdir()
    if peer.kind != "new":
        peer.write(path, data(0))
    os.sync()
    return "prepared"


def write(peer: Peer, path: Path, number: int) -> str:
    peer.write(path, data(number))
    return "written"


def check(peer: Peer, path: Path, number: int) -> str:
    """`there`: what was written; `before`: what was there before; else how reading fails."""
    before = np.zeros((0, WIDTH), np.float32) if peer.kind == "new" else data(0)
    after = np.concatenate([data(0), data(number)]) if peer.kind == "append" else data(number)
    try:
        found = peer.read(path)
    except BaseException as error:
        return f"unreadable: {type(error).__name__}: {str(error)[:200]}"
    if np.array_equal(found, after):
        return "there"
    return "before" if np.array_equal(found, before) else "other data than was written"


def main() -> None:
    warnings.simplefilter("ignore")
    names = {peer.package for peer in PEERS.values()}
    print(json.dumps({name: {"package": peer.package, "kind": peer.kind} for name, peer in PEERS.items()}), flush=True)
    print(json.dumps({name: version(name) for name in sorted(names)}), flush=True)
    actions = {"prepare": prepare, "write": write, "check": check}
    for line in sys.stdin:
        action, name, path, number = json.loads(line)
        if os.fork() == 0:
            signal.alarm(PATIENCE)
            try:
                answer = actions[action](PEERS[name], Path(path), number)
            except BaseException as error:
                answer = f"failed: {type(error).__name__}: {error}"
            print(json.dumps(answer), flush=True)
            os._exit(0)
        _, status = os.wait()
        if status:
            print(json.dumps(f"unreadable: ended with status {status}"), flush=True)


if __name__ == "__main__":
    main()
