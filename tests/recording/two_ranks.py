"""What one of two processes does for `test_ranks`: the same training by DDP and by FSDP2, and what they must refuse.

Weights, data and rates are halves, quarters, … in float64 and few enough that nothing is ever rounded: whatever order
sums are taken in, two processes give the numbers of one, bit for bit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError, SchemaError
from lamina.modules.sharded import is_sharded
from tests.recording.noise_of_ranks import noise_scales

STEPS, BATCH, RANKS = 3, 8, 2
SITES = ["**.output", "output.grad", "module.weight", "*.weight.grad", "head.bias.update", "*.weight.momentum_buffer"]


class Net(nn.Module):
    """Rows that two ranks divide unevenly (3) or not at all (1), and a child that is really called `module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(4, 3)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.module(x)))


def net() -> Net:
    generator = torch.Generator().manual_seed(0)
    model = Net().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 4, parameter.shape, generator=generator) / 2)
    return model


def batches() -> list[torch.Tensor]:
    """Return the examples of each step; the last column is what the loss multiplies the output with."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randint(-2, 3, (STEPS, BATCH, 5), generator=generator).double())


def own(rank: int | None) -> slice:
    """Return which examples of a batch a rank has; None are all."""
    size = BATCH // RANKS
    return slice(None) if rank is None else slice(rank * size, (rank + 1) * size)


def probe(rank: int | None) -> dict[str, torch.Tensor]:
    return {"x": batches()[0][own(rank), :4] + 1, "example": torch.arange(BATCH)[own(rank)]}


def train(model: nn.Module, run: lamina.Run, rank: int | None, **options: Any) -> None:
    """Train on this rank's part of every batch; example 100 s + i is item i of step s."""
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-3, momentum=0.5)
    with lamina.record(model, run, sites=SITES, optimizer=optimizer, **options) as recorder:
        for step, batch in enumerate(batches()):
            mine = batch[own(rank)]
            with recorder.step(step, example=100 * step + torch.arange(BATCH)[own(rank)]):
                losses = model(mine[:, :4])[:, 0] * mine[:, 4]
                recorder.put("losses", losses)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
            recorder.log({"loss": losses.mean()})


def open_together(path: Path, rank: int) -> lamina.Run:
    if rank == 0:
        lamina.Run.create(path)
    torch.distributed.barrier()
    run = lamina.open(path)
    # both have looked at what is there before one of them adds to it
    torch.distributed.barrier()
    return run


def in_parallel(folder: Path, rank: int) -> None:
    model = nn.parallel.DistributedDataParallel(net())
    train(model, open_together(folder / "ddp", rank), rank, checkpoint_every=2, probes={"fixed": probe(rank)})


def compiled(folder: Path, rank: int) -> None:
    """A compiled model in parallel, and a parallel model that is compiled."""
    within = nn.parallel.DistributedDataParallel(torch.compile(net(), backend="aot_eager"))  # pyright: ignore
    train(within, open_together(folder / "within", rank), rank, checkpoint_every=2)
    around: Any = torch.compile(nn.parallel.DistributedDataParallel(net()), backend="aot_eager")
    train(around, open_together(folder / "around", rank), rank, checkpoint_every=2)


def in_shards(folder: Path, rank: int) -> None:
    """FSDP2, with a replay of what it saved."""
    from torch.distributed.fsdp import fully_shard

    run = open_together(folder / "fsdp", rank)
    model = net()
    for module in (model.head, model):
        fully_shard(module)
    with torch.no_grad():
        # FSDP2 keeps whole copies of some weights after this, and they are none to record.
        model(torch.zeros(2, 4, dtype=torch.float64))
    assert not all(is_sharded(parameter) for parameter in model.parameters())
    lamina.record(model, run, sites=[])
    assert all(is_sharded(parameter) for parameter in model.parameters())
    train(model, run, rank, checkpoint_every=2, probes={"fixed": probe(rank)})
    final = {name: value.full_tensor() for name, value in model.state_dict().items()}
    lamina.capture(model, run, probe(rank), sites="**.output", steps=[0, 2], source="replayed", progress=False)
    assert all(torch.equal(value.full_tensor(), final[name]) for name, value in model.state_dict().items())
    torch.distributed.barrier()
    with pytest.raises(RecordingError, match="cannot keep the state"):
        lamina.record(model, run, sites=SITES[:1], flight=lamina.Flight())
    with run.writer() as writer, pytest.raises(SchemaError, match=r"'module.weight' is divided among processes"):
        writer.save({"model": model.state_dict()}, step=9)


def without_names(folder: Path, rank: int) -> None:
    """Items that nobody named, of a model that ranks do not share."""
    run, model = open_together(folder / "unnamed", rank), nn.Linear(2, 2)
    with lamina.record(model, run, sites="output", checkpoint_every={0}) as recorder:
        for step in range(2):
            with recorder.step(step):
                model(torch.ones(3, 2))
    # A second recording begins behind the first one's last number, 10 or 11, on every rank.
    torch.distributed.barrier()
    with lamina.record(model, run.refresh(), sites="output") as recorder, recorder.step(2):
        # Both have looked at what is there before one of them adds to it.
        torch.distributed.barrier()
        model(torch.ones(3, 2))


def captured_again(folder: Path, rank: int) -> None:
    """A capture that stops at another batch on each rank, and goes on."""

    class Trips(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == stops:
                raise KeyboardInterrupt
            return x + 1

    run = open_together(folder / "captured", rank)
    # Examples 0, 1, 4, 5, … are the first rank's.
    examples = torch.arange(20).view(5, 2, 2)[:, rank]
    batches = [{"x": one[:, None].double(), "example": one} for one in examples]
    stops: int | None = 2 + 2 * rank
    with pytest.raises(KeyboardInterrupt):
        lamina.capture(Trips(), run, batches, sites="output", progress=False)
    torch.distributed.barrier()
    stops, again = None, Trips()
    lamina.capture(again, run.refresh(), batches, sites="output", resume=True, progress=False)
    # The last batch that is there is passed once more.
    assert again.calls == (5 if rank == 0 else 3), again.calls


def in_columns(folder: Path, rank: int) -> None:
    """What is divided by columns has no rows."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    model = nn.Linear(4, 4, bias=False)
    whole = distribute_tensor(torch.ones(4, 4), init_device_mesh("cpu", (RANKS,)), [Shard(1)])
    assert isinstance(whole, DTensor)
    model.weight = nn.Parameter(whole)
    run = open_together(folder / "columns", rank)
    with pytest.raises(RecordingError, match=r"'weight' is divided among ranks as S"):
        lamina.record(model, run, sites="weight")
    with (
        lamina.record(model, run, sites=[]) as recorder,
        recorder.step(0, example=range(4)),
        pytest.raises(RecordingError, match="divided among ranks"),
    ):
        recorder.put("whole", whole)


WORKS: dict[str, list[Callable[[Path, int], None]]] = {
    "usual": [in_parallel, in_shards, without_names, captured_again, in_columns, noise_scales],
    "compiled": [compiled],
}


def spawn(folder: Path, works: str) -> None:
    """Run two processes, and beside what they leave make the run of one."""
    command = [sys.executable, "-m", "tests.recording.two_ranks"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(folder), works], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(RANKS)
    ]
    try:
        outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    # who ends first takes the others along: what it said is asked of all
    assert not any(rank.returncode for rank in ranks), "\n".join(outputs)
    alone = lamina.Run.create(folder / "alone")
    train(net(), alone, None, checkpoint_every=2, probes={"fixed": probe(None)})


def main(rank: int, folder: Path, works: str) -> None:
    saves: Counter[str] = Counter()
    whole = lamina.runs.Writer.save

    def save(self: lamina.runs.Writer, parts: dict[str, Any], *, step: int) -> Any:
        ticket = whole(self, parts, step=step)
        saves[self._path.name] += 1
        return ticket

    lamina.runs.Writer.save = save
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=RANKS, timeout=timedelta(seconds=90)
    )
    for work in WORKS[works]:
        work(folder, rank)
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    (folder / f"saves-{rank}.json").write_text(json.dumps(saves))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
