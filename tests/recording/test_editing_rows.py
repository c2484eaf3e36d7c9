"""Edits by stored rows: a run's own rows leave logits bit-identical, another input's rows give that input's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError
from tests.faults import broken
from tests.recording.models import Net

VOCABULARY = 40


def recorded(path: Path, model: nn.Module, data: Any, sites: Any) -> lamina.Run:
    run = lamina.Run.create(path)
    lamina.capture(model, run, data, sites=sites, progress=False)
    return run


def transformer(name: str) -> tuple[nn.Module, str]:
    """Return a small model with random weights, and the name of its layers' outputs."""
    import transformers

    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
        return transformers.BertForMaskedLM(config).eval(), "bert.encoder.layer.{}.output"
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config).eval(), "transformer.h.{}.output"


def tokens(seed: int, batch: int = 3, length: int = 6) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: nn.Module, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    found: Any = model(x, **kwargs)
    return found if isinstance(found, torch.Tensor) else found.logits


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_rows_of_a_layer_give_the_logits_of_the_input_they_came_from(name, tmp_path):
    model, site = transformer(name)
    x, other = tokens(1), tokens(2)
    run = recorded(tmp_path / "run", model, x, site.format("*"))
    plain, others = logits(model, x), logits(model, other)
    for layer in range(2):
        one = site.format(layer)
        with lamina.edit(model, {one: run.rows(one)}):
            assert torch.equal(logits(model, x), plain)
        with lamina.edit(model, {one: run.rows(one)}):
            assert torch.equal(logits(model, other), plain)
    assert not torch.equal(plain, others)
    assert torch.equal(logits(model, other), others)


def test_rows_are_found_by_example_and_position_in_any_order(tmp_path):
    model, site = transformer("gpt2")
    x, one = tokens(1), site.format(0)
    rows = recorded(tmp_path / "run", model, [x[:2], x[2:]], one).rows(one)
    plain = logits(model, x)
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(3)).numpy()]

    def check() -> None:
        with lamina.edit(model, {one: shuffled}, example=[2, 0, 2]):
            assert torch.equal(logits(model, x[[1, 1, 1]]), plain[[2, 0, 2]])

    check()
    with broken("edits_take_rows_in_stored_order"), pytest.raises((AssertionError, RuntimeError)):
        check()
    with lamina.edit(model, {one: shuffled}):  # numbered through the block, as the capture was
        assert torch.equal(logits(model, x[1:]), plain[:2])
        assert torch.equal(logits(model, x[:1]), plain[2:])


def test_where_patches_a_part_and_asks_for_no_other_rows(tmp_path):
    model, site = transformer("gpt2")
    x, other, one = tokens(1), tokens(2), site.format(1)
    run = recorded(tmp_path / "run", model, x, one)
    plain, others = logits(model, x), logits(model, other)
    late = run.rows(one, where=pl.col("position") >= 4)
    with lamina.edit(model, {one: late}, where=pl.col("position") >= 4):
        found = logits(model, other)
    assert torch.equal(found[:, 4:], plain[:, 4:])
    assert torch.equal(found[:, :4], others[:, :4])
    with lamina.edit(model, {one: run.rows(one)}, where=torch.tensor([False, True, False])):
        found = logits(model, other)
    assert torch.equal(found[1], plain[1])
    assert torch.equal(found[[0, 2]], others[[0, 2]])


def test_padding_that_was_not_stored_is_left_out_by_the_same_mask(tmp_path):
    model, site = transformer("bert")
    x, one = tokens(1), site.format(0)
    mask = torch.ones_like(x)
    mask[0, 3:] = 0
    run = lamina.Run.create(tmp_path / "run")
    with lamina.record(model, run, sites=one) as recorder, recorder.step(0, example=range(3), mask=mask):
        plain = logits(model, x, attention_mask=mask)
    rows = lamina.open(run.path).rows(one)
    with lamina.edit(model, {one: rows}, where=mask.bool()):
        assert torch.equal(logits(model, x, attention_mask=mask), plain)
    with (
        pytest.raises(
            RecordingError, match="lack 3 of the 18 that the batch holds: example 0, position 3; example 0, position 4"
        ),
        lamina.edit(model, {one: rows}),
    ):
        logits(model, x, attention_mask=mask)


