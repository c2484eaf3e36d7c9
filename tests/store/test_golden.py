"""The golden run of format 1 reads today as on the day when it was written; the values stand here, not in a script."""

from __future__ import annotations

import math
import tarfile
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
import torch

import lamina
from tests.store import reader
from tests.store.alike import put_together

ARCHIVE = Path(__file__).parent / "golden" / "format-1.tar.xz"
NAN, INF = math.nan, math.inf

MLP_OUTPUT = {0: [[1.5, NAN], [-INF, 0.1]], 10: [[1.5, NAN], [-INF, 10.1]]}
MLP_INPUT = [[0x3F80, 0xC020], [0x4049, 0x0000]]  # the bits of 1, -2.5, 3.140625 and 0 in bf16
CONV = {0: [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]], 10: [[[[10, 11], [12, 13]]], [[[14, 15], [16, 17]]]]}
LOSS = [0.25, 1e-300]
CELLS = {
    "example": [7, None],
    "source": ["train", "train"],
    "rank": [0, 0],
    "augmented": [True, True],
    "confidence": [0.5, NAN],
    "correct": [True, False],
    "topic": ["naïve 𝄞", None],
}
TOKEN_CELLS = {"step": [10, 10], "example": [8, 8], "position": [0, 1], "rank": [0, 0], "word": ["the", "ß"]}
METRICS = [(0, "train/loss", None, None, 0, 2.302585092994046), (10, "norm", "mlp.output", "probe", 0, INF)]
EXAMPLES = {7: ("cat", None), 8: ("dog", 0.5), 9: ("ö", 2.0)}
WEIGHT = [0x3FF0000000000000, 0x8000000000000000, 0x4000000000000000, 0x0000000000000001]
OPTIMIZER = {"state": {0: {"step": 10, "m": [1, 2]}}, "lr": [0.1, NAN, None]}
FAILURE = "RuntimeError('stopped here')"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return folder / "run"


@pytest.fixture(scope="module")
def opened(golden: Path) -> lamina.Run:
    return lamina.open(golden, strict=True)


@pytest.fixture(scope="module")
def found(golden: Path) -> reader.Recorded:
    return reader.read(golden)


def plain(state: Any) -> Any:
    """A nested state with lists for arrays."""
    if isinstance(state, dict):
        return {key: plain(item) for key, item in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | torch.Tensor) else state


def test_the_archive_is_the_one_that_was_committed() -> None:
    digest = blake3.blake3(ARCHIVE.read_bytes()).hexdigest()
    assert digest == "631a4099b2a309f2a9af4cc4387669025d9d95670ee126014b254e65ae0f26cb"


# the document's reader


def test_the_reader_finds_the_rows(found: reader.Recorded) -> None:
    groups = [group for group in found.groups if "mlp.output" in group.sites]
    assert [group.record[5] for group in groups] == [0, 2]
    for step, group in zip((0, 10), groups, strict=True):
        np.testing.assert_array_equal(group.sites["mlp.output"], np.array(MLP_OUTPUT[step], np.float32))
        assert group.sites["mlp.input"].tolist() == MLP_INPUT
        assert group.sites["conv"].tolist() == CONV[step]
        assert group.sites["loss"].tolist() == LOSS
        assert repr({name: group.columns[name] for name in CELLS}) == repr(CELLS)
        assert group.columns["step"] == [step, step]
        assert group.columns.keys() == {"step", *CELLS}


def test_the_reader_finds_the_tokens(found: reader.Recorded) -> None:
    (group,) = (group for group in found.groups if "tokens" in group.sites)
    assert group.sites["tokens"].tolist() == [[1], [2]]
    assert group.columns == TOKEN_CELLS
    assert group.record[5] == 4


def test_the_reader_finds_what_stands_beside_the_rows(found: reader.Recorded) -> None:
    assert found.info["config"] == {"lr": 0.001, "name": "größe"}
    assert [row[:1] + row[2:] for row in found.metrics] == METRICS
    examples = reader.examples(found)
    assert {key: (row["label"], row.get("weight")) for (key, _), row in examples.items()} == EXAMPLES
    assert [(writer["rank"], writer["closed"], writer["error"]) for writer in found.writers.values()] == [
        (0, True, None),
        (None, True, FAILURE),
    ]


def test_the_reader_finds_the_checkpoint(found: reader.Recorded) -> None:
    assert {step: sorted(parts) for step, parts in found.checkpoints.items()} == {10: ["model", "optimizer"]}
    model = put_together(*found.checkpoints[10]["model"])
    assert model["weight"].view(np.uint64).reshape(-1).tolist() == WEIGHT
    assert model["tied"] is model["weight"]
    assert (model["scale"].tolist(), model["scale"].shape) == (0x3F00, ())
    assert repr(plain(put_together(*found.checkpoints[10]["optimizer"]))) == repr(OPTIMIZER)


# Lamina


def test_lamina_finds_the_rows(opened: lamina.Run) -> None:
    for step in (0, 10):
        frame = opened.activations(["mlp.output", "conv", "loss"], step=step).collect()
        first = {0: 0, 10: 2}[step]
        assert frame["row"].to_list() == [first, first + 1]
        assert repr({name: frame[name].to_list() for name in CELLS}) == repr(CELLS)
        np.testing.assert_array_equal(frame["mlp.output"].to_numpy(), np.array(MLP_OUTPUT[step], np.float32))
        assert frame["conv"].to_list() == np.array(CONV[step]).reshape(2, 4).tolist()
        assert frame["loss"].to_list() == LOSS
        bits = opened.rows("mlp.input", step=step).gather([0, 1]).view(torch.uint16)
        assert bits.tolist() == MLP_INPUT


def test_lamina_finds_the_tokens(opened: lamina.Run) -> None:
    frame = opened.activations("tokens").collect()
    assert frame["tokens"].to_list() == [[1], [2]]
    assert frame["row"].to_list() == [4, 5]
    assert {name: frame[name].to_list() for name in TOKEN_CELLS} == TOKEN_CELLS


def test_lamina_finds_what_stands_beside_the_rows(opened: lamina.Run) -> None:
    assert opened.config == {"lr": 0.001, "name": "größe"}
    assert opened.metrics().drop("time").collect().rows() == METRICS
    frame = opened.examples().select("example", "label", "weight").collect()
    assert {example: tuple(rest) for example, *rest in frame.iter_rows()} == EXAMPLES
    assert str(opened.status) == f"failed ({FAILURE}; 1 of 2 writers)"
    assert opened.steps() == [0, 10]
    sites = {
        row["site"]: (row["dtype"], row["shape"], row["rows"], row["non_finite"])
        for row in opened.sites().rows(named=True)
    }
    assert sites == {
        "mlp.output": ("f32", [2], 4, 4),
        "mlp.input": ("bf16", [2], 4, 0),
        "conv": ("f16", [1, 2, 2], 4, 0),
        "loss": ("f64", [], 4, 0),
        "tokens": ("i32", [1], 2, 0),
    }


def test_lamina_finds_the_checkpoint(opened: lamina.Run) -> None:
    model = opened.load()
    assert model["weight"].view(torch.int64).reshape(-1).tolist() == [bits - (bits >> 63 << 64) for bits in WEIGHT]
    assert model["tied"] is model["weight"]
    assert torch.equal(model["scale"], torch.tensor(0.5, dtype=torch.bfloat16))
    assert repr(plain(opened.load(10, part="optimizer"))) == repr(OPTIMIZER)
