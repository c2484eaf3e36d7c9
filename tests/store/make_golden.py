"""Makes tests/store/golden/format-1.tar.xz: a run of format 1 that every later Lamina must read as it was.

It is made once a format version and then never again: `python -m tests.store.make_golden NEW_FILE` refuses a file
that exists. What it holds is written out in test_golden.py, which does not import this module.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

import lamina


def make(path: Path) -> None:
    run = lamina.Run.create(path, config={"lr": 0.001, "name": "größe"})
    with run.writer(rank=0) as writer:
        for step in (0, 10):
            writer.append(
                {
                    "mlp.output": torch.tensor([[1.5, float("nan")], [float("-inf"), 0.1 + step]]),
                    "mlp.input": torch.tensor([[1.0, -2.5], [3.140625, 0.0]], dtype=torch.bfloat16),
                    "conv": np.arange(8, dtype=np.float16).reshape(2, 1, 2, 2) + step,
                    "loss": np.array([0.25, 1e-300]),
                },
                step=step,
                example=[7, None],
                source="train",
                topic=["naïve 𝄞", None],
                confidence=[0.5, float("nan")],
                correct=[True, False],
                augmented=True,
            ).wait()
        writer.append({"tokens": np.array([[[1], [2]]], np.int32)}, step=10, example=[8], word=[["the", "ß"]])
        writer.log({"train/loss": 2.302585092994046}, step=0)
        writer.log({"norm": float("inf")}, step=10, site="mlp.output", source="probe")
        writer.examples({"example": [7, 8], "label": ["cat", None]})
        writer.examples({"example": [8, 9], "label": ["dog", "ö"], "weight": [0.5, 2.0]})
    with run.writer() as writer:
        weight = torch.tensor([[1.0, -0.0], [2.0, 5e-324]], dtype=torch.float64)
        model = {"weight": weight, "tied": weight, "scale": torch.tensor(0.5, dtype=torch.bfloat16)}
        optimizer = {"state": {0: {"step": 10, "m": np.array([1, 2], np.int64)}}, "lr": [0.1, float("nan"), None]}
        writer.save({"model": model, "optimizer": optimizer}, step=10)
        writer.close("RuntimeError('stopped here')")


def pack(run: Path, archive: Path) -> None:
    """Packs a run so that one run gives one archive, whoever packs it and when."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(archive, "x:xz") as tar:
        for path in (run, *sorted(run.rglob("*"))):
            tar.add(path, path.relative_to(run.parent).as_posix(), recursive=False, filter=plain)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "run")
        pack(Path(folder) / "run", Path(sys.argv[1]))
