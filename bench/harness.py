"""Measuring side by side: compare the results, then take turns, with the machine's limits in the same run.

A contender is a function `module:name` that takes arrays, `device` and options, gets ready, and returns what
does the work once and gives its result as named parts. It may stand in this environment or in the peers'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench import clock, paths
from bench.agreement import Within
from bench.limits import Limit
from bench.peers import Worker
from bench.table import spread
from bench.worker import resolve
from lamina.progress import track

Case = Callable[[], Mapping[str, float]]
"""Does the work once and returns the seconds of each named phase, so that it can leave out what is not asked about."""

Arrays = Mapping[str, np.ndarray]

TIME = "time"
"""The one phase of a contender and of a limit."""


@dataclass(frozen=True)
class Contender:
    """One way to compute what the question asks for.

    Attributes:
        name: How the table calls it.
        call: `module:name`.
        options: What it takes beside arrays and device.
        peer: Whether it runs in the peers' environment.
        needs: What it cannot do without, by the name of the machine's limit that it meets there: floating-point
            operations, bytes, exponentials. Several stand for work that is done one after the other.
    """

    name: str
    call: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = False
    needs: Mapping[str, float] = field(default_factory=dict)


def compare(
    contenders: Sequence[Contender],
    arrays: Arrays,
    expected: Mapping[str, Any],
    *,
    rule: Within,
    limits: Sequence[Limit],
    repetitions: int,
    device: str,
    peers: Worker | None,
    description: str,
    off: dict[str, float] | None = None,
) -> dict[str, list[float]]:
    """Check every contender's result, then time contenders and limits in turns; `off` takes by how much each was off.

    Returns:
        The seconds of a call, by the name of the contender or limit, one a repetition.

    Raises:
        DisagreementError: A result breaks the rule; nothing was timed then.
    """
    cases: dict[str, Case] = {limit.name: as_case(limit.run) for limit in limits}
    off = {} if off is None else off
    for contender in track(contenders, f"{description}: results"):
        if contender.peer:
            assert peers is not None, f"{contender.name} needs a worker"
            peers.prepare(contender.name, contender.call, arrays, device, contender.options)
            off[contender.name] = rule.check(contender.name, peers.result(contender.name), expected)
            cases[contender.name] = as_case(lambda name=contender.name: peers.ask("seconds", case=name))
        else:
            ready = resolve(contender.call)(**arrays, device=device, **contender.options)
            off[contender.name] = rule.check(contender.name, ready(), expected)
            cases[contender.name] = as_case(clock.timed(ready, device))
    seconds = interleave(cases, repetitions, description)
    if peers is not None:
        peers.forget()
    return {name: phases[TIME] for name, phases in seconds.items()}


def peaks(contenders: Iterable[Contender], arrays: Arrays, *, device: str, description: str) -> dict[str, int]:
    """Return the bytes that each contender's first call adds, in a fresh process that already holds the arrays."""
    added = {}
    for contender in track(list(contenders), f"{description}: memory"):
        with Worker(paths.PEERS if contender.peer else paths.OURS) as worker:
            worker.prepare(contender.name, contender.call, arrays, device, contender.options)
            added[contender.name] = worker.ask("added", case=contender.name)
    return added


@dataclass(frozen=True)
class Question:
    """What several contenders are asked.

    Attributes:
        cells: What tells its rows from those of others, by column.
        arrays: Of what.
        contenders: Whom.
        expected: The true answer.
        repetitions: How often each is timed.
    """

    cells: Mapping[str, Any]
    arrays: Arrays
    contenders: Sequence[Contender]
    expected: Mapping[str, Any]
    repetitions: int

    def __str__(self) -> str:
        """Name the question in words."""
        return ", ".join(value if isinstance(value, str) else f"{key} = {value:,}" for key, value in self.cells.items())


