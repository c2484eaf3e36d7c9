"""A small run with every kind of file, every question about it, and what a damaged copy answers."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lamina
from lamina.errors import NotFoundError
from tests.store import forge
from tests.store.planted import bits

SITES = ("wide", "loss")
COLUMNS = ("row", "example", "label", "weight", "correct")
STEPS = (0, 1, 2, 3)
SEALED, OPEN = "segments/000000-000000.safetensors", "segments/000001-000000.safetensors"
SEALED_LOG, OPEN_LOG = "logs/000000.0000", "logs/000001.0000"
PACK = "chunks/000000-000000.pack"
NOBODY = 2**22 + 1
"""A process that cannot be: the kernel gives no greater number than 2^22."""


def make(path: Path) -> None:
    """Writer 0 is closed (steps 0 and 1, metrics, examples, a checkpoint); writer 1 was killed (steps 2 and 3)."""
    living = path.with_name("living")
    run = lamina.Run.create(living, config={"lr": 0.5})
    with run.writer() as writer:
        for step in (0, 1):
            append(writer, step)
        for step in (0, 1):
            writer.log({"loss": 0.5 + step}, step=step)
            writer.flush()
        writer.examples({"example": [0, 1], "label": ["a", "ü"]}).wait()
        writer.save({"model": {"weight": torch.arange(6.0), "lr": 0.5}}, step=0).wait()
        writer.save({"model": {"weight": torch.arange(6.0) + 1, "lr": 0.25}}, step=1).wait()
    with run.writer() as writer:
        for step in (2, 3):
            append(writer, step)
        shutil.copytree(living, path)
    shutil.rmtree(living)
    for file in (SEALED_LOG, OPEN_LOG):
        forge.rewrite_log(path, forget_process, name=Path(file).name)


def forget_process(frames: list[list[Any]]) -> None:
    frames[0][0][1][1] = NOBODY


def append(writer: lamina.Writer, step: int) -> None:
    generator = np.random.default_rng(step)
    writer.append(
        {"wide": generator.normal(size=(4, 3)).astype(np.float32), "loss": generator.normal(size=4)},
        step=step,
        example=[0, 1, 2, step],
        label=["a", None, "ü", "longer"],
        weight=[0.5, None, float("nan"), step + 0.5],
        correct=[True, False, True, None],
    ).wait()


Questions = dict[tuple[Any, ...], Callable[[lamina.Run], Any]]

QUESTIONS: Questions = {
    ("config",): lambda run: (run.config, run.id, run.created),
    ("sites",): lambda run: run.sites().rows(),
    ("steps",): lambda run: run.steps(),
    ("metrics",): lambda run: run.metrics().collect().rows(),
    ("examples",): lambda run: run.examples().collect().rows(),
    ("status",): lambda run: str(run.status),
    **{("load", step): lambda run, step=step: state(run.load(step)) for step in (0, 1)},
    **{
        ("bits", step, site): lambda run, step=step, site=site: _bits(run, step, site)
        for step in STEPS
        for site in SITES
    },
    **{("cells", step): lambda run, step=step: repr(_cells(run, step)) for step in STEPS},
}
SUMMARIES: set[tuple[Any, ...]] = {("sites",), ("steps",), ("status",)}
"""What may be answered otherwise where something is lost."""


def _bits(run: lamina.Run, step: int, site: str) -> bytes:
    rows = run.rows(site, step=step)
    return bits(rows.gather(range(len(rows))))


def _cells(run: lamina.Run, step: int) -> list[tuple[Any, ...]]:
    frame = run.activations(step=step)
    if not set(COLUMNS) <= set(frame.collect_schema()):
        raise NotFoundError("a record that lies has renamed a column")
    return frame.select(COLUMNS).collect().rows()


def state(saved: dict[str, Any]) -> tuple[bytes, float]:
    return bits(saved["weight"]), saved["lr"]


@dataclass
class Examined:
    """What a run answers: values and errors by question, and the problems that it reports."""

    answers: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    errors: dict[tuple[Any, ...], lamina.LaminaError] = field(default_factory=dict)
    problems: list[Any] = field(default_factory=list)

    @property
    def noticed(self) -> bool:
        return bool(self.errors or self.problems)

    def places(self) -> set[tuple[str | None, int | None]]:
        """File and offset of every error and problem."""
        return {(found.file, found.offset) for found in (*self.errors.values(), *self.problems)}


def examine(path: Path, questions: Questions = QUESTIONS, **access: Any) -> Examined:
    """Asks everything. Whatever is no `LaminaError` is raised."""
    found = Examined()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        try:
            run = lamina.open(path, **access)
        except lamina.LaminaError as error:
            found.errors["open",] = error
            return found
    found.problems = run.problems
    for question, ask in questions.items():
        try:
            found.answers[question] = ask(run)
        except lamina.LaminaError as error:
            found.errors[question] = error
    return found


def assert_all_but(found: Examined, expected: Examined, lost: Iterable[tuple[Any, ...]] = ()) -> None:
    """Everything but these questions is answered as before; these are not answered, or with less."""
    wrong = {question for question, answer in expected.answers.items() if found.answers.get(question) != answer}
    assert wrong - (SUMMARIES if lost else set()) == set(lost) - SUMMARIES


def of_steps(*steps: int) -> set[tuple[Any, ...]]:
    return {question for question in QUESTIONS if question[0] in ("bits", "cells") and question[1] in steps}


def assert_nothing_wrong(found: Examined, expected: Examined) -> None:
    """Answers may be missing, and lists of metrics shorter; what is there is as it was."""
    for question, answer in found.answers.items():
        if question == ("metrics",):
            assert [row for row in expected.answers[question] if row in answer] == answer
        elif question != ("examples",) and question not in SUMMARIES:
            assert answer == expected.answers[question], question
