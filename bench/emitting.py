"""How long is a module held that emits 500 MB/s, all of it recorded durably, beside one memcpy of the same bytes?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from time import perf_counter

import torch
from torch import nn

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import interleave
from bench.plain_hooks import PlainHooks
from bench.table import Table, spread

RATE = 500e6
"""Bytes a second."""
SIZES = (2, 8, 32, 64)
"""MiB a step."""
SECONDS = 2.0
"""Of emission a repetition."""
REPETITIONS = 3
WIDTH = 1024
OUTPUTS = 8
"""Tensors that take turns, so that the cache does not hold the next one."""

LAMINA, PLAIN = "lamina", "plain hooks + torch.save"


class Emitter(nn.Module):
    """Returns one of its tensors."""

    def __init__(self, mebibytes: int, outputs: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(mebibytes)
        rows = (mebibytes << 20) // (4 * WIDTH)
        self.outputs = [torch.randn(rows, WIDTH, generator=generator) for _ in range(outputs)]

    def forward(self, step: int) -> torch.Tensor:
        return self.outputs[step % len(self.outputs)]


def paced(emit: Callable[[int], None], emitter: Emitter, steps: int, seconds: float) -> dict[str, list[float]]:
    """Emit at the rate, with a memcpy of as many bytes beside each emission; return what each of both took.

    They take turns at being the first behind the pause: whoever is finds threads asleep and caches that are cold.
    """
    outputs = len(emitter.outputs)
    target = torch.empty_like(emitter.outputs[0]).zero_()
    blocked, copied = [], []

    def timed(act: Callable[[], object], into: list[float]) -> None:
        began = perf_counter()
        act()
        into.append(perf_counter() - began)

    start = perf_counter()
    for step in range(steps):
        both = [
            partial(timed, partial(emit, step), blocked),
            partial(timed, partial(target.copy_, emitter.outputs[(step + outputs // 2) % outputs]), copied),
        ]
        for act in both if step % 2 else reversed(both):
            act()
        # Whoever was held for longer than a step's time is late, and stays late: the rate tells.
        time.sleep(max(0.0, start + (step + 1) * seconds - perf_counter()))
    return {"blocked": blocked, "memcpy": copied, "whole": [perf_counter() - start]}


def through_lamina(emitter: Emitter, steps: int, seconds: float, *, check: bool = False) -> dict[str, list[float]]:
    run = lamina.Run.create(paths.SCRATCH / "run")
    with ExitStack() as stack:
        recorder = stack.enter_context(lamina.record(emitter, run, sites="output"))

        def emit(step: int) -> None:
            with recorder.step(step, example=examples):
                emitter(step)

        examples = range(len(emitter.outputs[0]))
        phases = paced(emit, emitter, steps, seconds)
        ended = perf_counter()
    phases["behind"] = [perf_counter() - ended]
    rows = run.refresh().rows("output")
    assert len(rows) == steps * len(examples), f"{len(rows)} rows of {steps * len(examples)} are there"
    if check:
        for step, found in enumerate(rows.blocks(len(examples))):
            Within(0).check(f"step {step}", {"rows": found}, {"rows": emitter(step)})
    shutil.rmtree(paths.SCRATCH / "run")
    return phases


def by_hand(emitter: Emitter, steps: int, seconds: float) -> dict[str, list[float]]:
    hooks = PlainHooks({"output": emitter}, paths.SCRATCH / "plain")

    def emit(step: int) -> None:
        emitter(step)
        hooks.save()

    phases = paced(emit, emitter, steps, seconds)
    hooks.remove()
    hooks.clear()
    return phases


WRITERS = {LAMINA: through_lamina, PLAIN: by_hand}
PHASES = ("blocked", "memcpy")


def one_repetition(
    taken: list[dict[str, list[float]]],
    write: Callable[[Emitter, int, float], dict[str, list[float]]],
    emitter: Emitter,
    steps: int,
    seconds: float,
) -> dict[str, float]:
    phases = write(emitter, steps, seconds)
    taken.append(phases)
    return {"whole": phases["whole"][0]}


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    sizes, repetitions, outputs, lasting = ((1,), 1, 2, 0.02) if quick else (SIZES, REPETITIONS, OUTPUTS, SECONDS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    rows, samples = [], {}
    for size in sizes:
        emitter, seconds = Emitter(size, outputs), (size << 20) / RATE
        steps = max(3, round(lasting / seconds))
        through_lamina(emitter, steps, seconds, check=True)
        taken: dict[str, list[dict[str, list[float]]]] = {name: [] for name in WRITERS}
        cases = {name: partial(one_repetition, taken[name], WRITERS[name], emitter, steps, seconds) for name in WRITERS}
        interleave(cases, repetitions, f"{size} MiB a step")
        samples[f"{size} MiB"] = taken
        for name, parts in taken.items():
            # The first steps find no memory that is there already.
            blocked, copied = ([1e3 * v for part in parts for v in part[what][steps // 4 :]] for what in PHASES)
            held, copy = spread(blocked), spread(copied)
            behind = [1e3 * part["behind"][0] for part in parts if "behind" in part]
            rows.append(
                {
                    "MiB a step": size,
                    "writer": name,
                    "blocked, ms": held.median,
                    "quartiles, ms": f"{held.lower:.3g} to {held.upper:.3g}",
                    "memcpy, ms": copy.median,
                    "blocked / memcpy": f"{held.median / copy.median:.2f}",
                    "means": f"{sum(blocked) / sum(copied):.2f}",
                    "MB/s": steps * (size << 20) / spread([part["whole"][0] for part in parts]).median / 1e6,
                    "durable behind the end, ms": spread(behind).median if behind else None,
                }
            )
    shutil.rmtree(paths.SCRATCH)
    Table(
        question="How long is a module held that emits 500 MB/s, all of it recorded durably?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions of {lasting:g} s of float32 rows of {WIDTH}; the first quarter of "
            "the steps, in which memory is mapped, left out",
            "blocked: the whole step, which does nothing but emit; memcpy: as many bytes into a buffer that is there; "
            "they take turns at being the first behind the pause; `means` is the ratio of the means",
            "lamina: durable within a second, and all of it when the recorder is closed; torch.save: in the page cache",
            "goal: blocked at most 1.3 memcpy, nothing dropped: all rows were counted in each repetition, and compared "
            "in the first one",
        ],
        packages=["lamina", "torch"],
        samples=samples,
    ).publish("emitting", quick=quick)


if __name__ == "__main__":
    main()
