"""`lamina diff` compares two checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import lamina


def test_what_moved_most_stands_first(tmp_path: Path, command: Callable) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.save({"model": {"a": torch.tensor([3.0, 4.0]), "b": torch.ones(2), "c": torch.ones(4)}}, step=0)
        writer.save({"model": {"a": torch.tensor([3.0, 5.0]), "b": torch.zeros(2), "c": torch.ones(4)}}, step=7)
    done = command("diff", run.path, 0, 7)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["b", "a", "c"]
    assert lines[3].split()[3:7] == ["5", "1", "0.2", "50"]
    assert lines[-1] == "2 of 3 tensors of part 'model' changed from step 0 to 7"
    wrong = command("diff", run.path, 0, 8)
    assert wrong.code == 1
    assert "no checkpoint at step 8" in wrong.err
