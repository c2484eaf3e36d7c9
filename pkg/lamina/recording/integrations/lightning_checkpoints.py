"""Checkpoints of Lightning's `Trainer` in a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO

from lamina.errors import NotFoundError, SchemaError
from lamina.interchange import lightning_parts
from lamina.interchange.checkpoint_steps import step_of
from lamina.runs import Run

if TYPE_CHECKING:
    from lamina.runs import Writer

_STATE = "state"
"""The one part of what Fabric saves, whose keys are the user's."""
_LONGEST = 1 << 16


class LaminaCheckpointIO(CheckpointIO):
    """Saves what `Trainer` (or Fabric) checkpoints into a run, and loads it from there.

    Give it to `Trainer(plugins=[…])`; `ModelCheckpoint`, `trainer.save_checkpoint` and `ckpt_path=` work as before.
    Saving returns when the bytes are copied; what did not change since the last checkpoint is not stored again. The
    weights are the part `model`, states of optimizers `optimizer`, and loops, schedulers and callbacks `trainer`, at
    the step `global_step`; of several checkpoints of one step the last counts.

    Where Lightning wants the file stands a note of a few hundred bytes that tells which run and step it is. When
    Lightning removes the file (`save_top_k`), the checkpoint stays in the run: `run.retain` thins them out. Files that
    Lightning wrote itself load too. `lamina export RUN x.ckpt --step …` writes one that needs no run.

    Args:
        run: Where to save.

    Raises:
        SchemaError: When it saves: a callback's state holds objects that a checkpoint cannot; it names which.

    Example:
        >>> import lamina, tempfile
        >>> from lamina.recording.integrations.lightning_checkpoints import LaminaCheckpointIO
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> plugins = [LaminaCheckpointIO(run)]
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writer: Writer | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save into the run, and leave a note at the path."""
        if storage_options is not None:
            raise SchemaError("a run takes no storage_options")
        file = Path(os.fspath(path))
        step = checkpoint.get("global_step", step_of(file.name))
        if step is None:
            raise SchemaError(
                "the state has no entry global_step, and its name tells no step",
                str(file),
                hint='call it by its step: "step_100.ckpt"',
            )
        split = lightning_parts.is_checkpoint(checkpoint)
        parts = lightning_parts.split(checkpoint) if split else {_STATE: checkpoint}
        if self._writer is None:
            self._writer = self._run.writer()
        self._writer.save(parts, step=step)
        note = {"run": str(self._run.path.resolve()), "id": self._run.id, "step": step, "parts": list(parts)}
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.unfinished")
        draft.write_text(json.dumps({"lamina": note}))
        draft.replace(file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load from the run that the note at the path names, with tensors on the CPU; nothing is unpickled."""
        file = Path(os.fspath(path))
        note = _note(file)
        if note is None:
            return TorchCheckpointIO().load_checkpoint(path, map_location, weights_only)
        if self._writer is not None:
            self._writer.flush()
        # the run may have moved since
        run = self._run.refresh() if self._run.id == note["id"] else Run(note["run"])
        if run.id != note["id"]:
            raise NotFoundError(f"{run.path} is another run than the one that the checkpoint was saved in", str(file))
        parts = {name: run.load(note["step"], part=name) for name in note["parts"]}
        return parts[_STATE] if _STATE in parts else lightning_parts.join(parts)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the note; the run keeps the checkpoint."""
        Path(os.fspath(path)).unlink(missing_ok=True)

    def teardown(self) -> None:
        """Make everything durable."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _note(file: Path) -> dict[str, Any] | None:
    """What a note says; None if the file is none."""
    if not file.is_file() or file.stat().st_size > _LONGEST:
        return None
    try:
        told = json.loads(file.read_text())["lamina"]
    except (ValueError, LookupError, TypeError):
        return None
    return told if isinstance(told, Mapping) else None  # pyright: ignore[reportReturnType]
