"""A run that uses everything that a run can hold, and beside it, in plain Python, what was put in.

Sites are filled with random bits, so that NaNs of every payload, infinities and denormals occur. Every row has
a `uid`, by which it is found again whatever the order on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lamina

TORCH = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}


CONFIG = {"lr": 1e-3, "model": {"width": [64, None, True]}, "name": "größe 𝄞"}


@dataclass
class Planted:
    """What was put in.

    Attributes:
        cells: By uid: the column values that are no null, and `writer`.
        bits: By uid: the bytes of each site in that row.
        sites: By name: dtype, item shape, number of values that are not finite.
        metrics: Step, name, site, source, rank, value; in order of writing, by writer.
        examples: By example and position: the columns.
        states: By step and part: the state that was saved.
    """

    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    bits: dict[int, dict[str, bytes]] = field(default_factory=dict)
    sites: dict[str, tuple[str, tuple[int, ...], int]] = field(default_factory=dict)
    metrics: list[tuple[Any, ...]] = field(default_factory=list)
    examples: dict[tuple[int, int | None], dict[str, Any]] = field(default_factory=dict)
    states: dict[tuple[int, str], Any] = field(default_factory=dict)

    def append(
        self, writer: lamina.Writer, rank: int | None, step: int, lead: tuple[int, ...], sites: dict, **columns: Any
    ) -> Any:
        """Appends rows; `columns` are scalars or, by the axes of the rows, lists."""
        rows = int(np.prod(lead))
        first = len(self.cells)
        uids = np.arange(first, first + rows).reshape(lead)
        given = {"step": step, "source": "train", **columns} | ({} if rank is None else {"rank": rank})
        if len(lead) == 2:
            given["position"] = [list(range(lead[1]))] * lead[0]
        spread = {name: _spread(value, lead) for name, value in given.items()}
        for at in range(rows):
            values = {name: value[at] for name, value in spread.items() if value[at] is not None}
            self.cells[first + at] = values | {"uid": first + at, "writer": writer_ordinal(writer)}
            self.bits[first + at] = {}
        for name, tensor in sites.items():
            flat = torch.as_tensor(tensor).reshape(rows, *tensor.shape[len(lead) :])
            dtype = next(name for name, kind in TORCH.items() if kind == flat.dtype)
            known = self.sites.get(name, (dtype, flat.shape[1:], 0))[2]
            bad = 0 if not flat.dtype.is_floating_point else int((~wide(flat).isfinite()).sum())
            self.sites[name] = (dtype, tuple(flat.shape[1:]), known + bad)
            for at in range(rows):
                self.bits[first + at][name] = bits(flat[at])
        return writer.append(sites, step=step, uid=uids, source="train", **columns)


def writer_ordinal(writer: lamina.Writer) -> int:
    return int(repr(writer).split("ordinal=")[1].split(",")[0])


def _spread(value: Any, lead: tuple[int, ...]) -> list[Any]:
    if not isinstance(value, list):
        return [value] * int(np.prod(lead))
    if len(lead) == 1:
        return value
    return [item for row in value for item in (row if isinstance(row, list) else [row] * lead[1])]


def wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def randomness(seed: int) -> Callable[..., torch.Tensor]:
    """A function of dtype and shape that gives tensors of random bits."""
    generator = np.random.default_rng(seed)

    def draw(dtype: str, *shape: int) -> torch.Tensor:
        kind = TORCH.get(dtype) or getattr(torch, dtype)
        if kind == torch.bool:
            return torch.from_numpy(generator.integers(0, 2, shape).astype(bool))
        raw = generator.integers(0, 256, int(np.prod(shape)) * kind.itemsize, dtype=np.uint8)
        return torch.from_numpy(raw).view(kind).reshape(shape)

    return draw


def plant(path: Path) -> Planted:
    """Writes the run: three writers (one with a rank, one that fails), every dtype and type of column."""
    run, planted, draw = lamina.Run.create(path, config=CONFIG), Planted(), randomness(0)
    with run.writer() as writer:
        _plant_types(planted, writer, draw)
        _plant_examples(planted, writer)
    with run.writer(rank=3) as writer:
        _plant_sequences(planted, writer, draw)
        _plant_metrics(planted, writer)
        _plant_states(planted, writer, draw)
    try:
        with run.writer() as writer:
            planted.append(writer, None, 9, (300,), {"large": draw("f64", 300, 256)}, text=["ü" * 40] * 300)
            raise RuntimeError("loss is NaN")
    except RuntimeError:
        pass
    return planted


def _plant_types(planted: Planted, writer: lamina.Writer, draw: Callable[..., torch.Tensor]) -> None:
    for step in (0, 1):
        sites: dict[str, Any] = {f"{dtype}.vector": draw(dtype, 5, 3) for dtype in TORCH}
        sites |= {f"{dtype}.scalar": draw(dtype, 5) for dtype in TORCH}
        sites["blocks.0.conv"] = draw("f16", 5, 2, 3, 4)
        sites["f32.strided"] = draw("f32", 7, 5).T
        sites["numpy"] = draw("i16", 5, 2).numpy()
        planted.append(
            writer,
            None,
            step,
            (5,),
            sites,
            example=[2**63 - 1, -(2**63), None, 0, -1],
            note=["train", None, "", "naïve 𝄞 \u2028", "a" * 100],
            loss=[float("nan"), float("inf"), -0.0, 5e-324, None],
            margin=[1 / 3, -1 / 7, 1e30, 0.1, -0.0],
            correct=[True, None, False, True, None],
            lr=1e-3 if step else float("nan"),
            phase="wärm-up",
            augmented=True,
        )
    planted.append(writer, None, 2, (2,), {"f32.vector": draw("f32", 2, 3)}, example=[4, 5], only_here=[1, None])


def _plant_sequences(planted: Planted, writer: lamina.Writer, draw: Callable[..., torch.Tensor]) -> None:
    for step in (3, 4):
        sites = {"bf16.vector": draw("bf16", 2, 4, 3), "tokens": draw("i32", 2, 4, 1)}
        tokens = [["the", "cat", "sat", None], ["ö", "", "ß", "x"]]
        planted.append(writer, 3, step, (2, 4), sites, example=[7, 8], token=tokens, micro=step)


def _plant_examples(planted: Planted, writer: lamina.Writer) -> None:
    writer.examples({"example": [1, 2, 3], "label": ["a", "ü", None], "weight": [0.5, None, float("nan")]})
    writer.examples({"example": [3, 4], "label": ["again", "𝄞"], "hard": [True, False]})
    rows = [(1, "a", 0.5, None), (2, "ü", None, None), (3, "again", float("nan"), True), (4, "𝄞", None, False)]
    for example, label, weight, hard in rows:
        planted.examples[example, None] = {"example": example, "label": label, "weight": weight, "hard": hard}


def _plant_metrics(planted: Planted, writer: lamina.Writer) -> None:
    rows = [
        (0, "train/loss", None, None, 0.1),
        (0, "train/loss", None, None, 0.1),
        (999, "norm", "mlp.output", "prüf", float("inf")),
        (2**62, "norm", "mlp.output", None, float("nan")),
        (3, "größe", None, "train", -0.0),
    ]
    for step, name, site, source, value in rows:
        writer.log({name: value}, step=step, site=site, source=source)
        planted.metrics.append((step, name, site, source, 3, value))


def _plant_states(planted: Planted, writer: lamina.Writer, draw: Callable[..., torch.Tensor]) -> None:
    frozen = draw("f32", 650_000)  # three chunks, the last one shorter
    for step in (0, 5):
        tied = draw("bf16", 4, 3)
        model = {"frozen": frozen, "tied": tied, "again": tied, "none": torch.empty(0, 3), "number": draw("f64")}
        model |= {dtype: draw(dtype, 3) for dtype in (*TORCH, "uint16", "uint32", "uint64", "complex64", "complex128")}
        model |= {"a": {"b": draw("f32", 2)}, "a.b": draw("f32", 2)}  # two tensors with one dotted name
        counts = {1: (step, None, True), "lr": [1 / 3, float("nan"), float("-inf"), -0.0], "ü": "ß"}
        optimizer = {"state": {"array": draw("f32", 2, 2).numpy()}, "counts": counts}
        writer.save({"model": model, "optimizer": optimizer}, step=step)
        planted.states |= {(step, "model"): model, (step, "optimizer"): optimizer}
