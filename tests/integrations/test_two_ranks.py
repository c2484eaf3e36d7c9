"""The loops of libraries on two processes: every rank writes the rows of its own examples into one run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import lamina

SITES = {
    "lightning": ("model.3.output", "model.0.weight.grad", 8),
    "transformers": ("transformer.h.0.mlp.output", "transformer.h.0.mlp.c_fc.weight.grad", 16),
}


@pytest.mark.slow  # two processes a library, each of which imports all of it
@pytest.mark.parametrize("name", list(SITES))
def test_each_rank_writes_its_own_rows(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name, exc_type=ImportError)
    run = lamina.Run.create(tmp_path / "run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"TORCHELASTIC_RUN_ID": "two", "GROUP_RANK": "0", "HF_HUB_OFFLINE": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integrations.two_ranks", name, str(tmp_path)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, output in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, output

    site, gradient, units = SITES[name]
    frame = run.refresh().activations(site).sort("row").collect()
    examples = []
    for rank in range(2):
        own = frame.filter(pl.col("rank") == rank)
        seen = torch.load(tmp_path / f"seen-{rank}.pt")[site]
        stored = torch.from_numpy(own[site].to_numpy().copy()).reshape(-1, own[site].dtype.size)  # pyright: ignore
        assert torch.equal(stored, torch.cat([one.flatten(0, -2) for one in seen]))
        examples.append(set(own["example"]))
    assert len(examples[0] | examples[1]) == 32
    assert examples[0].isdisjoint(examples[1])
    # What all ranks share the first one writes.
    shares = run.activations(gradient).collect()
    assert set(shares["rank"]) == {0}
    assert shares.height == len(run.steps()) * units
    assert run.checkpoints().select("step").collect()["step"].unique().sort().to_list()[:2] == [0, 2]
    assert run.status.state == "finished"
