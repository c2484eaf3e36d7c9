"""A small run that was kept: compacted, coded, rewound, thinned out, collected, fenced; and every question about it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lamina
from tests.store import forge, reader, small
from tests.store.planted import bits
from tests.store.small import Examined, Questions

SITES = ("wide", "loss", "code")
KILLED_LOG = "logs/000006.0000"

Truth = dict[tuple[Any, ...], dict[int, Any]]
"""By question, what each row has that was ever there."""


def make(path: Path) -> Truth:
    """Leaves a file of every kind that there is, and in the killed writer's log a record behind its fence."""
    living = path.with_name("living")
    run = lamina.Run.create(living, config={"lr": 0.5})
    with run.writer() as writer:
        for step in range(4):
            small.append(writer, step)
        for step in (0, 1):
            writer.log({"loss": 0.5 + step}, step=step)
            writer.examples({"example": [0, 1], "label": ["a", f"ü{step}"]}).wait()
            writer.save({"model": {"weight": torch.arange(6.0) + step, "lr": 0.5}}, step=step).wait()
    with run.refresh().writer() as writer:
        rows = run.rows("wide", step=slice(1, 3)).ids
        writer.append({"code": rows[::-1].astype(np.float64)}, row=rows[::-1]).wait()
    truth = seen(run.refresh())
    run.delete("loss", steps=3)
    run.compact(cold="wide", progress=False)
    run.gc(grace=0, progress=False)
    with run.refresh().writer() as writer:
        small.append(writer, 4)
        small.append(writer, 5)
        writer.save({"model": {"weight": torch.arange(6.0) + 5, "lr": 0.5}}, step=5).wait()
    add(truth, seen(run.refresh()))
    run.rewind(5).delete(steps=0).compact(progress=False)
    with run.refresh().writer() as writer:
        small.append(writer, 5)
        small.append(writer, 8)
    add(truth, seen(run.refresh()))
    run.rewind(8)
    with run.refresh().writer() as writer:
        small.append(writer, 6)
        small.append(writer, 7)
        shutil.copytree(living, path)
    shutil.rmtree(living)
    for log in (path / "logs").iterdir():  # of a writer that may be at work the last record may be half there
        forge.rewrite_log(path, small.forget_process, name=log.name)
    add(truth, seen(lamina.open(path)))
    # it is fenced before its last record, which was never acknowledged
    whole = (path / KILLED_LOG).read_bytes()
    (path / KILLED_LOG).write_bytes(b"".join(forge.split(whole)[:-1]))
    lamina.open(path).gc(progress=False)
    (path / KILLED_LOG).write_bytes(whole)
    return truth


def frame(run: lamina.Run) -> dict[int, dict[str, str]]:
    """The wide frame, by row."""
    rows = run.activations().collect().iter_rows(named=True)
    return {row["row"]: {name: repr(value) for name, value in row.items() if value is not None} for row in rows}


def values(run: lamina.Run, site: str) -> dict[int, bytes]:
    """The bits of a site's rows, by row."""
    rows = run.rows(site)
    gathered = rows.gather(range(len(rows)))
    return {int(name): bits(gathered[at]) for at, name in enumerate(rows.ids)}


QUESTIONS: Questions = {
    ("config",): lambda run: (run.config, run.id, run.created),
    ("sites",): lambda run: run.sites().rows(),
    ("steps",): lambda run: run.steps(),
    ("status",): lambda run: str(run.status),
    ("metrics",): lambda run: run.metrics().collect().rows(),
    ("examples",): lambda run: run.examples().collect().rows(),
    ("checkpoints",): lambda run: run.checkpoints().collect().drop("stored").rows(),
    **{("load", step): lambda run, step=step: small.state(run.load(step)) for step in (0, 1)},
    **{("values", site): lambda run, site=site: values(run, site) for site in SITES},
    ("frame",): frame,
}
BY_ROW = {("frame",), *(("values", site) for site in SITES)}


def seen(run: lamina.Run) -> Truth:
    """What the rows hold that are there."""
    names = set(run.sites()["site"])
    return {question: QUESTIONS[question](run) for question in BY_ROW if len(question) == 1 or question[1] in names}


def add(truth: Truth, more: Truth) -> None:
    for question, rows in more.items():
        truth[question] = truth.get(question, {}) | rows


def assert_nothing_wrong(found: Examined, expected: Examined, truth: Truth, where: Any) -> None:
    """Rows may be missing, or what was hidden may be seen; what is there is what was once recorded."""
    for question, answer in found.answers.items():
        if question in BY_ROW:
            for row, cells in answer.items():
                known = truth[question][row]
                assert cells == known if isinstance(cells, bytes) else cells.items() <= known.items(), (where, row)
        elif question[0] in ("config", "load"):
            assert answer == expected.answers[question], (where, question)


def verified(path: Path) -> bool:
    """Whether `verify` finds nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        try:
            return lamina.open(path).verify(progress=False).ok
        except lamina.LaminaError:
            return False


def needed(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Which bytes of each file `verify` must know, by the document's own reader: from the first to before the last."""
    run = reader.read(path)
    spans: dict[str, list[tuple[int, int]]] = {}
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        name = file.relative_to(path).as_posix()
        if name.startswith("logs/"):
            end = reader.fence(path, file.name[:6])
            spans[name] = [(0, file.stat().st_size if end is None else end)]
        elif not name.startswith(("segments/", "chunks/")):
            spans[name] = [(0, file.stat().st_size)]
        else:
            spans[name] = []
    first, last = {}, {}
    for group in run.groups:
        record = group.record
        spans[record[0]] += [(part[2], part[2] + part[3]) for part in record[7]]
    for operations in (*run.frames.values(), *([body[6]] for body in run.commits)):
        for number, record in (pair for frame in operations for pair in frame):
            if number == reader.CHUNKS and record[0] in spans:  # every place of a chunk, also where it lies in several
                spans[record[0]] += [(chunk[1], chunk[1] + chunk[2]) for chunk in record[1]]
            for one in [record] if number == reader.GROUP else record[2] if number == reader.REPLACE else []:
                first[one[0]] = min(first.get(one[0], 1 << 62), one[3])
                last[one[0]] = max(last.get(one[0], 0), one[3] + one[4])
    for file in {group.record[0] for group in run.groups} & run.seals.keys():
        spans[file] += [(0, first[file]), (last[file], run.seals[file][1])]
    return spans
