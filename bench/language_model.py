"""A real training whose checkpoints are kept: a language model over the bytes of Python's documentation.

5.7 million parameters, AdamW, a learning rate of 1e-3 that falls to zero by a cosine. What is saved is what a training
with mixed precision holds: the weights in bf16, those in fp32 behind them, and the optimizer's state.

    python -m bench.language_model FOLDER       trains it for 2,000 steps with a save every 20, into a run
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import nn

import lamina
from bench.transformer import Transformer
from lamina.progress import track

STEPS, EVERY = 2000, 20
BATCH, POSITIONS = 4, 128
LAYERS, WIDTH, HEADS = 7, 256, 4
RATE, WARMUP = 1e-3, 100


def corpus() -> torch.Tensor:
    """Return the bytes of the documentation, topic after topic."""
    return torch.frombuffer(bytearray("\n".join(topics[name] for name in sorted(topics)).encode()), dtype=torch.uint8)


class Training:
    """The model, its optimizer, and the data; always the same ones.

    Attributes:
        step: How many updates were made.
    """

    def __init__(self, steps: int = STEPS) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Transformer(POSITIONS, layers=LAYERS, width=WIDTH, heads=HEADS, vocabulary=256)
            for weight in self.model.parameters():
                if weight.ndim == 2:
                    nn.init.normal_(weight, std=0.02)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
        self.step, self.steps = 0, steps
        self._corpus = corpus()
        self._windows = torch.Generator().manual_seed(1)

    def update(self) -> float:
        """Take a step; return the loss in nats a byte."""
        begins = torch.randint(len(self._corpus) - POSITIONS, (BATCH,), generator=self._windows)
        text = torch.stack([self._corpus[begin : begin + POSITIONS + 1] for begin in begins.tolist()]).long()
        warm = min(1.0, (self.step + 1) / WARMUP)
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * warm * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        loss = nn.functional.cross_entropy(self.model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Return the parts of a checkpoint."""
        model = self.model.state_dict()
        rounded = {name: tensor.bfloat16() for name, tensor in model.items()}
        return {"bf16": rounded, "model": model, "optimizer": self.optimizer.state_dict()}


def train(folder: Path, steps: int = STEPS, every: int = EVERY) -> lamina.Run:
    """Train from the beginning, into a new run: checkpoints of steps 0, `every`, 2 `every`, …, and the losses."""
    run = lamina.Run.create(folder, config={"steps": steps, "every": every, "lr": RATE, "batch": BATCH * POSITIONS})
    training = Training(steps)
    with run.writer() as writer:
        writer.save(training.state(), step=0)
        for step in track(range(1, steps + 1), "training a language model"):
            writer.log({"loss": training.update()}, step=step)
            if step % every == 0:
                writer.save(training.state(), step=step)
    return run.refresh()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the language model into a run.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
