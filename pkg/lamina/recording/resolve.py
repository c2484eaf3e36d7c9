"""The sites of a model that patterns mean.

A module's path ends in `.input` or `.output`, then `[index or key]` for one element, then `.grad`. A parameter is its
name alone, or with `.grad`, `.update` or a key of the optimizer's state behind it. Names of TransformerLens are aliases
where the architecture is known.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from lamina.errors import LaminaWarning, RecordingError
from lamina.modules.wrappers import plain_modules, plain_parameters
from lamina.recording.aliases import aliases, families
from lamina.recording.sites import DEFAULT, ParameterSite, Pattern, ResolvedSite, Site, Sites
from lamina.runs.globs import matches
from lamina.runs.nearest import nearest_names

if TYPE_CHECKING:
    import torch
    from torch import nn

_GRAMMAR = re.compile(r"(?P<glob>.*?)(?P<elements>(?:\[[^\[\]]+\])*)(?P<gradient>\.grad)?", re.DOTALL)

# An optimizer has no state before its first step: these are the keys of torch's own.
_USUAL_KEYS = (
    "acc_delta", "ax", "eta", "exp_avg", "exp_avg_sq", "exp_inf", "grad_avg", "max_exp_avg_sq", "momentum_buffer", "mu",
    "mu_product", "prev", "square_avg", "step", "step_size", "sum",
)  # fmt: skip


class Resolved(NamedTuple):
    """What patterns mean in a model."""

    sites: list[ResolvedSite]
    parameters: list[ParameterSite]


def check_run(run: object) -> None:
    """Raise RecordingError if it is no run, a path for instance."""
    if not hasattr(run, "writer"):
        raise RecordingError(f"run= is a {type(run).__name__}", hint="give a run: lamina.Run.create(path) makes one")


def resolve(model: nn.Module, sites: Sites, *, optimizer: torch.optim.Optimizer | None = None) -> Resolved:
    """Return the sites of `model` that patterns select, each once.

    A module that stands in the model under several names is recorded once, under the name that was matched
    first, and a warning says so. Where several patterns select a site, the options of the last one hold.

    Args:
        model: The model; names leave out what is wrapped around modules (torch.compile, DistributedDataParallel).
        sites: A pattern, several, or a dict of `Site` by pattern.
        optimizer: Whose `.update` and state can be named.

    Returns:
        The sites, in the order of the patterns, then of the model.

    Raises:
        RecordingError: If a pattern matches nothing; the hint lists the nearest names.
    """
    if not hasattr(model, "named_modules") or isinstance(model, type):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise RecordingError(f"the model is {kind}, and no torch.nn.Module")
    _refuse_script(model, "the model")
    found = _Found(model, optimizer)
    for pattern, options in _patterns(sites).items():
        if callable(pattern):
            found.add_chosen(pattern, options)
        else:
            found.add(pattern, options)
    found.warn_of_aliases()
    return Resolved(list(found.sites.values()), list(found.parameters.values()))


class _Found:
    """Sites by what they are, in the order in which they were found."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        self.model = model
        self.optimizer = optimizer
        self.places = dict(places(model))
        self.sites: dict[tuple[object, ...], ResolvedSite] = {}
        self.parameters: dict[str, ParameterSite] = {}
        self.shared: dict[str, str] = {}

    def add_chosen(self, says: Callable[[str], object], options: Site) -> None:
        names = [name for name in self.places if says(name)]
        if not names:
            raise RecordingError(f"the function {says!r} in sites= chooses none of {len(self.places)} sites")
        for name in names:
            self._add_site(name, "", False, options)

    def add(self, pattern: str, options: Site) -> None:
        read = _GRAMMAR.fullmatch(pattern)
        assert read is not None
        glob, elements, gradient = read["glob"], read["elements"], bool(read["gradient"])
        names = [name for name in self.places if matches(glob, name)]
        for name in names:
            self._add_site(name, elements, gradient, options)
        found = self._add_parameters(pattern, options)
        if not names and not found and not self._add_aliases(glob, elements, gradient, options):
            raise RecordingError(
                f"the site {pattern!r} matches nothing in {type(self.model).__name__}",
                hint=self._nearest(pattern, glob, elements),
            )

    def warn_of_aliases(self) -> None:
        if self.shared:
            listed = ", ".join(f"{alias} is {name}" for alias, name in list(self.shared.items())[:3])
            more = f" and {len(self.shared) - 3} more" if len(self.shared) > 3 else ""
            warnings.warn(
                f"shared modules are recorded once, with every call of theirs: {listed}{more}",
                LaminaWarning,
                stacklevel=4,
            )

    def _add_site(self, name: str, elements: str, gradient: bool, options: Site) -> None:
        module, kind = self.places[name]
        _refuse_script(module, f"the module of {name!r}")
        full = name + elements + (".grad" if gradient else "")
        key = (id(module), kind, elements, gradient)
        if key not in self.sites:
            self.sites[key] = ResolvedSite(full, module, kind, element_path(elements), options, gradient)
            return
        self.sites[key] = replace(self.sites[key], options=options)
        if self.sites[key].name != full:
            self.shared[full] = self.sites[key].name

    def _add_parameters(self, pattern: str, options: Site) -> bool:
        stem, _, last = pattern.rpartition(".")
        names = [name for name, _ in plain_parameters(self.model)]
        asked: list[tuple[str, str | None]] = []
        # A glob that ends in a star means modules: parameters are asked for by name.
        if last.strip("*"):
            asked = [(name, None) for name in names if matches(pattern, name)]
        if not asked and last in ("grad", "update", *self._optimizer_keys()):
            asked = [(name, last) for name in names if matches(stem, name)]
        if asked and asked[0][1] not in (None, "grad") and self.optimizer is None:
            raise RecordingError(
                f"the site {pattern!r} belongs to the optimizer", hint="give it: lamina.record(…, optimizer=…)"
            )
        for name, what in asked:
            site = name if what is None else f"{name}.{what}"
            self.parameters[site] = ParameterSite(site, name, what, options)
        return bool(asked)

    def _add_aliases(self, glob: str, elements: str, gradient: bool, options: Site) -> bool:
        found = {name: alias for name, alias in aliases(self.model).items() if matches(glob, name)}
        for name, alias in found.items():
            read = _GRAMMAR.fullmatch(alias.site)
            assert read is not None
            module, kind = self.places[read["glob"]]
            full = name + elements + (".grad" if gradient else "")
            path = element_path(read["elements"] + elements)
            self.sites[full,] = ResolvedSite(full, module, kind, path, options, gradient, alias.part)
        return bool(found)

    def _optimizer_keys(self) -> set[str]:
        if self.optimizer is None:
            return set(_USUAL_KEYS)
        states = self.optimizer.state.values()
        return {str(key) for state in states for key in state} or set(_USUAL_KEYS)

    def _nearest(self, pattern: str, glob: str, elements: str) -> str:
        if any(matches(f"{glob}.output", name) for name in self.places):
            return f"a site ends in its kind: {glob}.output{elements} or {glob}.input{elements}"
        known = list(aliases(self.model))
        names = [*self.places, *(name for name, _ in plain_parameters(self.model)), *known]
        others = ", a parameter or a name of TransformerLens" if known else ", or a parameter"
        if not known and any(part.startswith("hook_") for part in glob.split(".")):
            others += f" (names of TransformerLens are known for {', '.join(families())})"
        return f"a site is a module's path and .input or .output{others}; {nearest_names(pattern, names)}"


