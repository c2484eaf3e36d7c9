"""Cold files: out of the page cache by mincore's word, or a reason."""

from __future__ import annotations

import mmap

from bench import caches


def test_files_are_dropped_or_a_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "_ALL", tmp_path / "no right to empty all of it")
    files = [tmp_path / "a", tmp_path / "empty"]
    files[0].write_bytes(bytes(2**20))
    files[1].write_bytes(b"")
    assert caches.resident(files) == 1
    reason = caches.drop(files)
    assert (reason is None) == (caches.resident(files) <= caches.MOST_LEFT)


def test_what_is_mapped_and_touched_is_not_called_cold(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "_ALL", tmp_path / "no right to empty all of it")
    path = tmp_path / "a"
    path.write_bytes(bytes(2**20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[::4096] == bytes(256)
        assert "% of the bytes stay" in (caches.drop([path]) or "")
