"""The register of measures: what each takes, what it does not see, what it costs, where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeVar, get_args

import polars as pl

from lamina.errors import SchemaError
from lamina.measures.grids import Grid

Invariance = Literal["rotation", "permutation", "scale", "shift", "affine"]
Takes = Literal["rows", "two rows", "rows and labels", "model", "two models"]

_FAMILIES = ("similarity", "geometry", "information")
"""The rooms whose measures register when they are imported."""

_registered: dict[str, Measure] = {}
_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass(frozen=True)
class Measure:
    """What is known of a measure.

    Attributes:
        name: Family and function, such as `similarity.cka`.
        family: The room that it lives in.
        takes: Rows, two matrices whose rows pair, rows and their labels, a model, or two models.
        invariant: Maps of the features that leave its value as it is: a rotation or reflection, a permutation, one
            factor for all features, a shift, or any invertible affine map, which holds all of them.
        invariant_y: The same for maps of y, where the measure takes two; else None.
        symmetric: Whether it gives the same for y and x as for x and y; a sweep then computes one of the two.
        metric: Whether it is a distance that satisfies the triangle inequality.
        larger_is_more_similar: None for what is no comparison.
        streams: Whether rows are read in blocks and states merge.
        cost: Operations and memory, in words.
        catalogue: The rows of the catalogue of ideas that it answers to.
        source: Who published it.
        function: The measure.
        grid: How it computes many pairs in one go; None where each pair is a call.
    """

    name: str
    family: str
    takes: Takes
    invariant: tuple[Invariance, ...]
    invariant_y: tuple[Invariance, ...] | None
    symmetric: bool
    metric: bool
    larger_is_more_similar: bool | None
    streams: bool
    cost: str
    catalogue: tuple[str, ...]
    source: str
    function: Callable[..., object]
    grid: Grid | None = None


def measure(
    family: str,
    *,
    takes: Takes,
    invariant: Sequence[Invariance],
    invariant_y: Sequence[Invariance] | None = None,
    symmetric: bool = False,
    metric: bool = False,
    larger_is_more_similar: bool | None = None,
    streams: bool = False,
    cost: str,
    catalogue: Sequence[str] = (),
    source: str,
    grid: Grid | None = None,
) -> Callable[[_Function], _Function]:
    """Enter a function into the register under `<family>.<its name>`; it is returned as it is.

    Args:
        family: The room that it lives in.
        takes: See `Measure`.
        invariant: See `Measure`.
        invariant_y: For measures that take two: None if it is invariant to the same maps of y.
        symmetric: See `Measure`.
        metric: See `Measure`.
        larger_is_more_similar: See `Measure`.
        streams: See `Measure`.
        cost: See `Measure`.
        catalogue: See `Measure`.
        source: See `Measure`.
        grid: See `Measure`.

    Raises:
        SchemaError: Two functions of one name, or an affine invariance without those that it holds.

    Example:
        >>> @measure("example", takes="rows", invariant=["permutation"], cost="n d", source="none")
        ... def mean_norm(x):
        ...     ...
        >>> list_measures().filter(name="example.mean_norm")["invariant"].to_list()
        [['permutation']]
    """
    every: tuple[Invariance, ...] = get_args(Invariance)
    y = (tuple(invariant) if invariant_y is None else tuple(invariant_y)) if takes == "two rows" else None

    def register(function: _Function) -> _Function:
        name = f"{family}.{getattr(function, '__name__', '')}"
        if name in _registered and _registered[name].function.__module__ != function.__module__:
            raise SchemaError(f"two measures are named {name}", hint="a name means one thing for ever")
        for maps in (tuple(invariant), y or ()):
            if unknown := [one for one in maps if one not in every]:
                raise SchemaError(f"{name} is invariant to {unknown[0]!r}", hint=f"there are {', '.join(every)}")
            if "affine" in maps and set(maps) != set(every):
                raise SchemaError(f"{name} is invariant to affine maps, which hold {', '.join(every)}", hint="list all")
            if "rotation" in maps and "permutation" not in maps:
                raise SchemaError(f"{name} is invariant to rotations, which hold permutations", hint="list both")
        _registered[name] = Measure(
            name=name,
            family=family,
            takes=takes,
            invariant=tuple(invariant),
            invariant_y=y,
            symmetric=symmetric,
            metric=metric,
            larger_is_more_similar=larger_is_more_similar,
            streams=streams,
            cost=cost,
            catalogue=tuple(catalogue),
            source=source,
            function=function,
            grid=grid,
        )
        return function

    return register


def measures() -> dict[str, Measure]:
    """Return the measures by name, those of Lamina and those that were registered since."""
    for family in _FAMILIES:
        import_module(f"lamina.{family}")
    return dict(sorted(_registered.items()))


def list_measures() -> pl.DataFrame:
    """Return a row for each measure: what it takes, what it does not see, what it costs, where it comes from.

    Columns: name, family, takes, invariant (list: rotation, permutation, scale, shift, affine), invariant_y (the same
    for maps of y; null for what takes one), symmetric, metric, larger_is_more_similar (null for what is no comparison),
    streams, cost, catalogue, source.

    Example:
        >>> frame = list_measures().filter(pl.col("invariant").list.contains("rotation"))
        >>> "similarity.cka" in frame["name"].to_list()
        True
    """
    text, texts = pl.String, pl.List(pl.String)
    schema = {"name": text, "family": text, "takes": text, "invariant": texts, "invariant_y": texts}
    schema |= {
        "symmetric": pl.Boolean,
        "metric": pl.Boolean,
        "larger_is_more_similar": pl.Boolean,
        "streams": pl.Boolean,
    }
    schema |= {"cost": text, "catalogue": texts, "source": text}
    rows = [{column: getattr(each, column) for column in schema} for each in measures().values()]
    return pl.DataFrame(rows, schema=schema)