def test_rows_go_to_the_positions_that_cached_decoding_has_come_to(tmp_path):
    model, site = transformer("gpt2")
    x, other, one = tokens(1), tokens(2), site.format(1)
    rows = recorded(tmp_path / "run", model, x, one).rows(one)
    given: Any = model

    def check() -> None:
        with torch.no_grad(), lamina.edit(model, {one: rows}):
            first = given(other[:, :4], use_cache=True)
            second = given(other[:, 4:5], past_key_values=first.past_key_values)
            third = given(other[:, 5:], past_key_values=second.past_key_values)
        found = torch.cat([first.logits, second.logits, third.logits], 1)
        assert torch.equal(found[:, :4], logits(model, x[:, :4]))
        torch.testing.assert_close(found, logits(model, x))

    check()
    with broken("edits_count_positions_from_zero"), pytest.raises(AssertionError):
        check()


def test_a_plain_net_and_images_get_a_row_for_each_item(tmp_path):
    torch.manual_seed(0)
    net = Net().eval()
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))
    channels_last: Any = torch.randn(5, 1, 6, 6).to(memory_format=torch.channels_last)
    for model, site, x in (
        (net, "blocks.1.mlp.output", torch.randn(5, 4)),
        (net, "head.input", torch.randn(5, 4)),
        (images, "0.output", torch.randn(5, 1, 6, 6)),
        (images.to(memory_format=torch.channels_last), "1.output", channels_last),  # pyright: ignore[reportCallIssue]
    ):
        rows = recorded(tmp_path / f"{site} {x.ndim}", model, x, site).rows(site)
        kept = [rows.gather([at]).clone() for at in range(5)]
        plain = logits(model, x)
        with lamina.edit(model, {site: rows}):
            assert torch.equal(logits(model, x), plain)
        # the plain net adds a residual: only what comes behind the site is another input's
        if site != "blocks.1.mlp.output":
            with lamina.edit(model, {site: rows}):
                assert torch.equal(logits(model, torch.randn_like(x)), plain)
        assert all(torch.equal(rows.gather([at]), kept[at]) for at in range(5))


def test_an_element_of_an_lstm_is_patched_by_position(tmp_path):
    torch.manual_seed(0)

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0])

    model, x = Reads(), torch.randn(3, 5, 2)
    rows = recorded(tmp_path / "run", model, x, "lstm.output[0]").rows("lstm.output[0]")
    plain = logits(model, x)
    with lamina.edit(model, {"lstm.output[0]": rows}):
        assert torch.equal(logits(model, torch.randn(3, 5, 2)), plain)