def answers(
    questions: Iterable[Question],
    *,
    rule: Within,
    limits: Sequence[Limit],
    device: str,
    peers: Worker | None,
    quick: bool,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, list[float]]]]:
    """Compare and time the contenders of each question, and measure what each adds to memory, unless it is quick.

    Returns:
        A row a contender: the question's cells, `by`, those of `cells`, `peak, MiB`, and `off by`, the largest share of
        the largest expected entry; and the seconds by question.
    """
    rows: list[dict[str, Any]] = []
    samples = {}
    for question in questions:
        arrays, contenders, description = question.arrays, question.contenders, str(question)
        off: dict[str, float] = {}
        seconds = compare(
            contenders,
            arrays,
            question.expected,
            rule=rule,
            limits=limits,
            repetitions=question.repetitions,
            device=device,
            peers=peers,
            description=description,
            off=off,
        )
        samples[description] = seconds
        added = {} if quick else peaks(contenders, arrays, device=device, description=description)
        for contender in contenders:
            row = {**question.cells, "by": contender.name} | cells(contender, limits, seconds)
            peak = added[contender.name] / 2**20 if added else None
            rows.append(row | {"peak, MiB": peak, "off by": f"{off[contender.name]:.1e}"})
    return rows, samples


@contextmanager
def peers_of(quick: bool) -> Iterator[Worker | None]:
    """Open the peers' environment; a smoke run makes do without."""
    if quick and not paths.PEERS.exists():
        yield None
    else:
        with Worker(paths.PEERS) as worker:
            yield worker


PAUSE = 0.01
"""Seconds between two cases."""


def interleave(cases: Mapping[str, Case], repetitions: int, description: str) -> dict[str, dict[str, list[float]]]:
    """Run every case `repetitions` times in the order ABCABC and return the seconds by case and phase.

    A drift of the machine (heat, a neighbor, a filling disk) then hits all cases alike. Between two cases there is a
    pause: threads of OpenMP wait for more work for a few milliseconds, and would take a core from the next case.
    """
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in cases}
    rounds = [name for _ in range(repetitions) for name in cases]
    for name in track(rounds, description):
        time.sleep(PAUSE)
        for phase, value in cases[name]().items():
            seconds[name].setdefault(phase, []).append(value)
    return seconds


def percent(needs: Mapping[str, float], took: float, limits: Iterable[Limit], seconds: Mapping[str, float]) -> float:
    """Return in percent how much of its time the machine's limits explain.

    Args:
        needs: What had to be done, by the name of the limit.
        took: The seconds that it took.
        limits: The limits of the run.
        seconds: The median seconds of a call of each limit in the same run, by name.
    """
    by_name = {limit.name: limit for limit in limits}
    return 100 * sum(work * seconds[name] / by_name[name].work for name, work in needs.items()) / took


TIMES = ["median, ms", "min, ms", "quartiles, ms", "limit", "% of the limit"]
"""The columns that `cells` fills."""


def cells(contender: Contender, limits: Iterable[Limit], samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the cells of a contender's row."""
    took = spread(samples[contender.name])
    medians = {name: spread(values).median for name, values in samples.items()}
    return dict(
        zip(
            TIMES,
            [
                1e3 * took.median,
                1e3 * took.least,
                f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                " + ".join(contender.needs),
                f"{percent(contender.needs, took.median, limits, medians):.0f}",
            ],
            strict=True,
        )
    )


def speeds(limits: Iterable[Limit], samples: Iterable[Mapping[str, Sequence[float]]]) -> str:
    """Say in a note how fast the machine was in the run."""
    samples = list(samples)
    measured = {limit: spread([value for part in samples for value in part[limit.name]]) for limit in limits}
    told = [
        f"{limit.name} {limit.speed(took.median)} ({limit.speed(took.greatest)} to {limit.speed(took.least)})"
        for limit, took in measured.items()
    ]
    return "limits in this run, median (slowest to fastest): " + ", ".join(told)


def as_case(seconds: Callable[[], float]) -> Case:
    """Make a case of a function that returns the seconds of its one phase."""
    return lambda: {TIME: seconds()}
