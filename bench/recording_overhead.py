"""What does a recorder add to a hooked call and to a step, when it records nothing and when it records?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import nn

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.table import Table, spread

FEW, MANY = 10, 210
"""Hooked modules; what MANY cost beyond FEW is the cost of a call, what is left is that of a step."""
BATCH, WIDTH = 8, 4
IDLE_STEPS, DUE_STEPS = 400, 10
REPETITIONS = 15
SITES = ["*.output"]
NEVER = 10**9
"""A period that no step of this program reaches again after step 0."""

BARE = "no recorder"
EMPTY_HOOKS = "an empty Python hook a module"
IDLE = "recorder open, no step due"
DUE = "recorder open, every step due"


class Calls:
    """Steps that call a chain of modules which do nothing, inside a recorder or not."""

    def __init__(self, model: nn.Module, enter: Callable[[int], AbstractContextManager[object]] | None) -> None:
        self.model = model
        self.enter = enter
        self.step = 1
        self.x = torch.rand(BATCH, WIDTH, generator=torch.Generator().manual_seed(1))

    def take(self, steps: int) -> float:
        """Take `steps` steps and return the seconds that one took."""
        model, x, enter = self.model, self.x, self.enter
        start = perf_counter()
        if enter is None:
            for _ in range(steps):
                model(x)
        else:
            for step in range(self.step, self.step + steps):
                with enter(step):
                    model(x)
        took = perf_counter() - start
        self.step += steps
        return took / steps


def chain(length: int) -> nn.Module:
    return nn.Sequential(*(nn.Identity() for _ in range(length)))


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    few, many, repetitions = (1, 3, 1) if quick else (FEW, MANY, REPETITIONS)
    steps = {BARE: IDLE_STEPS, EMPTY_HOOKS: IDLE_STEPS, IDLE: IDLE_STEPS, DUE: DUE_STEPS}
    if quick:
        steps = dict.fromkeys(steps, 2)
    torch.set_num_threads(1)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    calls: dict[str, dict[int, Calls]] = {name: {} for name in steps}
    with ExitStack() as stack:
        for length in (few, many):
            hooked = chain(length)
            for module in hooked.children():
                module.register_forward_hook(lambda module, inputs, output: None)
            calls[BARE][length], calls[EMPTY_HOOKS][length] = Calls(chain(length), None), Calls(hooked, None)
            for name, every in ((IDLE, NEVER), (DUE, 1)):
                recorded = chain(length)
                run = lamina.Run.create(paths.SCRATCH / f"{length}-every-{every}")
                recorder = stack.enter_context(lamina.record(recorded, run, sites=SITES, every=every))
                with recorder.step(0, example=range(BATCH)):
                    recorded(torch.zeros(BATCH, WIDTH))
                calls[name][length] = Calls(recorded, partial(recorder.step, example=range(BATCH)))
        cases: dict[str, Case] = {}
        for name, by_length in calls.items():
            cases[name] = partial(seconds_of, by_length, steps[name])
            cases[name]()
        seconds = interleave(cases, repetitions, "steps")
        taken = calls[DUE][few].step
    agree(lamina.open(paths.SCRATCH / f"{few}-every-1"), calls[DUE][few].x, taken, few)
    shutil.rmtree(paths.SCRATCH)

    rows = []
    for name, phases in seconds.items():
        # Paired by repetition: neighbors in time share the machine's mood.
        bare = seconds[BARE] if name != BARE else {str(length): [0.0] * repetitions for length in (few, many)}
        low, high = (np.subtract(phases[str(length)], bare[str(length)]) for length in (few, many))
        call = (high - low) / (many - few)
        cost = {"a hooked call": spread((1e6 * call).tolist()), "a step": spread((1e6 * (low - few * call)).tolist())}
        rows.append(
            {"case": name}
            | {
                f"{what}, us": f"{took.median:.2f} ({took.lower:.2f} to {took.upper:.2f})"
                for what, took in cost.items()
            }
        )
    Table(
        question="What does a recorder add to a hooked call and to a step?",
        columns=["case", "a hooked call, us", "a step, us"],
        rows=rows,
        notes=[
            f"chains of {few} and of {many} modules that do nothing, one thread; the difference gives a call, the rest "
            "a step; the first row is the modules' own cost, the others are what comes on top of it",
            f"{repetitions} interleaved repetitions of {steps[IDLE]} steps ({steps[DUE]} that are due); "
            "median (quartiles) of differences within a repetition",
            "the limit of anything that uses forward hooks is an empty hook a module",
            f"due: {BATCH} rows of {WIDTH} floats a site, so that bytes cost nothing: what is left is bookkeeping",
            "goals: 3 us a hooked call and 20 us a step for the idle recorder",
            "all rows of the due steps were read back and were right",
        ],
        packages=["lamina", "torch"],
        samples=seconds,
    ).publish("recording_overhead", quick=quick)


def seconds_of(by_length: dict[int, Calls], steps: int) -> dict[str, float]:
    return {str(length): calls.take(steps) for length, calls in by_length.items()}


def agree(run: lamina.Run, x: torch.Tensor, steps: int, sites: int) -> None:
    """Check that every due step is there, at every site."""
    expected = np.concatenate([np.zeros((BATCH, WIDTH), np.float32), np.tile(x.numpy(), (steps - 1, 1))])
    for site in range(sites):
        found = run.rows(f"{site}.output").gather(range(BATCH * steps)).numpy()
        Within(0).check(f"site {site}", {"rows": found}, {"rows": expected})


if __name__ == "__main__":
    main()
