"""Where something is recorded: the names of sites, and the modules that they stand for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from lamina.errors import RecordingError
from lamina.recording.schedules import Every
from lamina.runs import LaminaWarning
from lamina.runs.globs import matches
from lamina.runs.nearest import nearest_names

if TYPE_CHECKING:
    from torch import nn

Sites = str | Iterable[str] | Mapping[str, "Site"]
"""What `sites=` takes: a glob, several, or options a glob."""

_ELEMENTS = re.compile(r"((?:\[[^\[\]]+\])+)$")


@dataclass(frozen=True, kw_only=True)
class Site:
    """How the sites that a glob selects are recorded.

    Args:
        every: Their schedule; None takes the recorder's.

    Example:
        >>> from lamina import Site
        >>> sites = {"blocks.*.output": Site(every=100), "output": Site()}
    """

    every: Every | None = None


@dataclass(frozen=True)
class ResolvedSite:
    """A site of one model: a name, the module that is watched, and what is taken from it."""

    name: str
    module: nn.Module
    kind: Literal["input", "output"]
    path: tuple[int | str, ...]
    options: Site


def resolve(model: nn.Module, sites: Sites) -> list[ResolvedSite]:
    """Return the sites of `model` that globs select, each module's input or output once.

    A module that stands in the model under several names is recorded once, under the name that was matched
    first, and a warning says so. Where several globs select a site, the options of the last one hold.

    Args:
        model: The model; a `torch.compile` wrapper's own path component (`_orig_mod`) is left out of names.
        sites: A glob, several, or a dict of `Site` by glob.

    Returns:
        The sites, in the order of the globs, then of the model.

    Raises:
        RecordingError: If a glob matches nothing; the hint lists the nearest names.
    """
    places = dict(_places(model))
    chosen: dict[tuple[int, str, str], ResolvedSite] = {}
    aliases: dict[str, str] = {}
    for pattern, options in _patterns(sites).items():
        glob, elements = _split(pattern)
        names = [name for name in places if matches(glob, name)]
        if not names:
            raise RecordingError(
                f"the site {pattern!r} matches nothing in {type(model).__name__}",
                hint=_nearest(glob, elements, list(places)),
            )
        for name in names:
            module, kind = places[name]
            key = (id(module), kind, elements)
            if key not in chosen:
                chosen[key] = ResolvedSite(name + elements, module, kind, _path(elements), options)
            else:
                chosen[key] = replace(chosen[key], options=options)
                if chosen[key].name != name + elements:
                    aliases[name + elements] = chosen[key].name
    if aliases:
        listed = ", ".join(f"{alias} is {name}" for alias, name in list(aliases.items())[:3])
        more = f" and {len(aliases) - 3} more" if len(aliases) > 3 else ""
        warnings.warn(
            f"shared modules are recorded once, with every call of theirs: {listed}{more}", LaminaWarning, stacklevel=3
        )
    return list(chosen.values())


def _places(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, Literal["input", "output"]]]]:
    seen = set()
    for path, module in model.named_modules(remove_duplicate=False):
        # The wrapper comes before the module it wraps and carries the same name without `_orig_mod`. Its hooks
        # run outside of the compiled code, so it is the one to keep.
        clean = ".".join(part for part in path.split(".") if part != "_orig_mod")
        if clean in seen or _never_called(module):
            continue
        seen.add(clean)
        prefix = f"{clean}." if clean else ""
        yield f"{prefix}input", (module, "input")
        yield f"{prefix}output", (module, "output")


def _never_called(module: nn.Module) -> bool:
    # ModuleList, ModuleDict and their like only hold others.
    from torch import nn

    return type(module).forward is nn.Module.forward and "forward" not in vars(module)


def _patterns(sites: Sites) -> dict[str, Site]:
    if isinstance(sites, str):
        sites = [sites]
    patterns = dict(sites) if isinstance(sites, Mapping) else dict.fromkeys(sites, Site())
    for pattern, options in patterns.items():
        if not isinstance(pattern, str):
            raise RecordingError(f"{pattern!r} is no site", hint="a site is a string such as 'blocks.*.mlp.output'")
        if not isinstance(options, Site):
            raise RecordingError(
                f"the options of the site {pattern!r} are {options!r}", hint="give a lamina.Site(...) for each glob"
            )
    return patterns


def _split(pattern: str) -> tuple[str, str]:
    found = _ELEMENTS.search(pattern)
    return (pattern[: found.start()], found.group()) if found else (pattern, "")


def _path(elements: str) -> tuple[int | str, ...]:
    keys = re.findall(r"\[([^\[\]]+)\]", elements)
    return tuple(int(key) if re.fullmatch(r"-?\d+", key) else key for key in keys)


def _nearest(glob: str, elements: str, names: list[str]) -> str:
    if any(matches(f"{glob}.output", name) for name in names):
        return f"a site ends in its kind: {glob}.output{elements} or {glob}.input{elements}"
    return f"a site is a module's path and .input or .output; {nearest_names(glob, names)}"
