"""What a measure takes, and whether what it was given fits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, get_args

from lamina.errors import SchemaError
from lamina.measures.grids import Grid
from lamina.measures.registry import Measure, Takes, measures


@dataclass(frozen=True)
class Taken:
    """A measure as a sweep calls it.

    Attributes:
        name: Its name.
        function: The measure.
        takes: As in `lamina.measures.Measure`.
        options: Keyword arguments, alike in all cells: options, seed and labels.
        registered: What the register knows of it.
    """

    name: str
    function: Callable[..., Any]
    takes: Takes
    options: dict[str, Any]
    registered: Measure | None

    @property
    def of_two(self) -> bool:
        """Whether it compares."""
        return self.takes in ("two rows", "two models")

    @property
    def of_models(self) -> bool:
        """Whether it takes models."""
        return self.takes in ("model", "two models")

    @property
    def grid(self) -> Grid | None:
        """How many comparisons are computed in one go."""
        return self.registered.grid if self.registered is not None else None

    @property
    def symmetric(self) -> bool:
        """Whether a comparison does not depend on which of the two comes first."""
        return self.registered is not None and self.registered.symmetric


def taken(
    measure: Any, *, labels: Any, seed: int | None, options: Mapping[str, Any] | None, models: bool, pairs: Any
) -> Taken:
    """Return how a measure is called.

    What is not in the register is looked at: a function of one argument without a default takes rows, of two rows
    twice, or rows and labels where the second is named so; with `models`, models.

    Raises:
        SchemaError: It is no function, takes no such option, or what it takes does not fit `labels`, `seed`, `models`
            or `pairs`.
    """
    if not isinstance(measure, FunctionType):
        raise SchemaError(
            f"the measure is {measure!r}", hint="give a function such as similarity.cka, and its arguments as options="
        )
    known = {each.function: each for each in measures().values()}.get(measure)
    name = known.name if known else measure.__name__
    parameters = inspect.signature(measure).parameters
    takes = known.takes if known else _takes(name, parameters, models)
    given = dict(options or {})
    _check_options(name, given, parameters, 1 if takes in ("rows", "model") else 2)
    for option, value in (("labels", labels), ("seed", seed)):
        if value is None:
            continue
        if option not in parameters:
            raise SchemaError(f"{option}= for {name}, which takes none", hint=f"leave {option}= out")
        given[option] = value
    if takes == "rows and labels" and "labels" not in given:
        raise SchemaError(f"{name} needs labels=", hint="the name of a column of the rows or of the run's examples")
    result = Taken(name, measure, takes, given, known)
    if models != result.of_models:
        wants = "models: give model=, which makes one" if result.of_models else "rows, no models: leave model= out"
        raise SchemaError(f"{name} takes {wants}")
    if pairs is not None and not result.of_two:
        raise SchemaError(f"pairs={pairs!r} for {name}, which takes {takes}", hint="leave pairs= out")
    return result


def _takes(name: str, parameters: Mapping[str, inspect.Parameter], models: bool) -> Takes:
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each.name for each in parameters.values() if each.kind in plain and each.default is each.empty]
    if len(needed) == 1:
        return "model" if models else "rows"
    if len(needed) == 2 and models:
        return "two models"
    if len(needed) == 2:
        return "rows and labels" if needed[1] == "labels" else "two rows"
    raise SchemaError(
        f"{name} has {len(needed)} arguments without a default",
        hint=f"@measure(…, takes=…) says what it takes: {', '.join(get_args(Takes))}",
    )


def _check_options(name: str, given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], rows: int) -> None:
    free = [each.name for each in list(parameters.values())[rows:]]
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for option in given:
        if option not in free:
            raise SchemaError(f"{name} has no option {option!r}", hint=f"it has {', '.join(free) or 'none'}")