def places(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, Literal["input", "output"]]]]:
    """Yield the name of each module's input and output, with the module."""
    seen = set()
    for path, module in plain_modules(model):
        # The wrapper comes before the module it wraps and carries the same name. Its hooks run outside of compiled
        # code, so it is the one to keep.
        if path in seen or _never_called(module):
            continue
        seen.add(path)
        prefix = f"{path}." if path else ""
        yield f"{prefix}input", (module, "input")
        yield f"{prefix}output", (module, "output")


def element_path(elements: str) -> tuple[int | str, ...]:
    """Return the indices and keys of `[0][name]`."""
    keys = re.findall(r"\[([^\[\]]+)\]", elements)
    return tuple(int(key) if re.fullmatch(r"-?\d+", key) else key for key in keys)


def _never_called(module: nn.Module) -> bool:
    # ModuleList, ModuleDict and their like only hold others.
    from torch import nn

    # TorchScript's classes have no `forward` to be looked at.
    if getattr(type(module), "forward", None) is not nn.Module.forward:
        return False
    # nnsight gives a forward of its own to every module that it wraps.
    own = vars(module).get("forward")
    return own is None or type(own).__module__.startswith("nnsight.")


def _refuse_script(module: nn.Module, what: str) -> None:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        raise RecordingError(f"{what} is TorchScript, which takes no hooks", hint="use the module that was scripted")


def _patterns(sites: Sites) -> dict[Pattern, Site]:
    if isinstance(sites, str) or callable(sites):
        sites = [sites]
    if not isinstance(sites, Iterable):
        raise RecordingError(
            f"sites= is a {type(sites).__name__}", hint="give a glob, a list of globs, or an empty one"
        )
    patterns = dict(sites) if isinstance(sites, Mapping) else dict.fromkeys(sites, DEFAULT)
    for pattern, options in patterns.items():
        if not isinstance(pattern, str) and not callable(pattern):
            raise RecordingError(f"{pattern!r} is no site", hint="a site is a string such as 'blocks.*.mlp.output'")
        if not isinstance(options, Site):
            raise RecordingError(
                f"the options of the site {pattern!r} are {options!r}", hint="give a lamina.Site(...) for each glob"
            )
    return patterns
