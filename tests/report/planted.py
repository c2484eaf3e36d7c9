"""Runs whose layers are alike by design."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lamina

EXAMPLES, WIDTH = 60, 6
STEPS = (0, 1, 4, 16)


def turned(rows: np.ndarray, seed: int) -> np.ndarray:
    """The same rows, turned, three times as long, and shifted."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(rows.shape[1],) * 2))[0]
    return 3 * rows @ turn + 7


def training(path: Path, *, seed: int, steps: tuple[int, ...] = STEPS) -> lamina.Run:
    """A training run of three layers, its rows in another order at every step.

    Layer `a` is alike in all runs and steps up to a turn; `b` is `a` turned, and at step s mixed with noise that fades
    away; `c` is a run's own. At the end a, b are alike, c is not alike to them.
    """
    shared, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    end = shared.normal(size=(EXAMPLES, WIDTH))
    noise, alone = own.normal(size=(2, EXAMPLES, WIDTH))
    run = lamina.Run.create(path, config={"seed": seed})
    with run.writer() as writer:
        for step in steps:
            mixed = end + 2 * noise * (1 - step / STEPS[-1])
            order = own.permutation(EXAMPLES)
            sites = {"a.output": turned(end, seed), "b.output": turned(mixed, step + 20), "c.output": alone}
            sites = {name: rows[order].astype(np.float32) for name, rows in sites.items()}
            writer.append(sites, step=step, example=order, source="validation")
    return lamina.open(path)


def reading(path: Path, *, groups: int = 12, rows: int = 20) -> lamina.Run:
    """One pass over `groups` topics with `rows` tokens each, in windows of 5 tokens.

    Layer `a` and layer `b` share nothing, but each gives every topic a flavor of its own; `c` is `b` turned.
    """
    rng = np.random.default_rng(5)
    topic = np.repeat(np.arange(groups), rows)
    a, b = (rng.normal(size=(groups, WIDTH))[topic] + rng.normal(size=(topic.size, WIDTH)) for _ in range(2))
    sites = {"a.output": a, "b.output": b, "c.output": turned(b, 9)}
    sites = {name: values.reshape(-1, 5, WIDTH).astype(np.float32) for name, values in sites.items()}
    run = lamina.Run.create(path, config={"groups": "topic"})
    windows = topic.size // 5
    with run.writer() as writer:
        writer.append(sites, step=0, example=np.arange(windows), source="texts")
        writer.examples(
            {
                "example": np.repeat(np.arange(windows), 5),
                "position": np.tile(np.arange(5), windows),
                "topic": [f"topic {k}" for k in topic],
            }
        )
    return lamina.open(path)
