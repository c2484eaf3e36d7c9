"""Sources larger than what is held of them, by the operating system's own peak."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.meter import peak_bytes

_ROWS, _WIDTH = 400_000, 256  # 390 MiB
_BLOCKS = 160 << 20
"""What an import may need beside its libraries: blocks, the writer's queue, Parquet's own buffers."""
_PARQUET = 280 << 20
"""The same with pyarrow's decoding: 228 MiB were measured for 400,000 rows, and for 800,000."""
_EXPORT = 320 << 20
"""And an export, which holds the metadata of all rows."""

pytestmark = pytest.mark.slow


_START = "import lamina, torch, polars, pyarrow.parquet\nfrom lamina import interchange\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "x.npy"
    values = np.lib.format.open_memmap(path, "w+", np.float32, (_ROWS, _WIDTH))
    for start in range(0, _ROWS, 10_000):
        values[start : start + 10_000] = np.arange(start, start + 10_000)[:, None]
    return path


def need(snippet: str) -> int:
    """The peak of a snippet beyond that of its imports."""
    return peak_bytes(_START + snippet) - _nothing()


@cache
def _nothing() -> int:
    return peak_bytes(_START)


def test_what_is_larger_than_its_blocks_passes_through(source: Path) -> None:
    folder = source.parent
    assert need(f"interchange.from_npy('{folder}/run', '{source}', site='h', progress=False)") < _BLOCKS
    opened = f"run = lamina.open('{folder}/run', io='pread')\n"  # mapped pages would count as the process' own
    assert need(opened + f"interchange.to_safetensors(run, '{folder}/x.safetensors', progress=False)") < _EXPORT
    assert need(opened + f"interchange.to_parquet(run, '{folder}/x.parquet', progress=False)") < _EXPORT
    assert need(f"interchange.from_parquet('{folder}/back', '{folder}/x.parquet', progress=False)") < _PARQUET
    assert pl.scan_parquet(folder / "x.parquet").select(pl.len()).collect().item() == _ROWS


def test_reading_it_all_at_once_would_be_noticed(source: Path) -> None:
    whole = "lamina.interchange.blocks.BLOCK_BYTES = 1 << 40\n"
    assert need(whole + f"interchange.from_npy('{source.parent}/whole', '{source}', progress=False)") > _BLOCKS
