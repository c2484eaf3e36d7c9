"""The command `lamina` and how it ends: an answer, or one line that says what was wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import lamina
from lamina.cli.exchange import export, import_
from lamina.cli.show import err, fail, out, table
from lamina.errors import LaminaError
from lamina.paths import path_of

if TYPE_CHECKING:
    from lamina.runs import Run


class _Commands(TyperGroup):
    """Exit codes: 0, 1 for an error of Lamina's, 2 for wrong usage (Typer's own), 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
            return answer
        except LaminaError as error:
            fail(error)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            err().print("Stopped. What was recorded so far is kept, and opens.")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of a pipe has had enough; without this the interpreter complains once more on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    cls=_Commands,
    help="Record what a neural network does while it learns, and ask about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Target = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, a folder of runs, or a quoted pattern.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"lamina {lamina.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options of all commands."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to record; the next free number is appended.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="How many networks to train.")] = 3,
) -> None:
    """Train small networks and read a pretrained one, with recording on; draw a report; ask it three questions."""
    from lamina.demo import demo as run_demo

    run_demo(out, seeds=seeds)


@app.command()
def info(
    run: Target,
    watch: Annotated[bool, typer.Option("--watch", help="Follow one run until it is finished, or Ctrl-C.")] = False,
) -> None:
    """Show what a run holds: settings, status, sites, steps, metrics, checkpoints, notes."""
    from lamina.cli.info import show_run, show_runs
    from lamina.cli.target import members, open_target
    from lamina.cli.watch import watch_run
    from lamina.runs import Run

    opened = open_target(run)
    if watch:
        if not isinstance(opened, Run):
            raise LaminaError("several runs cannot be watched at once", hint="name one of them")
        watch_run(opened, out())
    elif isinstance(opened, Run):
        show_run(opened, out())
    else:
        show_runs(members(opened), out())


@app.command()
def query(
    run: Target,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="Over the tables metrics, sites, examples, checkpoints, notes, attachments, activations.",
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print all rows as JSON, with vectors as lists.")] = False,
) -> None:
    """Answer a question in SQL. A site's name is a column of activations: "blocks.0.output", in double quotes."""
    from lamina.cli.query import answer, records, shown_answer
    from lamina.cli.target import open_target, warn_of_problems

    opened = open_target(run)
    warn_of_problems(opened)
    if json:
        for line in records(answer(opened, sql)):
            print(line)
        return
    frame, more = shown_answer(opened, sql)
    out().print(table(frame))
    if more:
        err().print(f"These are the first {frame.height} rows; --json prints all of them.")


@app.command()
def report(
    run: Target,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default beside the run.")
    ] = None,
) -> None:
    """Draw a report: one HTML file that opens without a network."""
    from lamina.cli.target import members, open_target, warn_of_problems
    from lamina.report import report as draw

    opened = open_target(run)
    warn_of_problems(opened)
    runs = members(opened)
    out().print(str(draw(runs, output or _beside(runs[0].path, alone=len(runs) == 1))), soft_wrap=True)


@app.command()
def verify(run: Target) -> None:
    """Compute every hash again and list what is not what was written; exit code 1 if there is any."""
    from lamina.cli.keeping import show_verification
    from lamina.cli.target import members, open_target

    if not show_verification(members(open_target(run)), out()):
        raise typer.Exit(1)


@app.command()
def compact(
    run: Target,
    cold: Annotated[
        list[str] | None, typer.Option(help="A site whose rows are coded as well, or a pattern; may be given again.")
    ] = None,
) -> None:
    """Merge small row groups into large ones, leave behind what was rewound or deleted, and code checkpoints."""
    from lamina.cli.keeping import show_compaction
    from lamina.cli.target import members, open_target

    show_compaction(members(open_target(run)), cold or [], out())


@app.command()
def index(
    run: Target,
    site: Annotated[
        list[str] | None, typer.Option(help="A site of sparse codes, or a pattern; may be given again.")
    ] = None,
) -> None:
    """Index sparse codes by feature: build what is missing, damaged or of another version, and list all there is."""
    from lamina.cli.keeping import show_indexing
    from lamina.cli.target import members, open_target

    show_indexing(members(open_target(run)), site or None, out())


@app.command()
def gc(
    run: Target,
    grace: Annotated[
        float | None, typer.Option(help="Seconds that a file stays after it was found; by default a day.")
    ] = None,
) -> None:
    """Remove files that nothing needs any more, some time after they were found."""
    from lamina.cli.keeping import show_collection
    from lamina.cli.target import members, open_target

    show_collection(members(open_target(run)), grace, out())


@app.command()
def copy(
    run: Folder,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Where there is nothing yet.")],
) -> None:
    """Copy a run as it is now, verifying every byte; what was rewound or deleted is left out."""
    from lamina.cli.keeping import show_copy

    show_copy(run, target, out())


@app.command()
def merge(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Where there is nothing yet.")],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, folders of runs, or quoted patterns.")],
    config: Annotated[str | None, typer.Option(help="The new run's, as JSON, where those of the runs differ.")] = None,
) -> None:
    """Make one run of several: rows, examples, metrics and checkpoints."""
    from lamina.cli.keeping import show_merge

    show_merge(target, runs, config, out())


