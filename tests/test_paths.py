"""The home folder in paths; names that only look like it stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina import interchange
from lamina.paths import path_of


def test_a_leading_tilde_alone_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/a") == path_of(Path("~/a")) == tmp_path / "a"
    assert path_of("~") == tmp_path
    assert [path_of(name) for name in ("a/~", "~no-such-user/a")] == [Path("a/~"), Path("~no-such-user/a")]


def test_files_come_and_go_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    interchange.from_npy("~/run", "~/x.npy", site="x", progress=False)
    interchange.to_safetensors(lamina.open("~/run"), "~/x.safetensors", progress=False)
    assert (tmp_path / "x.safetensors").is_file()
    assert lamina.open("~/run").rows("x").shape == (3, 2)
