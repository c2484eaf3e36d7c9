"""Ways to take the training steps of a transformer: recorded by Lamina, by peers, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import nn

import lamina
from bench import transformer
from bench.plain_hooks import PlainHooks
from bench.transformer import NAMES

BATCH, POSITIONS = 8, 32


class Training:
    """A training of the model by AdamW.

    Attributes:
        step: The number of the next step.
        found: What was recorded last, by site.
    """

    def __init__(self) -> None:
        self.model = transformer.make(POSITIONS)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.ids = transformer.ids(BATCH, POSITIONS)
        self.step = 0
        self.found: dict[str, torch.Tensor] = {}

    def update(self, logits: torch.Tensor) -> None:
        """Make the step that the logits lead to."""
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), self.ids[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1


Way = Callable[[Path], AbstractContextManager[tuple[Training, Callable[[], None], Callable[[], None]]]]
"""Opens a training with a folder to write to; gives what takes a step, and what makes all that was recorded durable."""

Opened = Iterator[tuple[Training, Callable[[], None], Callable[[], None]]]


def _nothing() -> None:
    pass


@contextmanager
def bare(folder: Path) -> Opened:
    """Nobody watches."""
    training = Training()
    yield training, lambda: training.update(training.model(training.ids)), _nothing


def by_lamina(every: int) -> Way:
    """A recorder whose steps are due every so often."""

    @contextmanager
    def way(folder: Path) -> Opened:
        training, run = Training(), lamina.Run.create(folder)
        with lamina.record(training.model, run, sites=transformer.SITES, every=every) as recorder, run.writer() as log:

            def take() -> None:
                with recorder.step(training.step, example=range(BATCH)):
                    training.update(training.model(training.ids))

            # What a writer flushes is all that its log was given, the recorder's rows too.
            yield training, take, log.flush
        last, run = (training.step - 1) // every * every, run.refresh()
        for name in NAMES:
            rows = run.rows(name, step=last).gather(range(BATCH * POSITIONS))
            training.found[name] = rows.view(BATCH, POSITIONS, -1)

    return way


@contextmanager
def by_hand(folder: Path) -> Opened:
    """A hook a site, and torch.save of all of them in each step; nothing makes the files durable."""
    training = Training()
    modules = {name: training.model.get_submodule(name.removesuffix(".output")) for name in NAMES}
    hooks = PlainHooks(modules, folder)

    def take() -> None:
        training.update(training.model(training.ids))
        hooks.save()

    yield training, take, _nothing
    training.found = torch.load(folder / f"{hooks.files - 1}.pt")


@contextmanager
def by_transformer_lens(folder: Path) -> Opened:
    """`run_with_cache` on the same model with hook points in it: what it found stays in memory until the next step."""
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.HookedRootModule import HookedRootModule

    class Hooked(HookedRootModule):
        def __init__(self, model: transformer.Transformer) -> None:
            super().__init__()
            self.model = model
            for block in model.blocks:
                block.end = HookPoint()
            self.setup()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(ids)

    training = Training()
    model = Hooked(training.model)
    points = {name: f"model.{name.removesuffix('.output')}.end" for name in NAMES}

    def take() -> None:
        logits, cache = model.run_with_cache(training.ids, names_filter=list(points.values()))
        training.found = {name: cache[point] for name, point in points.items()}
        training.update(logits)

    yield training, take, _nothing


@contextmanager
def by_nnsight(folder: Path) -> Opened:
    """A trace that saves the outputs of the same modules: they stay in memory until the next step."""
    backward = torch.Tensor.backward
    import nnsight

    # nnsight's own parses the source of whoever calls it: the other ways would pay for that too.
    torch.Tensor.backward = backward

    training = Training()
    model = nnsight.NNsight(training.model)

    def take() -> None:
        outputs, logits = [], training.ids
        with model.trace(training.ids):
            outputs = nnsight.save([block.output for block in model.blocks])
            logits = model.output.save()
        training.found = dict(zip(NAMES, outputs, strict=True))
        training.update(logits)

    yield training, take, _nothing
