"""A step that is divided as the one before is what `appends` makes of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording import Site
from lamina.recording import division as dividing
from lamina.recording.appends import Append, appends
from lamina.recording.captured import Captured, Collector
from lamina.recording.division import Division
from lamina.recording.numbering import Numbering
from lamina.runs.buffers import Lent
from tests.faults import broken

OPTIONS = [
    Site(),
    Site(),
    Site(positions=[0, -1]),
    Site(positions=slice(1, None)),
    Site(pool="last"),
    Site(sample=0.5),
    Site(layout="token width"),
]


def captures(draw: random.Random, batch: int, positions: int, sites: Sequence[tuple[str, int, Site]]) -> list[Captured]:
    """What one or two calls of a model with these sites would leave."""
    collector = Collector()
    for _ in range(draw.choice([1, 1, 1, 2])):
        collector.count_batch(draw.choice([0, 0, 0, 3]))
        for name, dimensions, options in sites:
            shape = [(batch, 4), (batch, positions, 4), (batch, 2, 2, 2)][dimensions]
            value = torch.randn(batch * positions, 4) if options.layout else torch.randn(shape)
            collector.take(name, value, options=options)
    if draw.random() < 0.3:
        collector.take_units("weight", torch.randn(3, 4), Site())
    return collector.drain()


def one(*shape: int) -> list[Captured]:
    """What a call of one site leaves."""
    collector = Collector()
    collector.take("a", torch.randn(shape))
    return collector.drain()


def given(draw: random.Random, batch: int, positions: int) -> dict[str, Any]:
    wide = torch.randint(0, 9, (batch, positions))
    columns: dict[str, Any] = {
        "example": draw.choice([range(batch), list(range(batch)), torch.arange(batch), ["a"] * batch]),
        "mask": draw.choice([wide > 2, (wide > 2).tolist(), torch.arange(batch) > 0]),
        "token": draw.choice([wide, wide.numpy(), wide.tolist()]),
        "position": torch.arange(positions).expand(batch, positions) + draw.randrange(3),
        "epoch": draw.randrange(4),
        "split": draw.choice(["train", "long name"]),
        "weight": torch.tensor(draw.random()),
    }
    return {name: column for name, column in columns.items() if name == "example" or draw.random() < 0.35}


def steps(seed: int, count: int) -> list[tuple[list[Captured], dict[str, Any]]]:
    """Steps of a training whose shapes change now and then."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    made = []
    while len(made) < count:
        names = draw.sample("abcdef", draw.randrange(1, 5))
        sites = [(name, draw.randrange(3), draw.choice(OPTIONS)) for name in names]
        sites = [(name, dims if options == Site() else 1, options) for name, dims, options in sites]
        sizes = [(draw.choice([1, 2, 3]), draw.choice([2, 3])) for _ in range(2)]
        same = draw.getstate()
        for batch, positions in (sizes[0], sizes[0], sizes[1]):
            # The same draws again: the same sites and columns, with other values, then with other sizes.
            draw.setstate(same)
            columns = given(draw, batch, positions)
            made.append((captures(draw, batch, positions, sites), columns))
    return made


def plain(made: Sequence[Append]) -> list[Any]:
    def values(column: Any) -> Any:
        return column.tolist() if hasattr(column, "tolist") else list(column) if isinstance(column, range) else column

    return [
        (
            {site: (value.tensor if isinstance(value, Lent) else value).tolist() for site, value in sites.items()},
            {name: values(column) for name, column in own.items()},
        )
        for sites, own in made
    ]


def outcome(divide: Any, captured: Sequence[Captured], columns: Mapping[str, Any]) -> Any:
    try:
        return plain(list(divide(captured, columns)))
    except RecordingError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(8))
def test_divided_alike_is_divided_anew(seed: int) -> None:
    division = Division()
    for captured, columns in steps(seed, 60):
        assert outcome(division.of, captured, columns) == outcome(appends, captured, columns)


@pytest.mark.parametrize("fault", ["divisions_ignore_shapes", "divisions_keep_what_values_decided"])
def test_what_a_division_must_not_keep_is_noticed(fault: str) -> None:
    def divide() -> None:
        for seed in range(8):
            test_divided_alike_is_divided_anew(seed)

    with broken(fault), pytest.raises((AssertionError, ValueError, KeyError)):
        divide()


def test_equal_shapes_are_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(dividing, "appends", lambda *all: looked.append(1) or appends(*all))
    draw, division = random.Random(0), Division()
    for size in (2, 2, 2, 3, 3, 2):
        captured = captures(random.Random(1), size, 3, [("a", 1, Site()), ("b", 0, Site(positions=-1))])
        mask = torch.randint(0, 2, (size, 3)) > 0
        division.of(captured, {"example": range(size), "mask": mask, "epoch": draw.random()})
    assert len(looked) == 3


def test_a_mask_is_looked_at_each_time() -> None:
    division = Division()
    division.of(one(2, 3, 4), {"mask": torch.ones(2, 3)})
    with pytest.raises(RecordingError, match="neither 0 nor 1"):
        division.of(one(2, 3, 4), {"mask": torch.full((2, 3), 2)})


def test_items_without_names_are_numbered_on() -> None:
    division, numbering = Division(), Numbering()
    for first in (0, 2, 4):
        ((_, own),) = division.of(one(2, 3, 4), {}, numbering)
        assert own["example"].tolist() == [first, first + 1]


def test_large_values_are_lent() -> None:
    division = Division()
    for _ in range(2):
        ((sites, _),) = division.of(one(2**17, 1), {})
        assert isinstance(sites["a"], Lent)
