"""Editing: what flows through a model replaced or changed, for as long as a block of code runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.aliases import aliases
from lamina.recording.changes import Change, Where
from lamina.recording.editors import Editor, Hook, Pass
from lamina.recording.layouts import Layout, parse_layout
from lamina.recording.matching import Names
from lamina.recording.resolve import resolve
from lamina.recording.sites import ResolvedSite
from lamina.rows import Rows

if TYPE_CHECKING:
    from torch import nn


def edit(
    model: nn.Module,
    sites: Mapping[Any, Change],
    *,
    where: Any = None,
    example: Any = None,
    position: Any = None,
    layout: str | None = None,
) -> Edit:
    """Replace or change what flows at sites of a model, within a `with` block.

    What a site is edited with may be:

    - a tensor, which broadcasts to the site's;
    - a function of the site's tensor that returns the new one, of the same shape and dtype. It gets a copy, which it
      may change in place. Gradients flow through it. Any `torch.nn.Module` is such a function;
    - `Rows`: each entry of the batch gets the stored row of the same example and position. Rows that name no
      example, such as `Rows.of(tensor)`, belong in order.

    Every call of the module is edited, under whatever name the model calls it; where rows differ in `call`, each
    call gets its own. The original tensor, and the tuple or mapping around it, stay as they are: an input is edited
    for this module alone, and others that take the same tensor get the original. Hooks run in the order in which
    they were attached: a recorder or an edit that is entered inside of this block sees the new tensor, one around
    it the original. If several patterns match a site, the last one holds.

    Code that was compiled runs uncompiled within the block, so that the edit takes hold whether the model was
    called before or not; afterwards it is as it was, and nothing is compiled anew. Where activations are
    checkpointed, the backward pass has to run in the block too, for it computes them again.

    Cost: a copy of the tensor at each site, and for `Rows` reading the rows of the batch and a join on their names. The
    first edit of a process loads torch's compiler, as an optimizer does: seconds.

    Args:
        model: Any `torch.nn.Module`.
        sites: A tensor, function or `Rows` by site: the input or output of a module, or an element of it, as in
            `lamina.record`, globs included.
        where: What is edited of a tensor, the rest stays: a mask over its leading dimensions, such as [batch] or
            [batch, positions], or a Polars expression over `example`, `position` and `call`.
        example: What the batch items of each call are, for `Rows` and `where`. Without it they are numbered through
            the block from 0 on, as `lamina.capture` numbers them.
        position: Their positions, [positions] or [batch, positions]. Without it they count from 0, or from behind
            what a cache (`past_key_values`) holds.
        layout: How the tensors' dimensions are read, as the `layout` of `lamina.Site`: give that which the rows were
            recorded with. Tensors, functions and `where` then mean the tensor in that order, batch first. Without it
            three dimensions are batch, position and width, and of any others the first is the batch.

    Returns:
        A context manager.

    Raises:
        RecordingError: A pattern matches nothing (the hint lists the nearest names), a site is a gradient or a
            parameter, or it is unclear which of several rows is meant. In the block: a shape that does not fit, a
            value that is not the same in the site's dtype, rows that are missing. At its end: a site that was
            never reached. An expression in `where` that chose nothing warns there.

    Example:
        >>> import lamina, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1, bias=False))
        >>> with lamina.edit(model, {"1.output": torch.tensor(0.0)}, where=[True, False]):
        ...     edited = model(torch.ones(2, 2))
        >>> edited[0].item(), bool(edited[1] == model(torch.ones(2, 2))[1])
        (0.0, True)
    """
    if not isinstance(sites, Mapping):
        raise RecordingError(f"sites= is a {type(sites).__name__}", hint="give a tensor, function or Rows by site")
    read = None if layout is None else parse_layout(layout)
    if read is not None and read.form == "tokens":
        raise RecordingError(f"the layout {layout!r} does not tell which token is whose", hint="use a function")
    return Edit(model, _changes(model, sites), where=Where(where), names=Names(example, position), layout=read)


class Edit:
    """What `lamina.edit` returns: enter it around calls of the model, once.

    Attributes:
        sites: The names of the sites that are edited.
    """

    def __init__(
        self,
        model: nn.Module,
        changes: list[tuple[ResolvedSite, Change]],
        *,
        where: Where,
        names: Names,
        layout: Layout | None,
    ) -> None:
        self.sites = [site.name for site, _ in changes]
        self._where = where
        self._hooks: list[Hook] = [Pass(model, names)]
        self._hooks += [Editor(site, change, where=where, names=names, layout=layout) for site, change in changes]
        self._stack = ExitStack()
        self._entered = False

    def __repr__(self) -> str:
        return f"Edit({', '.join(self.sites)})"

    def __enter__(self) -> Edit:
        """Attach all edits, or none."""
        if self._entered:
            raise RecordingError("an edit can be entered once", hint="call lamina.edit again")
        self._entered = True
        with ExitStack() as stack:
            # Code that is compiled already does not see these hooks, and what was compiled now would keep them.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            for hook in self._hooks:
                stack.callback(hook.detach)
                hook.attach()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Take all edits away.

        Raises:
            RecordingError: A site was never reached, and no other exception is under way.
        """
        self._stack.close()
        if error is not None:
            return
        silent = [hook.site.name for hook in self._hooks if isinstance(hook, Editor) and not hook.reached]
        if silent:
            raise RecordingError(
                f"nothing was edited at {', '.join(silent)}: forward of that module was never called in the block",
                hint="its weights may be used directly, or another model was called",
            )
        if self._where.idle and self.sites:
            warnings.warn("where= chose nothing in the block, so nothing was edited", LaminaWarning, stacklevel=2)


def _changes(model: nn.Module, sites: Mapping[Any, Change]) -> list[tuple[ResolvedSite, Change]]:
    found: dict[tuple[object, ...], tuple[ResolvedSite, Change]] = {}
    passing = {name: alias for name, alias in aliases(model).items() if alias.passes}
    for pattern, change in sites.items():
        if not isinstance(change, (Rows, torch.Tensor)) and not callable(change):
            raise RecordingError(
                f"the site {pattern!r} is edited with a {type(change).__name__}",
                hint="give a tensor, such as torch.tensor(0.0), a function or Rows",
            )
        resolved = resolve(model, [pattern])
        if resolved.parameters:
            raise RecordingError(
                f"the site {resolved.parameters[0].name!r} is a parameter; what can be edited is what flows",
                hint="torch.func.functional_call runs a model with other parameters",
            )
        for site in resolved.sites:
            if site.gradient:
                raise RecordingError(
                    f"the site {site.name!r} is a gradient; what can be edited is what flows forward",
                    hint="a function that edits the activation may call register_hook on what it returns",
                )
            if site.name in passing:
                raise RecordingError(
                    f"the site {site.name!r} can be recorded and not edited: its tensor goes to more places than "
                    f"{passing[site.name].site}",
                    hint=f"edit what is added up to it, or {passing[site.name].site} if that alone is meant",
                )
            key = (id(site.module), site.kind, site.path, site.part)
            known, other = found.get(key, (site, change))
            if known.name != site.name and other is not change:
                raise RecordingError(f"the sites {known.name!r} and {site.name!r} are the same tensor")
            found[key] = (known, change)
    return list(found.values())
