"""What the section on attention says of heads that were planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.report import report
from lamina.report.choice import attention_sites, vector_sites
from lamina.report.head_measures import heads_mean, heads_share
from lamina.report.heads import heads_section, short
from lamina.report.section import Picture, Table
from tests.faults import broken

TOKENS = ["[CLS]", "a", "b", "[SEP]"]


def planted(path: Path, *, examples: int = 6) -> lamina.Run:
    """A run of two layers of three heads: one looks at the token before, one at `[SEP]`, one at all tokens alike."""
    before = np.array([[0, 0.25, 0.25], [1, 0, 0.25], [1, 0, 0.25], [1, 0, 0.25]])
    entropy = np.array([[0.0, 0.5, np.log(4)]]).repeat(4, 0)
    received = np.array([[1, 0.2, 1], [1, 0.2, 1], [1, 0.2, 1], [1, 3.4, 1]])
    run = lamina.Run.create(path)
    with run.writer() as writer:
        sites = {}
        for layer in range(2):
            for name, values in {"entropy": entropy + layer, "previous": before, "received": received}.items():
                values = np.roll(values, layer, 1)[None].repeat(examples, 0)
                if name == "entropy":
                    values[-1, 0] = np.nan  # a query that sees no key
                sites[f"net.layer.{layer}.attention.{name}"] = values.astype(np.float32)
        writer.append(sites, step=0, example=np.arange(examples), source="texts")
        writer.examples(
            {
                "example": np.repeat(np.arange(examples), 4),
                "position": np.tile(np.arange(4), examples),
                "token": TOKENS * examples,
            }
        )
    return lamina.open(path)


def check_measures(path: Path) -> None:
    run = planted(path)
    previous, entropy, received = (
        run.rows(f"net.layer.0.attention.{name}") for name in ("previous", "entropy", "received")
    )
    assert heads_mean(previous).value == pytest.approx([0.75, 0.0625, 0.25])
    narrow = heads_mean(entropy)
    assert narrow.value == pytest.approx([0, 0.5, np.log(4)], abs=1e-6)
    assert narrow.dropped == {"non_finite": 1}
    share = heads_share(received, "token", of="[SEP]")
    assert share.value == pytest.approx([0.25, 0.85, 0.25])
    assert share.stderr == pytest.approx([0, 0, 0], abs=1e-7)
    assert share.n_groups == 6


def test_means_and_shares_are_those_that_were_planted(tmp_path: Path) -> None:
    check_measures(tmp_path / "run")


def test_a_share_of_another_token_is_noticed(tmp_path: Path) -> None:
    with broken("heads_share_counts_all_rows"), pytest.raises(AssertionError):
        check_measures(tmp_path / "run")


def test_the_section_names_the_heads(tmp_path: Path) -> None:
    section = heads_section([planted(tmp_path / "run")])
    assert section is not None
    entropy, weights, table = section.parts
    assert isinstance(entropy, Picture)
    assert "The narrowest head is layer.0 head 0 (1 tokens), the widest layer.1 head 0" in entropy.reading
    assert isinstance(weights, Picture)
    assert weights.reading.endswith("of their weight: 2 to the token before, 0 to [CLS], 2 to [SEP].")
    assert isinstance(table, Table)
    best = table.frame.group_by("looks at", maintain_order=True).head(2).filter(~pl.col("looks at").eq("[CLS]"))
    assert best.select("looks at", "layer", "head", "weight").rows() == [
        ("the token before", "layer.0", "0", 0.75),
        ("the token before", "layer.1", "1", 0.75),
        ("[SEP]", "layer.0", "1", 0.85),
        ("[SEP]", "layer.1", "2", 0.85),
    ]


def test_statistics_of_heads_are_no_activations(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    assert vector_sites(run).height == 0
    assert attention_sites(run)["module"].unique(maintain_order=True).to_list() == [
        "net.layer.0.attention",
        "net.layer.1.attention",
    ]
    text = report(run, tmp_path / "report.html", progress=False).read_text()
    assert "What the attention heads look at" in text


def test_a_run_without_attention_has_no_such_section(tmp_path: Path) -> None:
    assert heads_section([lamina.Run.create(tmp_path / "run")]) is None


def test_names_are_short_and_tell_modules_apart() -> None:
    assert short(["h.0.attn", "h.1.attn", "h.10.attn"]) == ["h.0", "h.1", "h.10"]
    assert short(["encoder.0.self", "encoder.0.cross"]) == ["self", "cross"]
    assert short(["model.attention"]) == ["model.attention"]
