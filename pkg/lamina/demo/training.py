"""One seed, trained twice side by side: plain, and with recording, so that the difference is what recording costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import lamina
from lamina.demo.digits import Digits
from lamina.demo.network import CHANNELS, HIDDEN, DigitNetwork

BATCH = 128
LEARNING_RATE = 1e-3
STRETCH = 50
"""Steps that one of the two trainings makes before it is the other's turn."""

DUE = lamina.log_then_linear(128, 100)
"""When activations and the validation are due: at 0, 1, 2, 4, … 128, then every 100 steps."""

KEPT_EVERY = 20
"""Steps between two checkpoints; one more is kept whenever the validation is due."""


def is_kept(step: int) -> bool:
    """Whether a checkpoint is due: 49 in 800 steps."""
    return DUE.due(step) or step % KEPT_EVERY == 0


def stretches(steps: int) -> list[range]:
    """Return the steps in the pieces in which the two trainings take turns."""
    return [range(first, min(first + STRETCH, steps)) for first in range(0, steps, STRETCH)]


def train(digits: Digits, folder: Path, *, seed: int, steps: int) -> Iterator[None]:
    """Train the network of a seed with recording into `folder`, and its twin without; yield after every stretch.

    Both see the same batches in the same order and take turns, so that a busy machine slows both. At the end the
    run holds what recording cost, with all that belongs to it (probes, checkpoints, the last sync), as the metrics
    `recording/seconds_without`, `recording/seconds_with`, `recording/percent` and `recording/milliseconds_a_step`;
    and as `recording/same_weights` 1 if the two networks are equal bit for bit.
    """
    batches = _batches(digits.train, steps=steps, seed=seed)
    plain, recorded = _Learner(digits, seed), _Learner(digits, seed)
    held_out, examples = digits.validation, digits.columns()
    with ExitStack() as stack:
        with recorded.timed():
            run = lamina.Run.create(folder, config=_config(seed, steps))
            with run.writer() as writer:
                writer.examples(examples)
            recorder = stack.enter_context(
                lamina.record(
                    recorded.network,
                    run,
                    # What `put` records follows `every`: the loss of each image is cheap enough for every step.
                    every=1,
                    sites=dict.fromkeys(("blocks.*.output", "output"), lamina.Site(every=DUE)),
                    checkpoint_every=is_kept,
                    probes={"validation": [{"images": digits.images[held_out], "example": held_out}]},
                    optimizer=recorded.optimizer,
                )
            )
        for k, stretch in enumerate(stretches(steps)):
            # Each goes first every other time, so that neither always finds the caches warm.
            for is_recorded in (False, True) if k % 2 else (True, False):
                if is_recorded:
                    with recorded.timed():
                        recorded.learn_recorded(stretch, batches, recorder)
                else:
                    with plain.timed():
                        plain.learn(stretch, batches)
            yield
        with plain.timed():
            plain.validate()
        with recorded.timed():
            recorder.log(recorded.validate(), step=steps)
            # On exit: the last checkpoint, the last probe, and all of it durable.
            stack.close()
    with run.writer() as writer:
        writer.log(_cost(plain, recorded, steps), step=steps)


class _Learner:
    """A network, its optimizer, and the seconds that it has trained."""

    def __init__(self, digits: Digits, seed: int) -> None:
        self.digits = digits
        self.network = DigitNetwork(seed)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def learn(self, stretch: range, batches: list[Tensor]) -> None:
        for step in stretch:
            if DUE.due(step):
                self.validate()
            self.update(batches[step])

    def learn_recorded(self, stretch: range, batches: list[Tensor], recorder: lamina.Recorder) -> None:
        """Do what `learn` does, with the three lines that record it."""
        for step in stretch:
            if DUE.due(step):
                recorder.log(self.validate(), step=step)
            with recorder.step(step, example=batches[step]):
                losses = self.update(batches[step])
                recorder.put("loss", losses)
            recorder.log({"train/loss": losses.mean()}, step=step)

    def update(self, batch: Tensor) -> Tensor:
        """Make one step and return the loss of each image before it, [batch]."""
        losses = cross_entropy(self.network(self.digits.images[batch]), self.digits.labels[batch], reduction="none")
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()
        return losses.detach()

    @torch.no_grad()
    def validate(self) -> dict[str, Tensor]:
        held_out = self.digits.validation
        logits, labels = self.network(self.digits.images[held_out]), self.digits.labels[held_out]
        correct = (logits.argmax(dim=1) == labels).float().mean()
        return {"validation/loss": cross_entropy(logits, labels), "validation/accuracy": 100 * correct}


def _batches(train: Tensor, *, steps: int, seed: int) -> list[Tensor]:
    """Return the indices of each step's images, [128]: whole passes over the training images, each shuffled."""
    generator = torch.Generator().manual_seed(seed)
    passes = -(-steps * BATCH // len(train))
    order = torch.cat([train[torch.randperm(len(train), generator=generator)] for _ in range(passes)])
    return list(order[: steps * BATCH].split(BATCH))


def _config(seed: int, steps: int) -> dict[str, object]:
    return {
        "description": "A small convolutional network learns to tell handwritten digits apart (scikit-learn's 1,797 "
        "images of 8 x 8 pixels, of which it never learns from 360), while Lamina records it.",
        "units": {"loss": "cross-entropy, nats", "accuracy": "percent correct"},
        "seed": seed,
        "channels": list(CHANNELS),
        "hidden units": HIDDEN,
        "optimizer": "Adam",
        "learning rate": LEARNING_RATE,
        "batch": BATCH,
        "steps": steps,
        "threads": torch.get_num_threads(),
    }


def _cost(plain: _Learner, recorded: _Learner, steps: int) -> dict[str, float]:
    pairs = zip(plain.network.parameters(), recorded.network.parameters(), strict=True)
    return {
        "recording/seconds_without": plain.seconds,
        "recording/seconds_with": recorded.seconds,
        "recording/percent": 100 * (recorded.seconds / plain.seconds - 1),
        "recording/milliseconds_a_step": 1000 * (recorded.seconds - plain.seconds) / steps,
        "recording/same_weights": float(all(torch.equal(a, b) for a, b in pairs)),
    }
