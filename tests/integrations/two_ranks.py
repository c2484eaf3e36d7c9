"""What one of two processes does in `test_two_ranks`: a training by a library's loop, under its callback."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

import lamina
from tests.integrations.truth import Truth


def with_lightning(run: lamina.Run, out: Path) -> dict[str, list[torch.Tensor]]:
    """Train by Lightning's Trainer, with DistributedDataParallel."""
    from tests.integrations import test_lightning as shared

    module = shared.Module()
    shared.fit(
        module,
        shared.LaminaCallback(run, sites=shared.SITES[:2], columns=shared.columns, checkpoint_every=2),
        strategy="ddp",
        devices=2,
        accumulate_grad_batches=1,
        max_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    return module.truth.seen


def with_transformers(run: lamina.Run, out: Path) -> dict[str, list[torch.Tensor]]:
    """Train by the Trainer of Transformers, with DistributedDataParallel."""
    from tests.integrations import test_transformers as shared

    trained = shared.model()
    truth = Truth(trained, ["transformer.h.0.mlp.output"])
    callback = shared.LaminaCallback(run, sites=shared.SITES[1:], columns=["example"], mask=None, checkpoint_every=2)
    options: dict[str, Any] = {"gradient_accumulation_steps": 1, "eval_strategy": "no", "ddp_backend": "gloo"}
    shared.trainer(out, trained, callback, **options).train()
    return truth.seen


LOOPS = {"lightning": with_lightning, "transformers": with_transformers}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    seen = LOOPS[name](lamina.open(folder / "run"), folder)
    torch.save(seen, folder / f"seen-{os.environ['RANK']}.pt")
