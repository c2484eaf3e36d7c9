"""One tensor out of what a module takes or returns, and another in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lamina.errors import RecordingError


def select(value: Any, path: tuple[int | str, ...], site: str) -> torch.Tensor:
    """Return the tensor that a site means.

    `path` is followed first. If what it leads to is no tensor but a tuple, list or mapping that holds exactly
    one tensor and nothing else with tensors inside, that one is meant.

    Args:
        value: What the module took (positional and keyword arguments by index and name) or returned.
        path: Indices and keys, from the outside in.
        site: The site's name, for errors.

    Raises:
        RecordingError: If there is no such element, no tensor, or more than one.
    """
    for key in path:
        value = _item(value, key, site)
    if isinstance(value, torch.Tensor):
        return value
    holders = [(key, element) for key, element in _items(value) if _holds_tensor(element)]
    if len(holders) == 1 and isinstance(holders[0][1], torch.Tensor):
        return holders[0][1]
    if not holders:
        raise RecordingError(f"at the site {site!r} there is a {type(value).__name__}, and no tensor in it")
    raise RecordingError(
        f"at the site {site!r} there are several tensors: {_describe(value)}",
        hint=f"name the one that is meant, such as {site}[{holders[0][0]}]",
    )


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor inside of what a module takes or returns, with its path as a site names it: `[1][hidden]`."""
    if isinstance(value, torch.Tensor):
        yield path, value
    for key, element in _items(value):
        yield from tensors(element, f"{path}[{key}]")


def replace(value: Any, path: tuple[int | str, ...], new: torch.Tensor, site: str) -> Any:
    """Return what a module took or returned, with `new` in the place of the tensor that `select` finds.

    Tuples, named tuples, lists, mappings and objects around it are made anew and keep their types; nothing is
    changed in place.

    Raises:
        RecordingError: As `select`, or if what is named is computed from others.
    """
    if path:
        return _with(value, path[0], replace(_item(value, path[0], site), path[1:], new, site), site)
    if isinstance(value, torch.Tensor):
        return new
    old = select(value, (), site)
    return _with(value, next(key for key, element in _items(value) if element is old), new, site)


def _with(value: Any, key: int | str, new: Any, site: str) -> Any:
    if isinstance(value, tuple):
        items: list[Any] = list(value)
        # Fields by name: the same tensor may stand in two of them.
        items[_field(value, key, site) if isinstance(key, str) else key] = new
        make: Any = getattr(type(value), "_make", type(value))
        return make(items)
    copied = copy.copy(value)
    if isinstance(value, Mapping):
        names = list(value)
        # Outputs of Transformers' models are mappings that take an index too.
        found = [name for name in (key, str(key)) if name in names] or ([names[key]] if isinstance(key, int) else [])
        if found:
            copied[found[0]] = new  # pyright: ignore[reportIndexIssue]
            return copied
    elif isinstance(key, int) or hasattr(value, "__setitem__"):
        copied[key] = new
        return copied
    try:
        # Also where the class is frozen: this is a copy that nobody has seen.
        object.__setattr__(copied, str(key), new)
    except AttributeError:
        raise RecordingError(f"the site {site!r}: {key!r} of a {type(value).__name__} cannot be replaced") from None
    return copied


def _field(value: tuple[Any, ...], name: str, site: str) -> int:
    fields: tuple[str, ...] = getattr(type(value), "__match_args__", ())
    if name not in fields:
        raise RecordingError(f"the site {site!r}: {name!r} of a {type(value).__name__} cannot be replaced")
    return fields.index(name)


def _item(value: Any, key: int | str, site: str) -> Any:
    # A tensor has elements too, but `output[0]` of a plain tensor would silently record its first row.
    if not isinstance(value, torch.Tensor):
        for name in (key, str(key)):
            try:
                return value[name]
            except (LookupError, TypeError):
                continue
        if isinstance(key, str) and hasattr(value, key):
            return getattr(value, key)
    raise RecordingError(f"the site {site!r} asks for the element [{key}], and there is only {_describe(value)}")


def _items(value: Any) -> Iterator[tuple[int | str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or any(_holds_tensor(element) for _, element in _items(value))


def _describe(value: Any) -> str:
    return ", ".join(f"[{key}] {_kind(element)}" for key, element in _items(value)) or _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"
