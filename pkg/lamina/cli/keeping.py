"""What the commands that keep a run print."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lamina.cli.show import plain, table
from lamina.runs import Run


def show_verification(runs: list[Run], console: Console) -> bool:
    """Check each run and print what was found; returns whether all is well."""
    well = True
    for run in runs:
        found = run.verify()
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), str(found)))
        if not found.ok:
            console.print(table(found.problems))
        well &= found.ok
    return well
