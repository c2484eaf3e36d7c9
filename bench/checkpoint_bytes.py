"""How many bytes do the checkpoints of a real training take, by part and by spacing, after `compact`?

The training is that of bench/language_model.py: 2,000 steps with a save every 20. A run that holds it can be given.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import lamina
from bench.command import parser
from bench.language_model import train
from bench.paths import SCRATCH
from bench.table import Table
from lamina.progress import track

GOALS = {"bf16": 0.5, "model": 0.75, "frozen": 0.12}
SPACINGS = {"bf16": (20, 40, 100, 200), "model": (20, 40, 100, 200), "optimizer": (20, 100)}
FROZEN = 0.9


def tensors(state: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors of a nested state by name, as a safetensors file can hold them."""
    if isinstance(state, torch.Tensor):
        return {name: state.contiguous().clone()}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {key: one for label, inner in items for key, one in tensors(inner, f"{name}.{label}").items()}


def frozen(state: dict[str, torch.Tensor], first: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hold nine tenths of the bytes at their first values: as many of the first tensors as make them up."""
    limit, so_far, held = FROZEN * bytes_of(state), 0, {}
    for name, one in state.items():
        keep = so_far + one.nbytes <= limit
        so_far += one.nbytes if keep else 0
        held[name] = first[name] if keep else one
    return held


def bytes_of(held: dict[str, torch.Tensor]) -> int:
    return sum(one.nbytes for one in held.values())


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        assert one.dtype == ours[name].dtype, name
        assert torch.equal(ours[name].reshape(-1).view(torch.uint8), one.reshape(-1).view(torch.uint8)), name


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(source: lamina.Run, part: str, steps: Sequence[int], *, freeze: bool = False) -> dict[str, Any]:
    """Save one part of these steps into a run of its own, compact it, and compare every bit."""
    folder, file = SCRATCH / "checkpoint-bytes", SCRATCH / "one.safetensors"
    shutil.rmtree(folder, ignore_errors=True)
    header = 0
    run, plain, saves, first = lamina.Run.create(folder), 0, list[int](), None

    def state_of(step: int) -> Any:
        nonlocal first
        state = source.load(step, part=part)
        first = first or state
        return frozen(state, first) if freeze else state

    with run.writer() as writer:
        for step in track(steps, f"{part}: {len(steps)} saves"):
            state = state_of(step)
            flat = tensors(state)
            if not flat:
                # an optimizer before its first step
                continue
            if not plain:
                save_file(flat, file)
                header = file.stat().st_size - bytes_of(flat)
            plain += header + bytes_of(flat)
            saves.append(step)
            writer.save({part: state}, step=step)
    before = size_of(folder)
    begun, cpu = time.perf_counter(), time.process_time()
    run.refresh().compact()
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    run.gc(grace=0)
    for step in (saves[0], saves[len(saves) // 2], saves[-1]):
        assert_same(tensors(run.refresh().load(step, part=part)), tensors(state_of(step)))
    assert run.verify().ok
    after = size_of(folder)
    shutil.rmtree(folder)
    goal = GOALS.get("frozen" if freeze else part)
    return {
        "part": f"{part}, 90 % of it frozen" if freeze else part,
        "a save every … steps": steps[1] - steps[0],
        "saves": len(saves),
        "safetensors, MB": plain / 1e6,
        "before compact, of that": before / plain,
        "after, of that": after / plain,
        "goal": goal if freeze or steps[1] - steps[0] == 20 else None,
        "compact, s": took,
        "compact, s of a core": cpu,
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--run", type=Path, help="a run that `python -m bench.language_model` made")
    given = options.parse_args(argv)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    trained = given.run or SCRATCH / "language-model"
    if given.quick:
        trained = SCRATCH / "language-model-quick"
        shutil.rmtree(trained, ignore_errors=True)
    if not (trained / "run.json").exists():
        train(trained, *((4, 2) if given.quick else ()))
    source = lamina.open(trained)
    assert isinstance(source, lamina.Run)
    steps = sorted(source.checkpoints().select("step").unique().collect()["step"].to_list())
    apart = steps[1] - steps[0]
    rows = []
    for part, spacings in SPACINGS.items():
        chosen = (apart,) if given.quick else spacings
        rows += [measure(source, part, steps[:: spacing // apart]) for spacing in chosen]
    rows.append(measure(source, "model", steps, freeze=True))
    Table(
        question="How many bytes do the checkpoints of a real training take?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            "bench/language_model.py: a language model of 5.7 million parameters over the bytes of Python's "
            "documentation, AdamW, 1e-3 with a cosine to zero, 2,000 steps",
            "each part in a run of its own; its whole folder counts, with logs and commits, after `gc(grace=0)`",
            "safetensors: one file a save; Lamina is compared with the training bit for bit at three saves",
            "goals are those of a save every 20 steps",
        ],
        packages=["lamina", "torch", "safetensors"],
    ).publish("checkpoint_bytes", quick=given.quick)


if __name__ == "__main__":
    main()
