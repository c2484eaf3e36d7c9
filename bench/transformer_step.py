"""What does recording six sites add to the training step of a transformer of six layers, d = 384?"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from time import perf_counter

import torch

from bench import paths, step_ways
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.step_ways import BATCH, POSITIONS, Training, Way
from bench.table import Table, spread
from bench.transformer import LAYERS, WIDTH

PERIOD = 50
BARE, RARE, EACH = "no recorder", f"lamina, 1 step in {PERIOD}", "lamina, every step"
WAYS: dict[str, Way] = {
    BARE: step_ways.bare,
    RARE: step_ways.by_lamina(PERIOD),
    EACH: step_ways.by_lamina(1),
    "plain hooks + torch.save, every step": step_ways.by_hand,
    "TransformerLens run_with_cache, every step": step_ways.by_transformer_lens,
    "nnsight trace, every step": step_ways.by_nnsight,
}
PEER_STEPS = 20
REPETITIONS = 5


def steps_of(take: Callable[[], None], flush: Callable[[], None], steps: int) -> dict[str, float]:
    """Take steps; return the seconds of one, and the same until all that was recorded is durable."""
    start = perf_counter()
    for _ in range(steps):
        take()
    taken = perf_counter()
    flush()
    return {"step": (taken - start) / steps, "durable": (perf_counter() - start) / steps}


def agree() -> None:
    """Check that all ways find the same rows and train the same weights."""
    first: dict[str, Training] = {}
    for name, way in WAYS.items():
        with way(paths.SCRATCH / "agree" / str(len(first))) as (first[name], take, flush):
            steps_of(take, flush, 1)
    weights = first[BARE].model.state_dict()
    for name, training in first.items():
        if name != BARE:
            Within(0).check(name, training.found, first[EACH].found)
        for key, value in weights.items():
            assert torch.equal(training.model.get_parameter(key), value), f"{name} trained other weights: {key}"


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    long, short, repetitions = (1, 1, 1) if quick else (PERIOD, PEER_STEPS, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    (paths.SCRATCH / "agree").mkdir(parents=True)
    with warnings.catch_warnings(), ExitStack() as stack:
        # The peers' own imports.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        agree()
        cases: dict[str, Case] = {}
        for name, way in WAYS.items():
            _, take, flush = stack.enter_context(way(paths.SCRATCH / str(len(cases))))
            cases[name] = partial(steps_of, take, flush, long if name in (BARE, RARE, EACH) else short)
            if not quick:
                steps_of(take, flush, 2)
        seconds = interleave(cases, repetitions, "training")
    shutil.rmtree(paths.SCRATCH)
    rows = []
    for name, phases in seconds.items():
        step, durable = spread(phases["step"]), spread(phases["durable"])
        # Paired by repetition: neighbors in time share the machine's mood.
        added = [100 * (a / b - 1) for a, b in zip(phases["durable"], seconds[BARE]["durable"], strict=True)]
        more = spread(added)
        rows.append(
            {
                "case": name,
                "median, ms a step": 1e3 * step.median,
                "min, ms": 1e3 * step.least,
                "until durable, ms": 1e3 * durable.median,
                "added, %": None if name == BARE else f"{more.median:.1f} ({more.lower:.1f} to {more.upper:.1f})",
            }
        )
    Table(
        question="What does recording six sites add to a transformer's training step?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            f"{LAYERS} layers, d = {WIDTH}, {BATCH} x {POSITIONS} tokens, AdamW, float32, {torch.get_num_threads()} "
            f"threads; the outputs of all layers, {LAYERS * BATCH * POSITIONS * WIDTH * 4 / 1e6:.2f} MB a due step",
            f"{repetitions} interleaved repetitions of {long} steps ({short} of the peers'); added: what the step "
            "until durable takes beyond that of no recorder in the same repetition, median (quartiles)",
            "lamina: until the last row of the repetition is durable; torch.save: in the page cache; TransformerLens "
            "and nnsight keep what they found in memory until the next step, and write nothing",
            "goals: 2 % for 1 step in 50, 5 % for every step",
            "all ways found the same rows, bit for bit, and trained the same weights",
        ],
        packages=["lamina", "torch", "transformer-lens", "nnsight"],
        samples=seconds,
    ).publish("transformer_step", quick=quick)


if __name__ == "__main__":
    main()
