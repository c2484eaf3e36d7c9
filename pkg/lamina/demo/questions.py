"""The three questions at the end of the demo: commands to paste, and what they answer."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Question:
    """What is asked, the command that asks it, and the answer that the command printed."""

    text: str
    command: str
    answer: str


def questions(folder: Path, *, last: int) -> list[Question]:
    """Return three questions to the runs in `folder`, whose last step is `last`, with the answers of their commands.

    The commands work in the present folder, in a POSIX shell.
    """
    lamina, python = _lamina(), _python()
    asked = {
        "How well does each network read digits that it never learnt from?": (
            f'{lamina} query {_word(folder)} "select run, step, value as percent_correct from metrics '
            f"where name = 'validation/accuracy' and step = {last} order by run\""
        ),
        "Which digits does it learn from with the greatest loss, late in the training?": (
            f'{lamina} query {_word(folder)} "select label, count(*) as seen, avg(loss) as nats from activations '
            f"join examples using (run, example) where source = 'train' and step > {last // 2} "
            'group by label order by nats desc limit 3"'
        ),
        "Which words leave the pretrained encoder least like they entered it, in Polars and from recorded vectors?": (
            f"{python} -c '{_POLARS.format(run=folder / 'minilm')}'"
        ),
    }
    return [Question(text, command, _answer(command)) for text, command in asked.items()]


_POLARS = """
import lamina, polars as pl
run = lamina.open("{run}")
first, last = "embeddings.output", "encoder.layer.5.output"
rows = run.activations([first, last]).join(run.examples(), on=["example", "position"])
dot = lambda a, b: (pl.col(a) * pl.col(b)).arr.sum()
cosine = dot(first, last) / (dot(first, first) * dot(last, last)).sqrt()
words = rows.group_by("token").agg(cosine.mean().alias("mean cosine"), pl.len().alias("times"))
often = words.filter(pl.col("times") >= 100, pl.col("token").str.contains("^[a-z]+$"))
print(often.sort("mean cosine").head(3).collect())
"""


def _answer(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).rstrip()


def _lamina() -> str:
    """Return the shortest way to call this very `lamina` from the present folder."""
    started = Path(sys.argv[0])
    if started.name != "lamina" or not started.exists():
        return f"{_python()} -m lamina.cli"
    found = shutil.which("lamina")
    return "lamina" if found is not None and Path(found).samefile(started) else _word(started)


def _python() -> str:
    """Return the shortest way to call this very interpreter; a link to it is not followed, for its packages' sake."""
    found = shutil.which("python")
    return "python" if found is not None and Path(found) == Path(sys.executable) else _word(Path(sys.executable))


def _word(path: Path) -> str:
    """Return a path for the shell: relative where it lies below the present folder."""
    absolute = path.absolute()
    return shlex.quote(str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute))
