"""What does capturing all layers of MiniLM over Python's documentation take beyond the bare forward pass?

Takes three minutes: every pass reads all of the documentation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from time import perf_counter, process_time
from typing import Any

import torch
from torch import nn

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.plain_hooks import PlainHooks
from bench.table import Table, spread
from lamina.demo.documentation import batches, windows
from lamina.demo.minilm import SITES, load_minilm, texts

REPETITIONS = 3
BARE, LAMINA, PLAIN = "forward pass", "lamina.capture", "plain hooks + torch.save"


def forward(model: nn.Module, data: Sequence[Mapping[str, Any]], behind: Callable[[], None] = lambda: None) -> None:
    """The bare pass: what capturing cannot do without."""
    with torch.no_grad():
        for batch in data:
            model(input_ids=batch["input_ids"])
            behind()


def captured(model: nn.Module, data: Sequence[Mapping[str, Any]]) -> None:
    """Until the run is closed, with all of its rows durable."""
    run = lamina.Run.create(paths.SCRATCH / "run")
    lamina.capture(model, run, data, sites=SITES, progress=False)


def timed(act: Callable[[], None], *folders: str) -> Case:
    def seconds() -> dict[str, float]:
        for folder in folders:
            shutil.rmtree(paths.SCRATCH / folder, ignore_errors=True)
        start, busy = perf_counter(), process_time()
        act()
        return {"time": perf_counter() - start, "cpu": process_time() - busy}

    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    repetitions = 1 if quick else REPETITIONS
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    encoder = load_minilm()
    parts = windows(texts(1 if quick else None), encoder.tokenizer)[: 2 if quick else None]
    data = batches(parts)
    sites = ["embeddings.output", *(f"encoder.layer.{layer}.output" for layer in range(6))]

    def by_hand() -> None:
        modules = {site: encoder.model.get_submodule(site.removesuffix(".output")) for site in sites}
        hooks = PlainHooks(modules, paths.SCRATCH / "plain")
        forward(encoder.model, data, hooks.save)
        hooks.remove()

    bare, capture = timed(lambda: forward(encoder.model, data)), timed(lambda: captured(encoder.model, data), "run")
    some = data[:2]
    for act in (lambda: forward(encoder.model, some), lambda: captured(encoder.model, some)):
        timed(act, "run")()
    seconds = interleave({BARE: bare, LAMINA: capture}, repetitions, "MiniLM")
    # Each capture has a forward pass on either side.
    for phase, value in bare().items():
        seconds[BARE][phase].append(value)
    seconds |= interleave({PLAIN: timed(by_hand, "plain")}, 1, "plain hooks")
    agree(lamina.open(paths.SCRATCH / "run"), sites, len(data))
    shutil.rmtree(paths.SCRATCH)
    tokens = sum(len(window.ids) for window in parts)
    rows = []
    for name, phases in seconds.items():
        took = spread(phases["time"])
        rows.append(
            {
                "case": name,
                "median, s": took.median,
                "min, s": took.least,
                "quartiles, s": f"{took.lower:.3g} to {took.upper:.3g}",
                "added, %": None if name == BARE else added(phases, seconds[BARE], "time"),
                "CPU, s": spread(phases["cpu"]).median,
                "added CPU, %": None if name == BARE else added(phases, seconds[BARE], "cpu"),
                "tokens a second": tokens / took.median,
            }
        )
    Table(
        question="What does capturing all layers of MiniLM over Python's documentation take beyond the forward pass?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            f"{tokens:,} tokens of the topics of pydoc in {len(parts)} windows, {torch.get_num_threads()} threads; the "
            f"embeddings and six layers of d = 384, {len(sites) * tokens * 384 * 4 / 1e9:.2f} GB in float32",
            f"{repetitions} captures, with a forward pass before, between and behind them; added: beyond the mean of "
            "the two around it, median (quartiles); the plain hooks ran once, behind all",
            "CPU: of all threads of the process, those that write among them; what other processes take is not in it",
            "lamina: from an empty folder to a closed run, all rows durable; torch.save: in the page cache",
            "goal: 10 %",
            "all rows were equal to those of the plain hooks, bit for bit",
        ],
        packages=["lamina", "torch", "transformers"],
        samples=seconds,
    ).publish("capturing", quick=quick)


def added(case: Mapping[str, Sequence[float]], bare: Mapping[str, Sequence[float]], phase: str) -> str:
    """Tell what a case takes beyond the forward passes before and behind it: neighbors share the machine's mood."""
    pairs = list(pairwise(bare[phase]))
    # What ran once ran last.
    more = spread(
        [100 * (2 * one / sum(pair) - 1) for one, pair in zip(case[phase], pairs[-len(case[phase]) :], strict=True)]
    )
    return f"{more.median:.1f} ({more.lower:.1f} to {more.upper:.1f})"


def agree(run: lamina.Run, sites: Sequence[str], files: int) -> None:
    """Check all rows against those that plain hooks kept."""
    rows, first = {site: run.rows(site) for site in sites}, 0
    for number in range(files):
        kept = torch.load(paths.SCRATCH / "plain" / f"{number}.pt")
        size = kept[sites[0]].shape[:2].numel()
        for site in sites:
            found = rows[site].gather(range(first, first + size))
            Within(0).check(f"{site}, batch {number}", {"rows": found}, {"rows": kept[site].flatten(0, 1)})
        first += size
    assert first == len(rows[sites[0]]), f"{len(rows[sites[0]])} rows, where there are {first} tokens"


if __name__ == "__main__":
    main()
