"""What MiniLM's middle layer is made of: sparse autoencoders learn it from the recorded run, and codes join it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import polars as pl
import torch

import lamina
from lamina.demo.autoencoder import Autoencoder, learn

SITE = "encoder.layer.2.output"
"""The layer in the middle."""
CODES = f"{SITE}/sae"
"""The codes of all tokens, attached to their rows at `SITE`."""
HELD_OUT = pl.col("example") % 8 == 0
"""Every eighth window is not learnt from."""
UNITS, ACTIVE = 2048, 16
BATCH = 1024
PASSES = 2
"""How often every row that is learnt from is seen."""
DUE = lamina.log_then_linear(64, 100)
"""When the held-out rows are encoded and the weights are kept: at 0, 1, 2, 4, … 64, then every 100 steps."""
_BLOCK = 8192
"""Rows encoded at once."""


def updates(run: lamina.Run) -> int:
    """Return how many updates the autoencoders of a run make."""
    return PASSES * -(-len(run.rows(SITE, where=~HELD_OUT)) // BATCH)


def explain(run: lamina.Run, folder: Path, *, seed: int) -> Generator[None, None, None]:
    """Train an autoencoder on `SITE` of a run that read the documentation; yield after every update.

    The training is a run of its own in `folder`: the metrics `train/loss`, `train/explained variance` and
    `train/dead units` of every step; at the steps of `DUE` and at the end the codes of the held-out rows as the site
    `sae.output`, with `validation/loss` and `validation/explained variance`, and the weights.
    """
    learnt, held_out = (run.rows(SITE, where=where) for where in (~HELD_OUT, HELD_OUT))
    start = learnt.gather(range(0, len(learnt), max(1, len(learnt) // _BLOCK)))
    model = Autoencoder(start, units=UNITS, k=ACTIVE, seed=seed)
    steps, places = updates(run), held_out.metadata(["example", "position"])
    training = lamina.Run.create(folder, config=_settings(seed, steps))
    with training.writer() as writer:
        writer.examples(run.examples().filter(HELD_OUT).collect())

        def keep(step: int) -> None:
            """Record what the model makes of the held-out rows, and the model."""
            x = held_out.gather(slice(None))
            with torch.no_grad():
                codes = model.codes(x)
                found = model.compared(codes, x)
            example, position = places["example"], places["position"]
            writer.features("sae.output", codes, step=step, source="held-out", example=example, position=position)
            values = {"loss": found.loss, "explained variance": found.explained_variance}
            writer.log({f"validation/{name}": value for name, value in values.items()}, step=step)
            writer.save({"model": model.state_dict()}, step=step)

        keep(0)
        for step, found in enumerate(learn(model, learnt, steps=steps, batch=BATCH, seed=seed)):
            values = {"loss": found.loss, "explained variance": found.explained, "dead units": found.dead}
            writer.log({f"train/{name}": value for name, value in values.items()}, step=step)
            if DUE.due(step + 1) or step + 1 == steps:
                keep(step + 1)
            yield


def attach(run: lamina.Run, training: lamina.Run) -> None:
    """Encode the rows of `SITE` by the weights that a training ended with, and attach the codes as `CODES`.

    Rows that have codes keep them: what was interrupted is gone on with.
    """
    rows = run.rows(SITE)
    if CODES in run.sites()["site"]:
        rows = rows[~np.isin(rows.ids, run.rows(CODES).ids)]
    model = Autoencoder(torch.zeros(1, rows.shape[1]), units=UNITS, k=ACTIVE, seed=0)
    model.load_state_dict(training.load(step="last", part="model"))
    with run.writer() as writer, torch.no_grad():
        first = 0
        for x in rows.blocks(_BLOCK):
            writer.features(CODES, model.codes(x), row=rows.ids[first : first + len(x)])
            first += len(x)
    run.refresh()


def _settings(seed: int, steps: int) -> dict[str, object]:
    return {
        "description": f"A sparse autoencoder learns to write each of MiniLM's vectors at {SITE} as a sum of {ACTIVE} "
        f"of {UNITS:,} directions, its features; every eighth window of the text is held out.",
        "units": {"loss": "mean squared error", "explained variance": "share of 1", "dead units": "units"},
        "groups": "topic",
        "seed": seed,
        "site": SITE,
        "features": UNITS,
        "active": ACTIVE,
        "optimizer": "Adam",
        "batch": BATCH,
        "steps": steps,
    }
