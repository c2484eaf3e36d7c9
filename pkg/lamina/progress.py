"""Progress bars for work that takes longer than a person waits without asking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lamina._core import Progress

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def track(
    iterable: Iterable[Item],
    description: str,
    total: int | None = None,
    progress: bool = True,
) -> Iterator[Item]:
    """Yield the items of `iterable` and show on standard error how far along they are.

    Nothing is shown if standard error is no terminal. The bar stops where it is when the loop is left early,
    by `break`, an exception or Ctrl-C.

    Args:
        iterable: What to go through.
        description: A few words in front of the bar.
        total: The number of items; None asks the iterable; if it does not know, the bar counts without an end.
        progress: False shows nothing anywhere.

    Yields:
        The items, in order.

    Example:
        >>> from lamina.progress import track
        >>> sum(track([1, 2, 3], "adding", progress=False))
        6
    """
    if not (progress and sys.stderr.isatty()):
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    # What the loop prints goes above the bar, but only if it went to the terminal anyway.
    console = Console(file=sys.stderr)
    shown, width = _fitted(description, console.width, 36)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(width),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    columns = columns if console.width >= _NARROW else columns[:3]
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        yield from bar.track(iterable, total=total, description=shown)


def watch(work: Callable[[Progress], Answer], description: str, progress: bool = True) -> Answer:
    """Return what `work` returns, which runs in a thread of its own and tells its bytes to a `Progress`.

    A bar on standard error follows it, if that is a terminal. Ctrl-C, and any other exception here, asks the work
    to stop, waits until it has, and goes on up.

    Args:
        work: A function of the core that takes a `Progress` and does not hold the GIL.
        description: A few words in front of the bar.
        progress: False shows nothing anywhere.
    """
    from lamina._core import Progress

    state, outcome = Progress(), Future[Answer]()

    def run() -> None:
        try:
            outcome.set_result(work(state))
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=run, name="lamina-watched")
    try:
        thread.start()
        with byte_bar(description, progress) as show:
            while thread.is_alive():
                thread.join(0.1)
                show(*state.bytes)
    except BaseException:
        state.stop()
        if thread.ident is not None:
            thread.join()
        raise
    return outcome.result()


@contextmanager
def byte_bar(description: str, progress: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal; called with the bytes done and those in all, it shows them."""
    if not (progress and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(file=sys.stderr)
    shown, width = _fitted(description, console.width, 44)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(width), DownloadColumn())
    if console.width >= _NARROW:
        columns = (*columns, TransferSpeedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(shown, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


_NARROW = 60
"""Columns of a terminal below which there is no room for times."""


def _fitted(description: str, columns: int, numbers: int) -> tuple[str, int]:
    """The description, cut where it leaves no room for a bar and the numbers behind it, and the width of the bar."""
    from rich.cells import cell_len, chop_cells

    # names of files and sites stand in it, and a terminal does as it is told
    description = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in description)
    room = max(8, columns - (16 if columns < _NARROW else numbers) - 8)
    if cell_len(description) > room:
        description = chop_cells(description, room - 1)[0] + "…"
    return description, max(4, min(40, room + 8 - cell_len(description) - 2))
