"""What does a probe of 1,024 examples take beyond the bare forward pass over them?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import perf_counter

import torch

import lamina
from bench import paths, transformer
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.plain_hooks import PlainHooks
from bench.table import Table, spread
from bench.transformer import NAMES

EXAMPLES, BATCH, POSITIONS = 1024, 64, 32
REPETITIONS = 5
NEVER = 10**9
BARE, LAMINA, PLAIN = "forward pass", "lamina probe", "plain hooks + torch.save"
Pass = Callable[[], None]


def forward(model: torch.nn.Module, batches: Sequence[torch.Tensor], behind: Pass = lambda: None) -> None:
    """The bare pass: what a probe cannot do without."""
    model.eval()
    with torch.no_grad():
        for batch in batches:
            model(batch)
            behind()
    model.train()


def case(act: Pass, flush: Pass) -> Case:
    def seconds() -> dict[str, float]:
        start = perf_counter()
        act()
        took = perf_counter() - start
        flush()
        return {"held": took, "durable": perf_counter() - start}

    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    examples, size, repetitions = (4, 2, 1) if quick else (EXAMPLES, BATCH, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    batches = list(transformer.ids(examples, POSITIONS).split(size))
    model, plain, recorded = (transformer.make(POSITIONS) for _ in range(3))
    modules = {name: plain.get_submodule(name.removesuffix(".output")) for name in NAMES}
    hooks = PlainHooks(modules, paths.SCRATCH / "plain")
    run = lamina.Run.create(paths.SCRATCH / "run")
    with ExitStack() as stack:
        probe = lamina.Probe(batches, every=1)
        recorder = lamina.record(recorded, run, sites=transformer.SITES, every=NEVER, probes={"validation": probe})
        stack.enter_context(recorder)
        # What a writer flushes is all that its log was given, the recorder's rows too.
        flush = stack.enter_context(run.writer()).flush
        with recorder.step(0, example=range(size)):
            recorded(batches[0])
        steps = iter(range(1, NEVER))

        def probed() -> None:
            with recorder.step(next(steps)):
                pass

        def by_hand() -> None:
            hooks.clear()
            forward(plain, batches, hooks.save)

        cases = {
            BARE: case(lambda: forward(model, batches), lambda: None),
            LAMINA: case(probed, flush),
            PLAIN: case(by_hand, lambda: None),
        }
        for one in cases.values():
            one()
        agree(run.refresh(), hooks)
        seconds = interleave(cases, repetitions, "passes")
    shutil.rmtree(paths.SCRATCH)
    rows = []
    for name, phases in seconds.items():
        held, durable = spread(phases["held"]), spread(phases["durable"])
        # Paired by repetition: neighbors in time share the machine's mood.
        more = {
            what: spread([100 * (a / b - 1) for a, b in zip(phases[what], seconds[BARE][what], strict=True)])
            for what in phases
        }
        rows.append(
            {"case": name, "median, s": held.median, "min, s": held.least, "until durable, s": durable.median}
            | {
                f"{what}: added, %": None if name == BARE else f"{one.median:.1f} ({one.lower:.1f} to {one.upper:.1f})"
                for what, one in more.items()
            }
        )
    Table(
        question="What does a probe of 1,024 examples take beyond the bare forward pass?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            f"a transformer of {transformer.LAYERS} layers, d = {transformer.WIDTH}; {examples} examples of {POSITIONS}"
            f" tokens in batches of {size}, {torch.get_num_threads()} threads; the outputs of all layers, "
            f"{len(NAMES) * examples * POSITIONS * transformer.WIDTH * 4 / 1e6:.0f} MB a pass",
            f"{repetitions} interleaved repetitions; added: beyond the forward pass of the same repetition, median "
            "(quartiles)",
            "held: how long the training waits; durable: until all rows survive a power cut; torch.save: in the page "
            "cache",
            "goal: 5 %",
            "all rows were equal to those of the plain hooks, bit for bit",
        ],
        packages=["lamina", "torch"],
        samples=seconds,
    ).publish("probing", quick=quick)


def agree(run: lamina.Run, hooks: PlainHooks) -> None:
    """Check the rows of the last probe against what plain hooks kept."""
    files = [torch.load(hooks.folder / f"{number}.pt") for number in range(hooks.files)]
    for name in NAMES:
        rows = run.rows(name, step=1, source="validation")
        expected = torch.cat([file[name].flatten(0, 1) for file in files])
        Within(0).check(name, {"rows": rows.gather(range(len(rows)))}, {"rows": expected})


if __name__ == "__main__":
    main()
