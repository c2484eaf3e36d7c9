"""Attention of torch.nn.MultiheadAttention, against the weights that it returns itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lamina.recording.attending import AttentionTaps
from tests.recording.attention_models import TOLD, check, of_weights

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")

PADDING = torch.tensor([[False] * 7, [False] * 4 + [True] * 3, [False] * 5 + [True] * 2])
CAUSAL = torch.ones(7, 7, dtype=torch.bool).triu(1)
ADDED = torch.randn(3 * 4, 7, 7, generator=torch.Generator().manual_seed(2))


def recorded(model: nn.Module, *args: Any, **given: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Return what the taps of a model received in one call, and the call's result."""
    found: dict[str, torch.Tensor] = {}
    with AttentionTaps(model, TOLD, found.__setitem__) as taps:
        taps.arm()
        result = model(*args, **given)
        assert list(found) == taps.names()
    return found, result


def attention(*, batch_first: bool = True, **options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 4, batch_first=batch_first, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    return module.eval()


def sequences(width: int = 16, length: int = 7) -> torch.Tensor:
    return torch.randn(3, length, width, generator=torch.Generator().manual_seed(1))


def numbered(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"a.{name}": value for name, value in found.items()}


@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"key_padding_mask": PADDING},
        {"attn_mask": CAUSAL, "is_causal": True},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
        {"attn_mask": nn.Transformer.generate_square_subsequent_mask(7)},
        {"attn_mask": ADDED, "key_padding_mask": torch.zeros(3, 7).masked_fill(PADDING, -torch.inf)},
    ],
    ids=["none", "padding", "causal", "both", "lowest", "added"],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": False},
        {"bias": False},
        {"kdim": 10, "vdim": 12},
    ],
    ids=["plain", "batch-second", "no-bias", "other-widths"],
)
@pytest.mark.parametrize("grad", [True, False])
def test_statistics_are_those_of_the_weights_and_outputs_stay_bit_equal(masks, options, grad):
    with torch.set_grad_enabled(grad):  # without gradients it takes its fast path
        module, x = attention(**options), sequences()
        k = sequences(options["kdim"]) if "kdim" in options else x
        v = sequences(options["vdim"]) if "vdim" in options else k
        if not module.batch_first:
            x = k = v = x.transpose(0, 1)
        weights = module(x, k, v, average_attn_weights=False, need_weights=True, **masks)[1]
        masks = {"need_weights": False} | masks
        plain = module(x, k, v, **masks)[0]
        found, result = recorded(module, x, k, v, **masks)
    assert torch.equal(result[0], plain)
    check(numbered(found), weights.detach(), "a")


def test_a_single_sequence_is_a_batch_of_one():
    module, x = attention(batch_first=False), sequences()[0]
    weights = module(x, x, x, average_attn_weights=False, attn_mask=CAUSAL, key_padding_mask=PADDING[1])[1]
    found, _ = recorded(module, x, x, x, attn_mask=CAUSAL, key_padding_mask=PADDING[1])
    check(numbered(found), weights.detach()[None], "a")


def test_keys_of_the_module_itself_take_their_share_and_are_no_rows():
    module, x = attention(add_bias_kv=True, add_zero_attn=True), sequences()
    weights = module(x, x, x, average_attn_weights=False, key_padding_mask=PADDING)[1]
    assert weights.shape[-1] == 9
    found, _ = recorded(module, x, x, x, key_padding_mask=PADDING)
    truth = of_weights(weights.detach())
    assert found["received"].shape == (3, 7, 4)
    torch.testing.assert_close(found["received"].double(), truth["received"][:, :7], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(found["entropy"].double(), truth["entropy"], rtol=2e-5, atol=2e-5)
    own = weights.detach().diagonal(dim1=2, dim2=3).transpose(1, 2)
    torch.testing.assert_close(found["self"], own, rtol=2e-5, atol=2e-5)


class Layer(nn.TransformerEncoderLayer):
    """Never takes the fast path, by the same weights."""

    def __init__(self, like: nn.TransformerEncoderLayer) -> None:
        super().__init__(16, 4, 24, batch_first=True, norm_first=like.norm_first)
        self.load_state_dict(like.state_dict())
        self.norm1.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masks", [{}, {"src_key_padding_mask": PADDING}, {"src_mask": CAUSAL, "is_causal": True}])
def test_an_encoder_layer_on_its_fast_path_stays_there_and_is_read(norm_first, masks, monkeypatch):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first).eval()
    slow, x, calls = Layer(layer).eval(), sequences(), []
    fast = vars(torch)["_transformer_encoder_layer_fwd"]
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fast(*a))
    with torch.no_grad():
        plain = layer(x, **masks)
        found, result = recorded(layer, x, **masks)
        assert len(calls) == 2
        truth, _ = recorded(slow, x, **masks)
        assert len(calls) == 2
    assert torch.equal(result, plain)
    for name, value in truth.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    layer.train()
    assert recorded(layer, x, **masks)[0].keys() == found.keys()


def test_items_that_the_encoder_packed_without_padding_are_unpacked():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True).eval()
    model, x, padding = nn.TransformerEncoder(layer, 2), sequences(), PADDING[1:]
    with torch.no_grad():
        plain = model(x[1:], src_key_padding_mask=padding)
        found, result = recorded(model, x[1:], src_key_padding_mask=padding)
        torch.backends.mha.set_fastpath_enabled(False)
        truth, _ = recorded(model, x[1:], src_key_padding_mask=padding)
        torch.backends.mha.set_fastpath_enabled(True)
    assert torch.equal(result, plain)
    name = "layers.1.self_attn.entropy"
    assert found[name].shape == (2, 7, 4)
    assert found[name][padding].isnan().all()
    torch.testing.assert_close(found[name][~padding], truth[name][~padding], rtol=1e-5, atol=1e-5)


def test_the_decoder_reads_itself_and_the_encoder():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(16, 4, 24, batch_first=True).eval()
    found, _ = recorded(layer, sequences(length=5), sequences(), tgt_mask=CAUSAL[:5, :5])
    shapes = {name: tuple(found[name].shape) for name in ("self_attn.received", "multihead_attn.received")}
    assert shapes == {"self_attn.received": (3, 5, 4), "multihead_attn.received": (3, 7, 4)}
    assert (found["self_attn.entropy"][:, 0] == 0).all()


def test_half_precision_is_read_under_autocast():
    module, x = attention(), sequences()
    truth, _ = recorded(module, x, x, x)
    with torch.autocast("cpu"):
        found, _ = recorded(module, x, x, x)
    assert found["entropy"].dtype == torch.float32
    torch.testing.assert_close(found["entropy"], truth["entropy"], rtol=0.05, atol=0.05)
    assert not torch.equal(found["entropy"], truth["entropy"])


def test_a_copy_of_a_watched_module_is_nobodys():
    module, x, found = attention(), sequences(), {}
    with AttentionTaps(module, "entropy", found.__setitem__) as taps:
        taps.arm()
        copy.deepcopy(module)(x, x, x)
        assert found == {}


def test_inference_mode_is_read():
    module, x = attention(), sequences()
    truth, _ = recorded(module, x, x, x)
    with torch.inference_mode():
        found, _ = recorded(module, x, x, x)
    torch.testing.assert_close(found, truth)