@app.command()
def diff(
    run: Folder,
    step: Annotated[int, typer.Argument(metavar="STEP", help="The step of a checkpoint.")],
    other: Annotated[int, typer.Argument(metavar="STEP", help="That of another.")],
    part: Annotated[str, typer.Option(help="The part of both that is compared.")] = "model",
) -> None:
    """Compare two checkpoints tensor by tensor: norm, relative change, and how many elements and bits stayed."""
    from lamina.cli.diff import show_differences
    from lamina.cli.target import open_target, warn_of_problems
    from lamina.runs import Run

    opened = open_target(str(run))
    if not isinstance(opened, Run):
        raise LaminaError("checkpoints of several runs cannot be compared", hint="name one of them")
    warn_of_problems(opened)
    show_differences(opened, step, other, part, out())


@app.command()
def rewind(
    run: Target,
    step: Annotated[int, typer.Argument(metavar="STEP", help="The step of the checkpoint to go back to.")],
    yes: Yes = False,
) -> None:
    """Hide what was recorded from a step on: rows and metrics of it and later ones, checkpoints of later ones; asks."""
    from lamina.cli.keeping import show_rewind
    from lamina.cli.target import members, open_target

    show_rewind(members(open_target(run)), step, yes, out())


@app.command()
def delete(
    run: Target,
    site: Annotated[list[str] | None, typer.Option(help="A site, or a pattern; may be given again.")] = None,
    steps: Annotated[list[str] | None, typer.Option(help="A step, or FIRST:LAST, both included.")] = None,
    rows: Annotated[list[str] | None, typer.Option(help="A row's name, or FIRST:LAST, both included.")] = None,
    yes: Yes = False,
) -> None:
    """Delete what satisfies all of what is given: values of sites, steps, rows. Nobody sees it from now on; asks."""
    from lamina.cli.keeping import show_deletion
    from lamina.cli.target import members, open_target

    show_deletion(members(open_target(run)), site or [], steps or [], rows or [], yes, out())


@app.command()
def checkpoints(
    run: Target, step: Annotated[int | None, typer.Option(help="Show the tensors of this one.")] = None
) -> None:
    """List the checkpoints: steps, parts, bytes, and what each stored that was not there before."""
    from lamina.cli.checkpoints import show_checkpoints
    from lamina.cli.target import members, open_target, warn_of_problems

    opened = open_target(run)
    warn_of_problems(opened)
    show_checkpoints(members(opened), step, out())


@app.command()
def retain(
    run: Target,
    every: Annotated[int | None, typer.Option(help="Keep steps that are multiples of this.")] = None,
    per_decade: Annotated[int | None, typer.Option(help="Keep so many between 1 and 10, 10 and 100, …")] = None,
    last: Annotated[int | None, typer.Option(help="Keep the last so many.")] = None,
    lowest: Annotated[
        list[str] | None, typer.Option(metavar="METRIC[:N]", help="Keep the N at which this is lowest.")
    ] = None,
    highest: Annotated[list[str] | None, typer.Option(metavar="METRIC[:N]", help="The same for the highest.")] = None,
    step: Annotated[list[int] | None, typer.Option(help="Keep this step; may be given again.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="A part that is thinned out, or a glob; by default all are.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Thin out checkpoints: show which stay by any of the rules, and hide the others if you say so."""
    from lamina.cli.checkpoints import counted, show_retention
    from lamina.cli.target import members, open_target

    if all(rule is None for rule in (every, per_decade, last, lowest, highest, step)):
        hint = "give --every, --per-decade, --last, --lowest, --highest or --step"
        raise LaminaError("no rule says what to keep", hint=hint)
    rules = {"every": every, "per_decade": per_decade, "last": last, "steps": step or None, "parts": part or None}
    best = {"lowest": counted(lowest), "highest": counted(highest)}
    show_retention(members(open_target(run)), rules | best, yes, out())


@app.command()
def note(
    run: Folder,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is to be said.")],
    step: Annotated[int | None, typer.Option(help="Of which step, if of one.")] = None,
) -> None:
    """Note something about a run; `lamina info` shows it to whoever looks later."""
    _one(run).note(text, step=step)


@app.command()
def attach(
    run: Folder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its bytes are stored in the run.")],
    name: Annotated[str | None, typer.Option(help="What it is called; by default as the file.")] = None,
) -> None:
    """Attach a file to a run, such as a tokenizer, or the script that ran."""
    file = path_of(file)
    if not file.is_file():
        raise LaminaError(f"{file} is no file", hint="attach one file after the other")
    _one(run).attach(name or file.name, file)


@app.command()
def attachment(
    run: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called; `lamina info` lists the names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; it must not exist.")],
) -> None:
    """Write an attached file, or text, to a file."""
    value = _one(run).attachment(name)
    if not isinstance(value, str | bytes | bytearray):
        raise LaminaError(f"{name!r} is a {type(value).__name__} and no file", hint="run.attachment(name) loads it")
    try:
        with path_of(output).open("xb") as file:
            file.write(value.encode() if isinstance(value, str) else value)
    except OSError as error:
        raise LaminaError(f"{output} cannot be written: {error.strerror}") from None


app.command("import")(import_)
app.command()(export)


def main() -> None:
    """Run the command and leave the process."""
    app()


def _one(path: Path) -> Run:
    """Open a run, and no folder of runs."""
    from lamina.cli.target import open_target, warn_of_problems
    from lamina.runs import Run

    opened = open_target(str(path))
    if not isinstance(opened, Run):
        raise LaminaError(f"{path} is a folder of runs", hint="name one of them")
    warn_of_problems(opened)
    return opened


def _beside(path: Path, *, alone: bool) -> Path:
    """Return `runs/digits-0.html` for one run, `runs/report.html` for several."""
    return path.with_name(f"{path.name}.html") if alone else path.with_name("report.html")
