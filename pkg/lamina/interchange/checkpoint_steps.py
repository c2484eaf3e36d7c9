"""Where checkpoints lie in a folder, and at which step each was taken: by names, as published suites have them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lamina.errors import SchemaError
from lamina.interchange.torch_files import ENDINGS

_WORDS = (
    r"global_?step|step",
    r"iter(?:ation)?s?",
    r"checkpoint|ckpt|revision",
    r"epoch",
)
"""What stands before the number, what counts most first: `epoch=3-step=1200` is step 1,200."""
_PATTERNS = [re.compile(rf"(?:^|[^a-z])(?:{words})[-_=.]?(\d+)(?![0-9])", re.IGNORECASE) for words in _WORDS]
FILES = (".safetensors", *ENDINGS)


class Found(NamedTuple):
    """A checkpoint in a file or a folder, and its step if its name tells it."""

    path: Path
    step: int | None


def step_of(name: str) -> int | None:
    """The step that a name tells: `step_100`, `checkpoint-100`, `iter_0000100`, `epoch=3-step=100.ckpt`, `100`."""
    stem = name
    for ending in FILES:
        stem = stem.removesuffix(ending)
    if stem.isascii() and stem.isdigit():
        return int(stem)
    for pattern in _PATTERNS:
        if match := pattern.search(stem):
            return int(match[1])
    return None


def suite_of(folder: Path) -> tuple[list[Found], list[str]]:
    """The checkpoints of a folder by step, and names of what may be some, but tells no step.

    The folder of a model in the cache of Hugging Face (`refs`, `snapshots`) holds a checkpoint for each revision whose
    name tells a step.

    Raises:
        SchemaError: Two of them are of one step.
    """
    found: dict[int, Path] = {}
    silent = []
    for name, path in _members(folder):
        if (step := step_of(name)) is None:
            silent.append(name)
        elif step in found:
            raise SchemaError(
                f"{found[step].name} and {name} are both of step {step}",
                str(folder),
                hint="import one after the other, with step= and another part= or run for the second",
            )
        else:
            found[step] = path
    return [Found(path, step) for step, path in sorted(found.items())], silent


def _members(folder: Path) -> list[tuple[str, Path]]:
    refs = folder / "refs"
    if refs.is_dir() and (folder / "snapshots").is_dir():
        revisions = [(ref.name, folder / "snapshots" / ref.read_text().strip()) for ref in sorted(refs.iterdir())]
        return [(name, path) for name, path in revisions if path.is_dir()]
    return [
        (path.name, path)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or path.suffix in FILES)
    ]
