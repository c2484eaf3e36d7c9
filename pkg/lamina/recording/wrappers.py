"""The names that modules have without what is wrapped around them."""

from __future__ import annotations

_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")


def without_wrappers(path: str) -> str:
    """Return a path without the components that torch.compile and activation checkpointing put into it."""
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)
