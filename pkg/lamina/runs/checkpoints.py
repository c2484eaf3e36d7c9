"""Saving checkpoints: named parts of a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina import _core
from lamina.errors import LaminaError, SchemaError
from lamina.runs.tree import take_apart

if TYPE_CHECKING:
    from lamina._core import Ticket, Writer
    from lamina.runs.staging import Staging


@contextmanager
def streamed(path: Path, work: str | None = None) -> Iterator[_core.CheckpointStream]:
    """Yields a stream whose checkpoints are all there behind the block; if it raises, nobody sees any."""
    stream = _core.CheckpointStream(str(path), work)
    try:
        yield stream
        stream.commit()
    except BaseException as error:
        with suppress(LaminaError):
            stream.close(repr(error))
        raise
    stream.close()


def save(writer: Writer, parts: Mapping[str, Any], step: int, staging: Staging | None = None) -> Ticket:
    """Stages the parts: every state is taken apart before anything is staged."""
    if not isinstance(parts, Mapping):
        kind = type(parts).__name__
        raise SchemaError(f"the parts are a {kind}", hint='give each by its name: {"model": model.state_dict()}')
    if hasattr(parts, "_metadata"):  # torch leaves it in what a module's state_dict() returns
        raise SchemaError("the parts are the state of a module", hint='give it a name: {"model": model.state_dict()}')
    if not parts:
        raise SchemaError("a checkpoint needs at least one part", hint='for example {"model": model.state_dict()}')
    staged = []
    for name, state in parts.items():
        if not isinstance(name, str) or not name:
            raise SchemaError(f"a checkpoint's part is named {name!r}", hint="the names of parts are texts")
        pieces = take_apart(state, staging)
        tensors = [(path, *flat) for path, flat in zip(pieces.names, pieces.tensors, strict=True)]
        staged.append((name, pieces.tree, pieces.scalars, tensors))
    return writer.save(step, staged)
