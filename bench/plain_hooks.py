"""What people write by hand: a hook a module that keeps a copy, and torch.save of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn


class PlainHooks:
    """Hooks that copy the outputs of some modules, and a file for each call of `save`."""

    def __init__(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        self.kept: dict[str, torch.Tensor] = {}
        self.folder = folder
        self.files = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in modules.items()]

    def _hook(self, name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def keep(module: nn.Module, args: object, output: torch.Tensor) -> None:
            self.kept[name] = output.detach().clone()

        return keep

    def save(self) -> None:
        """Write what was kept to the next file; nothing makes it durable."""
        torch.save(self.kept, self.folder / f"{self.files}.pt")
        self.files += 1

    def clear(self) -> None:
        """Remove the files."""
        for number in range(self.files):
            (self.folder / f"{number}.pt").unlink()
        self.files = 0

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
