"""What a training did, by plain hooks and sums of its own: what the recorder's rows are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl
import torch
from torch import nn

import lamina


class Truth:
    """Copies of what modules return while they train, in order, by site."""

    def __init__(self, model: nn.Module, sites: Iterable[str]) -> None:
        self.seen: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
        for site, seen in self.seen.items():
            module = model.get_submodule(site.removesuffix(".output"))
            module.register_forward_hook(lambda module, args, output, seen=seen: self._keep(module, output, seen))

    @staticmethod
    def _keep(module: nn.Module, output: Any, seen: list[torch.Tensor]) -> None:
        if module.training and torch.is_grad_enabled():
            output = output[0] if isinstance(output, tuple) else output
            seen.append(output.detach().clone())


def rows(run: lamina.Run, site: str) -> torch.Tensor:
    """Return the rows of a site that the training left, in its order."""
    return torch.from_numpy(frame(run, site)[site].to_numpy())


def column(run: lamina.Run, site: str, name: str) -> list[Any]:
    """Return a column of these rows."""
    return frame(run, site)[name].to_list()


def frame(run: lamina.Run, site: str) -> pl.DataFrame:
    """Return the rows of a site that the training left. Stored are those with the same columns together."""
    found = run.refresh().activations([site]).filter(pl.col("source") == "train")
    order = [name for name in ("step", "micro", "row") if name in found.collect_schema()]
    return found.sort(order, nulls_last=False).collect()


def weights(model: nn.Module) -> list[torch.Tensor]:
    """Return copies of all parameters and buffers."""
    return [value.detach().clone() for value in model.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Tell whether two lists of tensors are equal bit for bit."""
    return len(a) == len(b) and all(map(torch.equal, a, b))


def hooks(model: nn.Module) -> int:
    """Count the forward hooks of a model."""
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())
