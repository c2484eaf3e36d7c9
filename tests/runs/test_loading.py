"""Loading around damage, and loading maps."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.errors import DamagedError, LaminaWarning
from tests.faults import broken

ROWS = 1 << 18


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(3, ROWS, generator=generator) for _ in range(2)]
    tied = torch.randn(ROWS, generator=generator)
    return {
        "a": {"w": layers[0], "b": torch.arange(5)},
        "list": [layers[1], "text"],
        "tied": tied,
        "head": tied,
        "n": 3,
    }


@pytest.fixture
def saved(run: lamina.Run) -> lamina.Run:
    with run.writer() as writer:
        writer.save({"model": state(), "other": {"x": torch.ones(3)}}, step=3)
    return run.refresh()


def damage(run: lamina.Run, at: int) -> lamina.Run:
    (pack,) = run.path.glob("chunks/*")
    with pack.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 4]))
    return lamina.open(run.path)


def test_a_corrupt_chunk_is_named_and_everything_else_loads(saved: lamina.Run) -> None:
    run = damage(saved, (1 << 20) + 200_000)
    with pytest.raises(DamagedError, match=r'chunk 1 of tensor "a.w" in part "model" at step 3.*byte 1179648'):
        run.load(3)
    assert run.load(3, part="other")["x"].tolist() == [1, 1, 1]
    with pytest.warns(LaminaWarning, match=r"part 'model' at step 3 lacks 'a.w'.*chunk 1"):
        loaded = run.load(3, strict=False)
    whole = state()
    assert set(loaded) == set(whole)
    assert set(loaded["a"]) == {"b"}
    assert loaded["a"]["b"].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(loaded["list"][0], whole["list"][0])
    assert loaded["tied"] is loaded["head"]
    assert torch.equal(loaded["head"], whole["head"])
    assert loaded["n"] == 3
    assert [(problem.file[:7], problem.offset) for problem in run.problems] == [("chunks/", (1 << 20) + (1 << 17))]


def test_in_a_list_none_stands_for_what_is_damaged_and_ties_are_gone_together(saved: lamina.Run) -> None:
    sizes = [tensor[3] for tensor in saved._snapshot.checkpoints()[0][0]]
    run = damage(damage(saved, sizes[0] + sizes[1] + 7), sum(sizes[:3]) + 7)
    with pytest.warns(LaminaWarning, match=r"lacks 'list.0', 'tied'"):
        loaded = run.load(3, strict=False)
    assert loaded["list"] == [None, "text"]
    assert set(loaded) == {"a", "list", "n"}


def test_a_part_whose_layout_is_lost_is_passed_over_among_others(saved: lamina.Run) -> None:
    with broken("a_layout_is_lost"):
        with pytest.raises(DamagedError):
            saved.load(3, strict=False)
        with pytest.warns(LaminaWarning, match="planted"):
            assert set(saved.load(3, part=None, strict=False)) == {"other"}


def check_maps(run: lamina.Run) -> None:
    whole, (pack,) = state(), run.path.glob("chunks/*")
    before = pack.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = run.load(3, mmap=True)
    for tensor in (loaded["a"]["w"], loaded["list"][0], loaded["tied"]):
        assert np.shares_memory(tensor.numpy(), tensor.numpy())
        tensor.mul_(-1)
    assert torch.equal(loaded["a"]["w"], -whole["a"]["w"])
    assert loaded["tied"] is loaded["head"]
    assert pack.read_bytes() == before
    for mmap in (True, False):
        again = run.load(3, mmap=mmap)
        assert torch.equal(again["a"]["w"], whole["a"]["w"])
        assert torch.equal(again["tied"], whole["tied"])


def test_maps_may_be_written_to_and_change_nothing_else(saved: lamina.Run) -> None:
    check_maps(saved)


def test_maps_that_are_shared_would_be_noticed(saved: lamina.Run) -> None:
    with broken("maps_are_shared"), pytest.raises(AssertionError):
        check_maps(saved)


def mapped_files() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/chunks/" in line and " rw-p " in line}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
def test_maps_are_maps_until_their_tensors_are_gone(saved: lamina.Run) -> None:
    loaded = saved.load(3, mmap=True)
    assert any(str(saved.path) in name for name in mapped_files())
    last = loaded["tied"][:3]
    del loaded
    assert torch.equal(last, state()["tied"][:3])
    assert mapped_files()
    del last
    assert not any(str(saved.path) in name for name in mapped_files())


def test_equal_tensors_share_a_chunk_and_no_memory(run: lamina.Run) -> None:
    x = torch.ones(ROWS)
    with run.writer() as writer:
        writer.save({"model": {"one": x, "other": x.clone()}}, step=0)
    loaded = run.refresh().load(mmap=True)
    loaded["one"].zero_()
    assert loaded["other"].sum() == ROWS


def test_what_cannot_be_mapped_is_copied_and_named(run: lamina.Run) -> None:
    x, odd = torch.randn(3, ROWS), torch.ones(ROWS + 1, dtype=torch.uint8)
    changed = x.clone()
    changed[1] += 1
    with run.writer() as writer:
        writer.save({"model": {"w": x, "small": x[0, :9].clone()}}, step=0)
        writer.save({"model": {"w": changed}}, step=1)
        writer.save({"model": {"odd": odd, "w": x + 1}}, step=2)
    run.refresh()
    told = {
        1: "1 tensors .* step 1 were copied and not mapped: its chunks do not lie side by side: 'w'",
        2: "1 tensors .* step 2 were copied and not mapped: it is not aligned: 'w'",
    }
    for step, expected in {1: changed, 2: x + 1}.items():
        with pytest.warns(LaminaWarning, match=told[step]):
            loaded = run.load(step, mmap=True)
        assert torch.equal(loaded["w"], expected)
    with pytest.warns(LaminaWarning, match="pread"):
        loaded = lamina.open(run.path, io="pread").load(0, mmap=True)
    assert torch.equal(loaded["w"], x)


@pytest.mark.parametrize("strict", [True, False])
def test_maps_are_verified(saved: lamina.Run, strict: bool) -> None:
    run = damage(saved, 9)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if strict:
            with pytest.raises(DamagedError, match=r'"a\.w"'):
                run.load(3, mmap=True)
        else:
            assert "w" not in run.load(3, mmap=True, strict=False)["a"]
    assert "it is damaged there: 'a.w'" in str(told[0].message)


def test_many_threads_load_from_one_run(saved: lamina.Run) -> None:
    whole, failures = state(), []
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        from threading import Thread

        def work() -> None:
            loaded = saved.load(3)
            if not torch.equal(loaded["a"]["w"], whole["a"]["w"]):
                failures.append(loaded)

        threads = [Thread(target=work) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    finally:
        torch.set_num_threads(before)
    assert not failures


def test_a_run_opened_in_a_fork_loads(saved: lamina.Run) -> None:
    code = (
        "import os, sys, torch, lamina\n"
        "run = lamina.open(sys.argv[1]); x = run.load(3)['tied']\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if torch.equal(run.load(3, mmap=True)['tied'], x) else 1)\n"
        "sys.exit(os.waitpid(pid, 0)[1])\n"
    )
    assert subprocess.run([sys.executable, "-c", code, saved.path], check=False).returncode == 0
