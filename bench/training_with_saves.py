"""What does a save every ten steps add to the training of a language model?"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import lamina
from bench import paths
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.language_model import Training
from bench.table import Table, spread

EVERY, SAVES = 10, 3
REPETITIONS = 7
NONE = "no saves"


def parts(training: Training) -> dict[str, Any]:
    """The weights and what the optimizer keeps of them."""
    return {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}


def size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(size, items))


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    every, repetitions = (1, 1) if quick else (EVERY, REPETITIONS)
    torch.set_num_threads(1)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    training = Training()
    training.update()
    run = lamina.Run.create(paths.SCRATCH / "run")
    steps, blocked = itertools.count(), list[float]()
    with run.writer() as writer:

        def steps_with(save: Callable[[], Any] | None) -> Case:
            def case() -> dict[str, float]:
                start = perf_counter()
                for _ in range(SAVES):
                    for _ in range(every):
                        training.update()
                    if save is not None:
                        save()
                return {"time": (perf_counter() - start) / SAVES / every}

            return case

        def through_lamina() -> None:
            start = perf_counter()
            writer.save(parts(training), step=next(steps))
            blocked.append(perf_counter() - start)

        def through_torch() -> None:
            path: Path = paths.SCRATCH / "state.pt"
            torch.save(parts(training), path)

        through_lamina()
        cases = {
            NONE: steps_with(None),
            "lamina, save": steps_with(through_lamina),
            "torch.save, not synced": steps_with(through_torch),
        }
        for case in cases.values():
            case()
        blocked.clear()
        seconds = interleave(cases, repetitions, "training")
    last = max(run.refresh().checkpoints().select("step").collect().to_series())
    found = run.load(last, part="model")
    assert found.keys() == training.model.state_dict().keys()
    shutil.rmtree(paths.SCRATCH)
    none = seconds[NONE]["time"]
    rows = []
    for name, phases in seconds.items():
        took = spread(phases["time"])
        ratios = spread([mine / base for mine, base in zip(phases["time"], none, strict=True)])
        rows.append(
            {
                "way": name,
                "a step, ms": 1e3 * took.median,
                "quartiles, ms": f"{1e3 * took.lower:.4g} to {1e3 * took.upper:.4g}",
                "more than none, %": f"{100 * (ratios.median - 1):.1f}",
                "quartiles, %": f"{100 * (ratios.lower - 1):.1f} to {100 * (ratios.upper - 1):.1f}",
                "a save holds up, ms": 1e3 * spread(blocked).median if name.startswith("lamina") else None,
            }
        )
    Table(
        question="What does a save every ten steps add to the training of a language model?",
        columns=["way", "a step, ms", "quartiles, ms", "more than none, %", "quartiles, %", "a save holds up, ms"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions of {SAVES * every} steps of `bench/language_model.py`",
            "torch works on one thread",
            f"saved every {every} steps: weights and optimizer, {size(parts(training)) / 1e6:.0f} MB, all changed",
            "% of the repetition beside it without saves",
            "lamina hashes and writes on threads of its own, on the other core; writing what the last save of a "
            "repetition staged may fall into the next case",
        ],
        packages=["lamina", "torch"],
        samples={name: dict(phases) for name, phases in seconds.items()},
    ).publish("training_with_saves", quick=quick)


if __name__ == "__main__":
    main()
