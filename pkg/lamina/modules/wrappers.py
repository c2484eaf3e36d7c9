"""What is wrapped around modules, and the names that modules and parameters have without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# The names under which torch.compile and activation checkpointing hold what they wrap; nobody else has these.
_HIDDEN = ("_orig_mod", "_checkpoint_wrapped_module")


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module under the name that it has without wrappers, also those that stand at several places.

    A wrapper comes before what it wraps, under the same name.
    """
    names = PlainNames(model)
    for path, module in model.named_modules(remove_duplicate=False):
        yield names.of(path), module


def plain_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter under the name that it has without wrappers, tied ones once."""
    names = PlainNames(model)
    for path, parameter in model.named_parameters():
        yield names.of(path), parameter


def unwrapped(model: nn.Module) -> nn.Module:
    """Return what stands inside of all wrappers around a whole model: its state has the keys of a plain one's."""
    while (name := _held(model)) is not None:
        model = model.get_submodule(name)
    return model


class PlainNames:
    """Paths in one model, without the components that wrappers put into them."""

    def __init__(self, model: nn.Module) -> None:
        self._hidden: set[str] = set()
        for path, module in model.named_modules(remove_duplicate=False):
            if (name := _held(module)) is not None:
                self._hidden.add(f"{path}.{name}" if path else name)

    def of(self, path: str) -> str:
        """Return a module's or a parameter's name."""
        parts = path.split(".")
        ends = (".".join(parts[: end + 1]) for end in range(len(parts)))
        return ".".join(part for part, end in zip(parts, ends, strict=True) if end not in self._hidden)


def _held(module: nn.Module) -> str | None:
    """Return the name under which a wrapper holds what it wraps, None if the module is no wrapper."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    # These two by their class: `module` is a name that users give too.
    if isinstance(module, DistributedDataParallel | DataParallel):
        return "module"
    return next((name for name, _ in module.named_children() if name in _HIDDEN), None)