class Twice(nn.Module):
    """Calls a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x).tanh())


def test_each_call_of_a_module_gets_the_rows_of_that_call(tmp_path):
    torch.manual_seed(0)
    model, x, site = Twice(), torch.randn(4, 2), "layer.input"
    run = recorded(tmp_path / "run", model, x, site)
    plain = logits(model, x)
    assert run.rows(site).shape == (8, 2)

    def check() -> None:
        with lamina.edit(model, {site: run.rows(site)}):
            assert torch.equal(logits(model, torch.zeros(4, 2)), plain)

    check()
    with broken("edits_count_calls_as_one"), pytest.raises(AssertionError):
        check()
    late = run.rows(site, where=pl.col("call") == 1)
    for where in (None, pl.col("call") == 1):
        with lamina.edit(model, {site: late}, where=where):
            assert torch.equal(logits(model, torch.zeros(4, 2)), plain)
    with lamina.edit(model, {site: late}, where=pl.col("call") == 0):
        assert not torch.equal(logits(model, x), plain)


def test_micro_batches_count_calls_on_and_rows_are_found_all_the_same(tmp_path):
    torch.manual_seed(0)
    model, x, site = Twice(), torch.randn(4, 2), "layer.output"
    run = lamina.Run.create(tmp_path / "run")
    with lamina.record(model, run, sites=site) as recorder, recorder.step(0, example=range(4)), torch.no_grad():
        plain = torch.cat([model(x[:2]), model(x[2:])])
    rows = lamina.open(run.path).rows(site)
    assert rows.metadata(["call"])["call"].max() == 3
    with lamina.edit(model, {site: rows}, example=[3, 0]):
        assert torch.equal(logits(model, torch.zeros(2, 2)), plain[[3, 0]])


def test_rows_in_memory_belong_in_order():
    given = torch.randn(6, 4)
    model = nn.Identity()
    with lamina.edit(model, {"output": lamina.Rows.of(given)}):
        assert torch.equal(model(torch.zeros(6, 4)), given)
        assert torch.equal(model(torch.zeros(2, 3, 4)), given.view(2, 3, 4))
    with (
        pytest.raises(RecordingError, match="there are 6 for 5"),
        lamina.edit(model, {"output": lamina.Rows.of(given)}),
    ):
        model(torch.zeros(5, 4))


def test_stored_rows_are_converted_where_that_is_exact(tmp_path):
    model, x = nn.Identity(), torch.randn(3, 4)
    coarse = {"output": lamina.Site(dtype=torch.bfloat16)}
    rows = recorded(tmp_path / "coarse", model, x, coarse).rows("output")
    assert rows.dtype == torch.bfloat16
    with lamina.edit(model, {"output": rows}):
        assert torch.equal(model(x), x.bfloat16().float())
    rows = recorded(tmp_path / "fine", model, x, "output").rows("output")

    def check() -> None:
        with (
            pytest.raises(RecordingError, match="'output' is bfloat16, and not every float32"),
            lamina.edit(model, {"output": rows}),
        ):
            model(x.bfloat16())

    check()
    with broken("edits_round_what_does_not_fit"), pytest.raises(pytest.fail.Exception):
        check()


def test_rows_that_do_not_fit_name_the_site_and_what_is_wrong(tmp_path):
    model, site = nn.Identity(), "output"
    run = recorded(tmp_path / "run", model, torch.randn(4, 3, 2), site)
    rows = run.rows(site)
    unfit: list[tuple[torch.Tensor, dict[str, Any], str]] = [
        (torch.zeros(4, 3, 5), {}, r"'output' have 2 numbers each, and it has the shape \[4, 3, 5\]"),
        (
            torch.zeros(5, 3, 2),
            {},
            "lack 3 of the 15.*example 4, position 0; example 4, position 1; example 4, position 2 ",
        ),
        (torch.zeros(4, 3, 2), {"position": [0, 1, 7]}, "lack 4 of the 12.*example 0, position 7; .*; …"),
        (torch.zeros(4, 3, 2), {"position": [0, 1]}, r"position= has the shape \[2\]"),
        (torch.zeros(4, 3, 2), {"example": list("abcd")}, "are Int64, those of the batch String"),
        (torch.zeros(4, 2), {}, "'output' have positions, and it has none"),
    ]
    for x, options, says in unfit:
        with pytest.raises(RecordingError, match=says), lamina.edit(model, {site: rows}, **options):
            model(x)
    pooled = recorded(tmp_path / "pooled", model, torch.randn(4, 2), site).rows(site)
    with pytest.raises(RecordingError, match="have no position, and it has"), lamina.edit(model, {site: pooled}):
        model(torch.zeros(4, 3, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_own_rows_change_nothing_in_any_precision(dtype, tmp_path):
    torch.manual_seed(0)
    model, site = transformer("gpt2")
    model, one = model.to(dtype), site.format(0)
    x, other = tokens(1), tokens(2)
    rows = recorded(tmp_path / "run", model, x, one).rows(one)
    plain = logits(model, x)
    assert rows.dtype == plain.dtype == dtype
    for given in (x, other):
        with lamina.edit(model, {one: rows}):
            assert torch.equal(logits(model, given), plain)


def test_own_rows_change_nothing_under_autocast(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rows = recorded(tmp_path / "run", model, x, "0.output").rows("0.output")
        plain = logits(model, x)
        with lamina.edit(model, {"0.output": rows}):
            assert torch.equal(logits(model, torch.zeros(5, 8)), plain)
    assert rows.dtype == torch.bfloat16


def test_an_input_that_is_a_slice_of_another_tensor_gets_its_own_rows_back(tmp_path):
    torch.manual_seed(0)
    model, x, site = Last(), torch.randn(7, 5, 8), "head.input"
    rows = recorded(tmp_path / "run", model, x, site).rows(site)
    plain = logits(model, x)
    for given in (x, torch.zeros(7, 5, 8)):
        with lamina.edit(model, {site: rows}):
            assert torch.equal(logits(model, given), plain)


class Last(nn.Module):
    """Reads the last position, as classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x[:, -1])


