"""Attention of models of Transformers, against the weights that their eager code returns."""

from __future__ import annotations

import copy
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from lamina.errors import RecordingError
from lamina.recording.attending import AttentionTaps
from lamina.recording.attention import statistics
from tests.faults import broken
from tests.recording.attention_models import CONFIGS, FIRST, TOLD, batch, build, check, outputs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Found = dict[str, torch.Tensor]


def recorded(model: nn.Module, *args: Any, statistics: Any = TOLD, **given: Any) -> tuple[Found, Any]:
    """Return what the taps of a model received in one call, and the call's result."""
    found: Found = {}
    with AttentionTaps(model, statistics, found.__setitem__) as taps:
        taps.arm()
        result = model(*args, **given)
        assert list(found) == taps.names()
    return found, result


def check_weights(family: str, *, padded: bool, implementation: str = "sdpa") -> None:
    model, given = build(family, implementation), batch(family, padded=padded)
    weights = build(family, "eager")(**given, output_attentions=True).attentions
    plain = outputs(model, given)
    found, result = recorded(model, **given)
    assert torch.equal(result.last_hidden_state, plain)
    for layer, p in enumerate(weights):
        check(found, p, FIRST[family].replace("0", str(layer)))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("padded", [False, True])
def test_statistics_are_those_of_the_weights_and_outputs_stay_bit_equal(family, padded):
    check_weights(family, padded=padded)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_eager_attention_is_read_like_sdpa(family):
    check_weights(family, padded=True, implementation="eager")


