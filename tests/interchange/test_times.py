"""Columns of time go out and come back: every microsecond, and where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina import interchange

WHEN = [
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    None,
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
]


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize(
    ("ending", "leave", "arrive"),
    [
        ("safetensors", interchange.to_safetensors, interchange.from_safetensors),
        ("parquet", interchange.to_parquet, interchange.from_parquet),
    ],
)
def test_times_go_out_and_come_back(
    tmp_path: Path, ending: str, leave: Callable[..., int], arrive: Callable[..., int], missing: bool
) -> None:
    when = [time if missing else time or WHEN[0] for time in WHEN]
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": np.zeros((4, 2), np.float32)}, step=0, example=[1, 2, 3, 4], when=when)
    leave(run.refresh(), tmp_path / f"out.{ending}", progress=False)
    arrive(tmp_path / "back", tmp_path / f"out.{ending}", progress=False)
    found = lamina.open(tmp_path / "back").activations().collect()["when"]
    assert found.dtype == pl.Datetime("us", "UTC")
    assert found.to_list() == when
