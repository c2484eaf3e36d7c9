from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bench import paths
from bench.agreement import DisagreementError, Within
from bench.harness import Contender, compare, peaks
from bench.peers import PeerError, Worker

FAKE = "tests.bench.fake_peer"
X = np.arange(6.0).reshape(2, 3)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "SCRATCH", tmp_path_factory.mktemp("scratch"))
        with Worker(paths.OURS) as worker:
            yield worker


def test_arrays_go_there_and_results_and_seconds_come_back(worker: Worker):
    worker.prepare("twice", f"{FAKE}:scaled", {"x": X}, "cpu", {"factor": 2.0})
    worker.prepare("thrice", f"{FAKE}:scaled", {"x": X}, "cpu", {"factor": 3.0})
    result = worker.result("twice")
    assert result["scaled"].tolist() == (2 * X).tolist()
    assert result["scaled"].dtype == np.float64
    assert result["sum"].shape == ()
    assert worker.result("thrice")["scaled"].tolist() == (3 * X).tolist()
    assert 0 < worker.ask("seconds", case="twice") < 1
    assert worker.ask("versions", packages=["numpy"]) == {"numpy": np.__version__}


def test_what_a_peer_prints_does_not_disturb_the_answers(worker: Worker):
    worker.prepare("printing", f"{FAKE}:printing", {}, "cpu", {})
    assert worker.result("printing")["one"].tolist() == [1.0]


def test_an_error_of_a_peer_is_told_and_the_worker_goes_on(worker: Worker):
    worker.prepare("raising", f"{FAKE}:raising", {}, "cpu", {})
    with pytest.raises(PeerError, match=r"(?s)result 'raising' failed.*ValueError: this peer knows no such kernel"):
        worker.result("raising")
    with pytest.raises(PeerError, match=r"(?s)prepare 'absent' failed.*No module named 'no_such_peer'"):
        worker.prepare("absent", "no_such_peer:call", {}, "cpu", {})
    worker.prepare("twice", f"{FAKE}:scaled", {"x": X}, "cpu", {"factor": 2.0})
    assert worker.result("twice")["sum"] == 15


def test_forgetting_drops_cases_and_files(worker: Worker):
    worker.prepare("twice", f"{FAKE}:scaled", {"x": X}, "cpu", {"factor": 2.0})
    assert list(paths.SCRATCH.rglob("*.npy"))
    worker.forget()
    assert not list(paths.SCRATCH.rglob("*.npy"))
    with pytest.raises(PeerError, match="KeyError: 'twice'"):
        worker.ask("seconds", case="twice")


def test_a_peer_that_ends_or_hangs_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "SCRATCH", tmp_path)
    with Worker(paths.OURS, timeout=30) as worker:
        worker.prepare("ending", f"{FAKE}:ending", {}, "cpu", {})
        with pytest.raises(PeerError, match=r"(?s)ended with 3 during result 'ending'.*out of luck"):
            worker.result("ending")
        with pytest.raises(PeerError, match="ended with 3 during forget"):
            worker.forget()
    with Worker(paths.OURS, timeout=30) as worker:
        worker.prepare("hanging", f"{FAKE}:hanging", {}, "cpu", {})
        worker.timeout = 0.2
        with pytest.raises(PeerError, match=r"result 'hanging' took longer than 0\.2 s"):
            worker.result("hanging")
    assert not list(tmp_path.iterdir())


def test_a_missing_environment_says_how_to_make_it(tmp_path):
    with pytest.raises(PeerError, match="make peers"):
        Worker(tmp_path / "bin" / "python")


def test_peers_and_ours_are_compared_and_take_turns(worker: Worker):
    contenders = [
        Contender("ours", f"{FAKE}:scaled", {"factor": 2.0}),
        Contender("theirs", f"{FAKE}:scaled", {"factor": 2.0}, peer=True),
        Contender("wrong", f"{FAKE}:scaled", {"factor": 2.1}, peer=True),
    ]
    expected = {"scaled": 2 * X, "sum": 15.0}
    common = {"rule": Within(1e-12), "limits": [], "repetitions": 3, "device": "cpu", "description": "scaling"}
    seconds = compare(contenders[:2], {"x": X}, expected, peers=worker, **common)
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 3, "theirs": 3}
    with pytest.raises(DisagreementError, match="wrong, scaled: off by"):
        compare(contenders, {"x": X}, expected, peers=worker, **common)


def test_memory_is_what_a_call_adds_in_a_fresh_process():
    contenders = [Contender(f"{size} MB", f"{FAKE}:taking", {"megabytes": size}) for size in (50, 200)]
    added = peaks(contenders, {}, device="cpu", description="taking")
    assert added["50 MB"] == pytest.approx(50e6, rel=0.1)
    assert added["200 MB"] == pytest.approx(200e6, rel=0.1)
