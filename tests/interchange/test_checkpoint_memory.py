"""Checkpoints larger than what is held of them, by the operating system's own peak."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.meter import peak_bytes

_TENSORS, _LENGTH = 3, 1 << 25  # 384 MiB of f32, in tensors of 128 MiB
_IMPORT = 100 << 20
"""What an import may need beside its libraries: blocks, and the records of chunks."""

pytestmark = pytest.mark.slow

_START = "import lamina, torch, safetensors.torch\nfrom lamina import interchange\n"


@cache
def _nothing() -> int:
    return peak_bytes(_START)


def need(snippet: str) -> int:
    """The peak of a snippet beyond that of its imports."""
    return peak_bytes(_START + snippet) - _nothing()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("large")
    state = {f"w{k}": torch.arange(_LENGTH, dtype=torch.float32) + k * _LENGTH for k in range(_TENSORS)}
    save_file(state, folder / "x.safetensors")
    return folder


def test_an_import_holds_a_block(source: Path) -> None:
    snippet = f"interchange.from_checkpoints('{source}/run', '{source}/x.safetensors', step=0, progress=False)"
    assert need(snippet) < _IMPORT


def test_an_export_holds_a_block(source: Path) -> None:
    run = f"lamina.open('{source}/run', io='pread')"  # mapped pages would count as the process' own
    assert need(f"interchange.to_checkpoint({run}, '{source}/y.safetensors', progress=False)") < _IMPORT
    assert need(f"interchange.to_checkpoint({run}, '{source}/y', shard_bytes=1 << 27, progress=False)") < _IMPORT
    loaded = f"state = {run}.load(0)"
    assert need(loaded) > _IMPORT, "loading the part is noticed"


def test_holding_a_tensor_would_be_noticed(source: Path) -> None:
    whole = "lamina.interchange.checkpoint_parts.BLOCK = 1 << 40\n"
    snippet = f"interchange.from_checkpoints('{source}/two', '{source}/x.safetensors', step=0, progress=False)"
    assert need(whole + snippet) > _IMPORT


def test_many_checkpoints_take_no_more_than_one(source: Path) -> None:
    links = source / "suite"
    links.mkdir()
    for step in (1, 2, 3):
        (links / f"step_{step}.safetensors").hardlink_to(source / "x.safetensors")
    assert need(f"interchange.from_checkpoints('{source}/three', '{links}', progress=False)") < _IMPORT
