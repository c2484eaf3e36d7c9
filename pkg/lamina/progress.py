"""Progress bars for work that takes longer than a person waits without asking."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


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

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # What the loop prints goes above the bar, but only if it went to the terminal anyway.
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        yield from bar.track(iterable, total=total, description=description)
