"""The demo's runs in little, with features whose meaning was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import lamina

WORDS = ["string", "list", "the", "of", "a", "returns", "value", "object"]
TOPICS = ["if", "while", "for", "try", "numbers", "strings", "typesmapping", "typesseq"]
EXAMPLES, POSITIONS, WIDTH, UNITS = 160, 16, 24, 40
FOLLOWS, PAIR, FLOW, STRINGS, OWN, DIES, RISES = 10, (11, 12), 13, 14, 15, 20, 21
ALIVE = 15
"""Features that fire at the end."""
LAST = 64


def planted(folder: Path) -> None:
    """Write `minilm`, `autoencoder-0` and `autoencoder-1` into a folder.

    Feature k below 8 fires on `WORDS[k]`; one follows the position, two fire together, one fires in the topics on flow
    alone and one in a single topic; one is each seed's own; one dies; one rises as the loss falls; others never fire.
    """
    draw = np.random.default_rng(0)
    words = draw.integers(0, len(WORDS), EXAMPLES * POSITIONS)
    example, position = np.divmod(np.arange(EXAMPLES * POSITIONS), POSITIONS)
    topic = (example // 8) % len(TOPICS)
    atoms = draw.normal(size=(UNITS, WIDTH))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    half = draw.random(words.size) < 0.5

    def codes(step: int, seed: int) -> np.ndarray:
        own = np.random.default_rng([seed, 1])
        known = words if step else own.permutation(words)
        found = np.zeros((words.size, UNITS), np.float32)
        found[np.arange(words.size), known] = 9.0
        found[:, FOLLOWS] = 0.1 * position
        found[:, PAIR[0]] = found[:, PAIR[1]] = half
        found[:, FLOW] = (topic < 4) & (own.random(words.size) < 0.9)
        found[:, STRINGS] = (topic == TOPICS.index("strings")) & (own.random(words.size) < 0.8)
        found[:, OWN] = own.random(words.size) < 0.4
        found[:, DIES] = (own.random(words.size) < 0.2) & (step < LAST)
        found[:, RISES] = 0.01 * (1 + step)
        return found

    table = {"example": example, "position": position, "topic": [TOPICS[k] for k in topic],
             "token": [WORDS[k] for k in words]}  # fmt: skip
    run = lamina.Run.create(folder / "minilm", config={"groups": "topic"})
    x = codes(LAST, 0) @ atoms + 0.01 * draw.normal(size=(words.size, WIDTH))
    with run.writer() as writer:
        writer.append({"encoder.layer.2.output": x.astype(np.float32)}, step=0, example=example, position=position)
        writer.examples(table)
    ids = run.refresh().rows("encoder.layer.2.output").ids
    with run.writer() as writer:
        writer.features("encoder.layer.2.output/sae", codes(LAST, 0), threshold=0, row=ids)
    held_out = example % 8 == 0
    for seed in range(2):
        training = lamina.Run.create(folder / f"autoencoder-{seed}", config={"seed": seed, "steps": LAST})
        with training.writer() as writer:
            for step in (0, 16, LAST):
                writer.features("sae.output", codes(step, seed)[held_out], threshold=0, step=step,
                                example=example[held_out], position=position[held_out])  # fmt: skip
                writer.log({"validation/loss": 3.0 - step / LAST}, step=step)
                state = {"atoms": torch.tensor(atoms, dtype=torch.float32), "bias": torch.zeros(WIDTH)}
                writer.save({"model": state}, step=step)