def test_rows_of_some_positions_go_where_they_came_from(tmp_path):
    model, site = transformer("gpt2")
    x, other, one = tokens(1), tokens(2), site.format(1)
    rows = recorded(tmp_path / "run", model, x, {one: lamina.Site(positions=[0, -1])}).rows(one)
    with lamina.edit(model, {one: rows}, where=pl.col("position").is_in([0, 5])):
        found = logits(model, other)
    assert torch.equal(found[:, [0, 5]], logits(model, x)[:, [0, 5]])
    assert torch.equal(found[:, 1:5], logits(model, other)[:, 1:5])
    with pytest.raises(RecordingError, match="lack 12 of the 18"), lamina.edit(model, {one: rows}):
        model(other)


def test_an_empty_choice_asks_for_no_rows_and_edits_nothing(tmp_path):
    model, x = nn.Identity(), torch.randn(4, 3, 2)
    rows = recorded(tmp_path / "run", model, x, "output").rows("output")
    with lamina.edit(model, {"output": rows}, where=torch.zeros(9, dtype=torch.bool)):
        assert torch.equal(model(torch.zeros(9, 3, 2)), torch.zeros(9, 3, 2))
    with lamina.edit(model, {"output": rows}):
        assert model(torch.zeros(0, 3, 2)).shape == (0, 3, 2)
    with (
        pytest.warns(lamina.LaminaWarning, match="where= chose nothing"),
        lamina.edit(model, {"output": rows}, where=pl.col("position") == 3),
    ):
        assert torch.equal(model(torch.zeros(4, 3, 2)), torch.zeros(4, 3, 2))


def test_a_model_that_takes_no_tensor_is_numbered_by_its_first_site(tmp_path):
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, items: list[torch.Tensor]) -> torch.Tensor:
            return self.layer(torch.stack(items))

    model, given = Lists(), torch.randn(4, 2)
    rows = recorded(tmp_path / "run", nn.Identity(), given, "output").rows("output")
    with lamina.edit(model, {"layer.output": rows}):
        found = [model([torch.zeros(2)] * 3), model([torch.zeros(2)])]
    assert torch.equal(torch.cat(found), given)


def test_no_device_is_waited_for(tmp_path):
    model = nn.Identity()
    rows = recorded(tmp_path / "run", model, torch.randn(4, 3, 2), "output").rows("output")
    x = torch.zeros(4, 3, 2, device="meta")
    mask = torch.ones(4, 3, dtype=torch.bool)
    for change in (rows, torch.ones(2), lambda value: value * 2, lambda value: torch.ones(4, 3, 2)):
        for where in (None, mask, pl.col("position") > 0):
            with lamina.edit(model, {"output": change}, where=where):
                assert model(x).device.type == "meta"


def test_rows_of_several_steps_are_refused_at_once(tmp_path):
    model = nn.Identity()
    run = lamina.Run.create(tmp_path / "run")
    with lamina.record(model, run, sites="output") as recorder:
        for step in range(2):
            with recorder.step(step, example=[5, 6]):
                model(torch.ones(2, 2))
    rows = lamina.open(run.path).rows("output")
    with pytest.raises(RecordingError, match="2 rows have example 5, so it is unclear"):
        lamina.edit(model, {"output": rows})