def taken(model: nn.Module, given: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return how many calls go through `attend`, and how many through tiles under a dense mask."""
    attend, blocked = Mock(wraps=statistics.attend), Mock(wraps=statistics.blocked.attention_statistics)
    monkeypatch.setattr(statistics, "attend", attend)
    monkeypatch.setattr(statistics.blocked, "attention_statistics", blocked)
    recorded(model, **given)
    return attend.call_count, blocked.call_count


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_masks_of_most_models_are_recognized(family, padded, implementation, monkeypatch):
    # Gemma's cap would cap what hides padding.
    expected = (0, 2) if family == "gemma2" and padded else (2, 0)
    assert taken(build(family, implementation), batch(family, padded=padded), monkeypatch) == expected


@pytest.mark.parametrize(
    ("fault", "family"),
    [
        ("attention_forgets_hidden_keys", "llama"),
        ("attention_forgets_hidden_keys", "bert"),
        ("attention_forgets_the_mask", "gemma2"),
        ("attention_ignores_causality", "llama"),
    ],
)
def test_a_wrong_reading_of_masks_is_found_out(fault, family):
    with broken(fault), pytest.raises(AssertionError):
        check_weights(family, padded=fault != "attention_ignores_causality")


def test_position_biases_are_added(monkeypatch):
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    options: dict[str, Any] = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_heads": 4}
    model = T5Model._from_config(T5Config(**options), attn_implementation="eager").eval()
    given = {"input_ids": torch.arange(1, 13).view(2, 6), "decoder_input_ids": torch.arange(1, 9).view(2, 4)}
    # Between the two stand no positions.
    assert taken(model, given, monkeypatch) == (1, 2)
    found, result = recorded(model, **given, output_attentions=True)
    check(found, result.encoder_attentions[0], "encoder.block.0.layer.0.SelfAttention")
    check(found, result.decoder_attentions[0], "decoder.block.0.layer.0.SelfAttention")
    check(found, result.cross_attentions[0], "decoder.block.0.layer.1.EncDecAttention")


def test_decoding_with_a_cache_counts_positions_on():
    from transformers import DynamicCache, StaticCache

    model, ids = build("llama"), batch("llama")["input_ids"]
    whole, _ = recorded(model, ids)
    for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=12)):
        parts = [
            recorded(model, input_ids=ids[:, part], past_key_values=cache)[0]
            for part in (slice(0, 5), slice(5, 6), slice(6, 9))
        ]
        for name in (f"{FIRST['llama']}.{statistic}" for statistic in TOLD[:-1]):
            torch.testing.assert_close(torch.cat([part[name] for part in parts], 1), whole[name], rtol=1e-4, atol=1e-5)


def everything() -> list[Any]:
    """Return what taps could leave behind."""
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    return [
        dict(vars(AttentionInterface)),
        dict(AttentionInterface._global_mapping),
        dict(AttentionMaskInterface._global_mapping),
        dict(vars(nn.MultiheadAttention)),
        dict(vars(nn.TransformerEncoderLayer)),
        dict(vars(nn.TransformerEncoder)),
    ]


def test_nothing_stays_behind_also_after_an_exception():
    model, other = build("bert"), build("gpt2")
    before = everything(), [dict(vars(module)) for module in model.modules()], model.config._attn_implementation
    taps = AttentionTaps(model, "entropy", lambda *_: None)
    with taps, AttentionTaps(other, "entropy", lambda *_: None):
        assert everything() != before[0]
        assert model.config._attn_implementation == "sdpa"
    with pytest.raises(ZeroDivisionError), taps:
        raise ZeroDivisionError
    assert (everything(), [dict(vars(module)) for module in model.modules()], "sdpa") == before


def test_only_what_is_armed_is_received():
    model, given, found = build("bert"), batch("bert"), {}
    with AttentionTaps(model, ["entropy", "sink"], found.__setitem__) as taps:
        model(**given)
        assert found == {}
        taps.arm(["encoder.layer.1.attention.self.sink"])
        model(**given)
        assert list(found) == ["encoder.layer.1.attention.self.sink"]
        with pytest.raises(RecordingError, match=r"nearest: encoder.layer.1.attention.self.sink"):
            taps.arm(["encoder.layer.1.attention.sink"])
        found.clear()
        taps.disarm()
        model(**given)
    model(**given)
    assert found == {}


def test_two_models_are_told_apart_and_copies_are_nobodys():
    model, other, given, found = build("bert"), build("gpt2"), batch("bert"), {}
    with AttentionTaps(model, "entropy", found.__setitem__) as taps, AttentionTaps(other, "sink", found.__setitem__):
        taps.arm()
        twin = copy.deepcopy(model)
        twin(**given)
        other(**given)
        assert found == {}
        with (
            pytest.raises(RecordingError, match=r"encoder\.layer\.0\.attention\.self is recorded already"),
            AttentionTaps(model, "sink", found.__setitem__),
        ):
            pass
        model(**given)
        assert list(found) == taps.names()
    with AttentionTaps(twin, "sink", found.__setitem__):
        pass


@pytest.mark.parametrize("fault", [None, "attention_counts_recomputations"])
def test_a_recomputation_does_not_count(fault):
    model, given, calls = build("bert"), batch("bert"), []
    model.train().gradient_checkpointing_enable()
    with AttentionTaps(model, "entropy", lambda name, value: calls.append(name)) as taps:
        taps.arm()
        if fault is None:
            outputs(model, given).sum().backward()
        else:
            with broken(fault):
                outputs(model, given).sum().backward()
    assert (calls == taps.names()) == (fault is None)


def test_gradients_stay_bit_equal():
    def gradients(model: nn.Module, statistics: list[str]) -> list[torch.Tensor]:
        with AttentionTaps(model, "entropy", lambda *_: None) as taps:
            taps.arm(statistics)
            outputs(model, batch("llama")).square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    plain, watched = gradients(build("llama"), []), gradients(build("llama"), [f"{FIRST['llama']}.entropy"])
    assert len(plain) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


def test_implementations_that_hide_their_masks_are_refused():
    model = build("bert")
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(
        RecordingError, match=r"layer\.0\.attention\.self runs .*'flex_attention', which hides how keys"
    ):
        AttentionTaps(model, "entropy", lambda *_: None)
    model.config._attn_implementation = "sdpa"
    with AttentionTaps(model, "entropy", lambda *_: None) as taps:
        taps.arm()
        model.config._attn_implementation = "flex_attention"
        with pytest.raises(RecordingError, match="hides how keys are masked"):
            model.encoder(torch.zeros(1, 2, 16))


def test_sinks_are_refused():
    from transformers import GptOssConfig, GptOssModel

    options: dict[str, Any] = CONFIGS["llama"][1] | {"num_local_experts": 2, "num_experts_per_tok": 1}
    model = GptOssModel._from_config(GptOssConfig(**options), attn_implementation="eager")
    with pytest.raises(RecordingError, match=r"self_attn uses attention sinks \(s_aux=\)"):
        recorded(model, torch.ones(1, 4, dtype=torch.int64))


def test_a_model_without_attention_says_what_is_known():
    with pytest.raises(
        RecordingError, match=r"Linear has no attention of a known kind \(known: torch.nn.MultiheadAttention, and mod"
    ):
        AttentionTaps(nn.Linear(2, 2), "entropy", lambda *_: None)
    with pytest.raises(RecordingError, match="nearest: received"):
        AttentionTaps(nn.Linear(2, 2), ["recieved"], lambda *_: None)
