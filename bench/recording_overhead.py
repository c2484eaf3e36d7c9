"""What does recording add to a training step, when it records nothing and when it records?"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from time import perf_counter

import torch
from torch import nn

import lamina
from bench import paths
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.table import Table, spread

STEPS = 200
REPETITIONS = 15
BATCH = 64
SITES = ["*.output"]
NEVER = 10**9
"""A period that no step of this program reaches again after step 0."""

BARE = "no recorder"
EMPTY_HOOKS = "an empty Python hook a module"
IDLE = "recorder open, no step due"
DUE = "recorder open, every step due"


class Training:
    """A training loop of the digits' size whose steps can stand inside a recorder."""

    def __init__(
        self, model: nn.Module, enter: Callable[[int], AbstractContextManager[object]] | None, steps: int
    ) -> None:
        self.model = model
        self.steps = steps
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        self.enter = enter
        self.step = 1
        generator = torch.Generator().manual_seed(1)
        self.x = torch.rand(BATCH, 64, generator=generator)
        self.y = torch.randint(0, 10, (BATCH,), generator=generator)

    def train(self) -> dict[str, float]:
        """Train `steps` steps and return the seconds that one took."""
        start = perf_counter()
        for _ in range(self.steps):
            if self.enter is None:
                self.update()
            else:
                with self.enter(self.step):
                    self.update()
            self.step += 1
        return {"step": (perf_counter() - start) / self.steps}

    def update(self) -> None:
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    steps, repetitions = (3, 1) if quick else (STEPS, REPETITIONS)
    torch.set_num_threads(1)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    hooked = copy.deepcopy(model)
    for module in hooked.children():
        module.register_forward_hook(lambda module, inputs, output: None)
    trainings = {BARE: Training(copy.deepcopy(model), None, steps), EMPTY_HOOKS: Training(hooked, None, steps)}
    with ExitStack() as stack:
        for name, every in ((IDLE, NEVER), (DUE, 1)):
            recorded = copy.deepcopy(model)
            run = lamina.Run.create(paths.SCRATCH / f"every-{every}")
            recorder = stack.enter_context(lamina.record(recorded, run, sites=SITES, every=every))
            with recorder.step(0, example=range(BATCH)):
                recorded(torch.zeros(BATCH, 64))
            trainings[name] = Training(recorded, partial(recorder.step, example=range(BATCH)), steps)
        cases: dict[str, Case] = {name: training.train for name, training in trainings.items()}
        for case in cases.values():
            case()
        agree(trainings)
        seconds = interleave(cases, repetitions, "training")
        agree(trainings)
    shutil.rmtree(paths.SCRATCH)
    bare = seconds[BARE]["step"]
    rows = []
    for name, phases in seconds.items():
        step = spread(phases["step"])
        # Paired by repetition: neighbors in time share the machine's mood.
        added = spread([a - b for a, b in zip(phases["step"], bare, strict=True)])
        rows.append(
            {
                "case": name,
                "median, us a step": 1e6 * step.median,
                "min, us a step": 1e6 * step.least,
                "added, us a step": None
                if name == BARE
                else f"{1e6 * added.median:.1f} ({1e6 * added.lower:.1f} to {1e6 * added.upper:.1f})",
            }
        )
    Table(
        question="What does recording add to a training step?",
        columns=["case", "median, us a step", "min, us a step", "added, us a step"],
        rows=rows,
        notes=[
            f"an MLP 64-128-128-10 with ReLU, batch {BATCH}, SGD, one thread; five sites, 64 rows each, float32",
            f"{repetitions} interleaved repetitions of {steps} steps; added: median (quartiles)",
            "the limit of anything that uses forward hooks is an empty hook a module",
            "the weights of all four trainings were equal to the bit before and after",
        ],
        packages=["lamina", "torch"],
        samples=seconds,
    ).publish("recording_overhead", quick=quick)


def agree(trainings: dict[str, Training]) -> None:
    """Check that recording changed nothing: all trainings have the same weights."""
    bare = trainings[BARE].model.state_dict()
    for name, training in trainings.items():
        for key, value in training.model.state_dict().items():
            assert torch.equal(value, bare[key]), f"{name} trained other weights"


if __name__ == "__main__":
    main()
