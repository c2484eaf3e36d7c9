"""What a sweep goes over: rows of sites, tensors of checkpoints, and models, at each step of each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina.errors import NotFoundError
from lamina.rows import Rows
from lamina.runs import Run, globs
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.parameters import PART
from lamina.runs.steps import Steps, has_step, plain_steps
from lamina.sweeps.canonical import digest
from lamina.sweeps.names import Names

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Subject:
    """What a measure is applied to.

    Attributes:
        run: The run's name.
        site: The site, or the tensor of a checkpoint; None for a model.
        step: The step.
        identity: 16 bytes that another content has not.
        given: The run and how its rows are chosen, or what another process made of that.
    """

    run: str
    site: str | None
    step: int
    identity: bytes
    given: Chosen | Rows

    def __str__(self) -> str:
        return f"{self.site or 'the model'} of {self.run} at step {self.step}"

    def value(self) -> Rows | torch.nn.Module:
        """Return the rows, of which nothing is read yet, or the model with the weights of the step."""
        return self.given if isinstance(self.given, Rows) else self.given.value(self.site, self.step)

    def rows(self) -> Rows:
        """Return the rows."""
        rows = self.value()
        assert isinstance(rows, Rows)
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        """Rows go to another process as those that they are, also if the run has grown meanwhile."""
        given = self.given if self.site is None else self.value()
        return Subject, (self.run, self.site, self.step, self.identity, given)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A run, and which of it is meant.

    Attributes:
        run: The run.
        source: As in `Run.rows`.
        where: As in `Run.rows`.
        model: Makes the model of the run, where models are meant.
    """

    run: Run
    source: str | None = None
    where: pl.Expr | None = None
    model: Callable[[Run], torch.nn.Module] | None = None

    def value(self, site: str | None, step: int) -> Rows | torch.nn.Module:
        """Return the rows of a site, or the model."""
        if site is not None:
            return self.run.rows(site, step=step, source=self.source, where=self.where)
        assert self.model is not None
        made = self.model(self.run)
        self.run.restore(step, made)
        return made


def subjects(
    runs: Mapping[str, Run],
    sites: str | Sequence[str] | None,
    steps: Steps,
    *,
    source: str | None = None,
    where: pl.Expr | None = None,
    contents: bool = True,
) -> list[Subject]:
    """Return what sites, or tensors of checkpoints, hold at the steps of runs: by run, site, step.

    A glob that matches no site is matched with the tensors of the checkpoints' models, which are read if their
    `contents` shall tell them from others. Sites of sparse codes, which are as wide as they have features, are
    no subjects.

    Raises:
        NotFoundError: A glob matches nothing in any run, or no rows are left at any step, or at one that was named.
        SchemaError: Rows of several sources, or `where` is no condition.
    """
    patterns = ["**"] if sites is None else [sites] if isinstance(sites, str) else list(sites)
    wanted = plain_steps(steps)
    recorded = {name: [site for site, *_, sparse in run._snapshot.sites() if not sparse] for name, run in runs.items()}
    saved = {name: _tensors(run) for name, run in runs.items()}
    of_sites, of_tensors = _divided(patterns, recorded, saved)
    found: list[Subject] = []
    for name, run in runs.items():
        chosen = Chosen(run, source, where)
        names = Names(run, source, where, wanted)
        for site in (one for one in recorded[name] if any(globs.matches(each, one) for each in of_sites)):
            found.extend(Subject(name, site, step, identity, chosen) for step, identity in names.identities(site))
        for tensor in (one for one in saved[name] if any(globs.matches(each, one) for each in of_tensors)):
            for step in (one for one in run.saved_steps(tensor) if wanted is None or has_step(wanted, one)):
                identity = digest([run.tensor(tensor, steps=step), where]) if contents else b""
                found.append(Subject(name, tensor, step, identity, chosen))
    known = {step for run in runs.values() for step in [*run.steps(), *(run.saved_steps() if of_tensors else [])]}
    check_steps(wanted, known)
    if not found:
        asked = "" if source is None else f" of the source {source!r}"
        raise NotFoundError(f"no rows{asked} of {', '.join(patterns)} are left", hint="see run.sites() and run.steps()")
    return found


def _divided(
    patterns: Sequence[str], recorded: Mapping[str, list[str]], saved: Mapping[str, list[str]]
) -> tuple[list[str], list[str]]:
    """Return the globs of sites, and those of tensors of checkpoints."""
    sites = list(dict.fromkeys(site for names in recorded.values() for site in names))
    tensors = list(dict.fromkeys(tensor for names in saved.values() for tensor in names))
    of_sites = [each for each in patterns if any(globs.matches(each, site) for site in sites)]
    of_tensors = [each for each in patterns if each not in of_sites]
    for pattern in of_tensors:
        if not any(globs.matches(pattern, tensor) for tensor in tensors):
            raise NotFoundError(f"no site matches {pattern!r}", hint=nearest_names(pattern, [*sites, *tensors]))
    return of_sites, of_tensors


def _tensors(run: Run) -> list[str]:
    layouts = {part.layout: part for parts in run._saved.by_step.values() for part in parts.values()}
    parts = [part for part in layouts.values() if part.name == PART]
    return list(dict.fromkeys(tensor.name for part in parts for tensor in run._saved.tensors(part) if tensor.shape))


def check_steps(wanted: Steps, known: set[int]) -> None:
    """Raise NotFoundError if a step that was named is nowhere; the hint lists the nearest."""
    if wanted is None or isinstance(wanted, slice):
        return
    for step in [wanted] if isinstance(wanted, int) else wanted:
        if step not in known:
            raise NotFoundError(f"nothing at step {step}", hint=nearest_steps(step, sorted(known)))
