"""TransformerLens names stand for the tensors that TransformerLens itself gives under them."""

from __future__ import annotations

import pickle
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError
from lamina.recording import aliases as naming
from lamina.recording import capture
from lamina.recording.aliases import Heads, Third, aliases
from lamina.recording.resolve import resolve
from tests.faults import broken
from tests.recording.families import FAMILIES, batch, model, tensors

# What TransformerLens has beside: what no module takes or gives, token ids, rotations, and second names of what
# goes into a projection. `hook_mlp_in` and `hook_hidden_states` are second names that only some families have.
NOT_OFFERED = re.compile(
    r"(.*\.)?(hook_scale|hook_normalized|hook_pattern|hook_attn_scores|hook_rot_[qk]|hook_cos|hook_sin|hook_mlp_in"
    r"|hook_hidden_states|[qk]_norm\.hook_in|rotary_emb\.hook_in|(pos_|token_type_)?embed\.hook_in"
    r"|[qkv]\.hook_in|mlp\.in\.hook_in|mlp\.gate\.hook_in|mlm_head\.hook_in)"
)


@cache
def bridge(family: str) -> Any:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    made = model(family)
    bridged = build_bridge_from_module(made, type(made).__name__, hf_config=made.config)
    bridged.enable_compatibility_mode(no_processing=True, disable_warnings=True)
    return bridged


@cache
def reference(family: str) -> dict[str, torch.Tensor]:
    """Return TransformerLens' cache as batch x position x width."""
    with torch.no_grad():
        _, cached = bridge(family).run_with_cache(batch(family))
    return {name: flat(name, value) for name, value in cached.items()}


def flat(name: str, value: torch.Tensor) -> torch.Tensor:
    if value.ndim != 4 or re.search(r"pattern|scores", name) or name == "embed.hook_in":
        return value
    # Normed queries and keys are the only ones that TransformerLens has with heads before positions.
    return (value.transpose(1, 2) if "norm" in name else value).flatten(2)


def offered(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what the sites of all aliases give, as the aliases say."""
    names = aliases(model)
    seen = tensors(model, [alias.site for alias in names.values()], x)
    return {name: (one.part or (lambda whole: whole))(seen[one.site]) for name, one in names.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_gives_what_transformerlens_gives(family):
    expected = reference(family)
    found = offered(model(family), batch(family))
    assert found
    for name, value in found.items():
        # The embedding of positions is made once for all batch items, TransformerLens repeats it.
        value = value.expand_as(expected[name]) if "pos_embed" in name else value
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_of_transformerlens_is_offered_or_known_not_to_be(family):
    names = aliases(model(family))
    assert [name for name in reference(family) if name not in names and not NOT_OFFERED.fullmatch(name)] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_of_the_table_is_a_site_that_fires(family):
    made = model(family)
    sites = {alias.site for alias in aliases(made).values()}
    assert set(tensors(made, sites, batch(family))) == sites
    table = naming._families()[made.config.model_type]
    entries = {f"blocks.{i}.{name}" for names in table["block"].values() for name in names for i in range(2)}
    for section in ("embed", "final", "head"):
        entries |= {name for names in table[section].values() for name in names}
    missing = {name for name in entries - set(aliases(made)) if "norm" not in name or family == "qwen3"}
    assert missing == ({f"blocks.{i}.hook_resid_mid" for i in range(2)} if family == "gpt_neox" else set())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3", "bert", "vit"])
def test_swapped_queries_and_keys_are_noticed(family):
    with broken("aliases_swap_queries_and_keys"), pytest.raises(AssertionError, match=r"hook_[qk]"):
        test_every_name_gives_what_transformerlens_gives(family)


def test_heads_side_by_side_are_noticed_where_they_are_interleaved():
    with broken("aliases_take_heads_together"), pytest.raises(AssertionError, match=r"hook_[qkv]"):
        test_every_name_gives_what_transformerlens_gives("gpt_neox")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_hook_point_of_a_transformerlens_model_has_its_name(family):
    bridged = bridge(family)
    names = aliases(bridged)
    assert list(names) == list(bridged.hook_dict)
    expected = reference(family)
    names = {name: alias for name, alias in names.items() if name in expected}
    assert {"hook_embed", "blocks.1.hook_resid_post", "blocks.0.attn.hook_q", "blocks.1.attn.hook_z"} < set(names)
    seen = tensors(bridged, [alias.site for alias in names.values()], batch(family))
    for name, alias in names.items():
        value = alias.part(seen[alias.site]) if alias.part else seen[alias.site]
        if value.ndim == 3:
            torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_hook_points_of_a_model_of_ones_own_are_named_by_their_paths():
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.HookedRootModule import HookedRootModule

    class Own(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 4), HookPoint())
            self.hook_z = HookPoint()
            self.setup()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hook_z(self.inner(x).unflatten(-1, (2, 2)))

    names = aliases(Own())
    assert {name: alias.site for name, alias in names.items()} == {
        "inner.1": "inner.1.output",
        "hook_z": "hook_z.output",
    }
    assert names["hook_z"].part == Heads()


def test_a_vision_transformer_by_hand():
    """ViT once more without TransformerLens: each tensor computed with the weights."""
    made = model("vit")
    found = offered(made, batch("vit"))
    with torch.no_grad():
        x = found["hook_embed"]
        assert x.shape == (2, 5, 32)
        for i, layer in enumerate(made.vit.layers):
            q, k, v = (
                nn.functional.linear(layer.layernorm_before(x), one.weight, one.bias)
                for one in (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
            )
            heads = [one.view(2, 5, 4, 8).transpose(1, 2) for one in (q, k, v)]
            z = (heads[0] @ heads[1].mT / 8**0.5).softmax(-1) @ heads[2]
            z = z.transpose(1, 2).reshape(2, 5, 32)
            attn_out = z @ layer.attention.o_proj.weight.T + layer.attention.o_proj.bias
            mid = x + attn_out
            pre = nn.functional.linear(layer.layernorm_after(mid), layer.mlp.fc1.weight, layer.mlp.fc1.bias)
            post = nn.functional.gelu(pre)
            mlp_out = nn.functional.linear(post, layer.mlp.fc2.weight, layer.mlp.fc2.bias)
            by_hand = {
                "hook_resid_pre": x,
                "attn.hook_q": q,
                "attn.hook_k": k,
                "attn.hook_v": v,
                "attn.hook_z": z,
                "hook_attn_out": attn_out,
                "hook_resid_mid": mid,
                "mlp.hook_pre": pre,
                "mlp.hook_post": post,
                "hook_mlp_out": mlp_out,
                "hook_resid_post": mid + mlp_out,
            }
            for name, value in by_hand.items():
                torch.testing.assert_close(found[f"blocks.{i}.{name}"], value)
            x = mid + mlp_out


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "vit"])
def test_any_head_of_a_family_offers_the_same_names_with_its_own_prefix(family):
    whole = aliases(model(family))
    prefix = model(family).base_model_prefix
    inner = {name for name, alias in whole.items() if alias.site.startswith(f"{prefix}.")}
    bare = aliases(model(family, "AutoModel"))
    assert {name: f"{prefix}.{alias.site}" for name, alias in bare.items()} == {n: whole[n].site for n in inner}
    assert set(whole) - inner <= {"mlm_head.hook_out"} | {n for n in whole if re.match("ln_final|unembed|hook_un", n)}
    made = model(family, "AutoModelForSequenceClassification")
    labelled = aliases(made)
    assert {name: labelled[name] for name in inner} == {name: whole[name] for name in inner} == labelled
    sites = {alias.site for alias in labelled.values()}
    assert set(tensors(made, sites, batch(family))) == sites


def test_names_come_in_the_order_of_the_forward_pass():
    names = list(aliases(model("gpt2")))
    order = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.attn.hook_k", "blocks.0.attn.hook_z"]
    order += ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "ln_final.hook_out", "hook_unembed"]
    assert sorted(order, key=names.index) == order


def test_what_enters_a_block_is_what_the_one_before_it_returns():
    names = aliases(model("gpt2"))
    assert names["blocks.0.hook_resid_pre"].site == "transformer.drop.output"
    assert names["blocks.1.hook_resid_pre"] == names["blocks.0.hook_resid_post"]


def test_a_compiled_or_wrapped_model_offers_the_same():
    made = model("gpt2")
    names = aliases(made)
    assert aliases(torch.compile(made, backend="eager")) == names  # pyright: ignore[reportArgumentType]
    made.transformer.h[1] = torch.compile(made.transformer.h[1], backend="eager")
    assert aliases(made) == names
    wrapped = aliases(nn.ModuleDict({"net": made, "head": nn.Linear(2, 2)}))
    assert {name: alias.site for name, alias in wrapped.items()} == {n: f"net.{a.site}" for n, a in names.items()}


def test_a_recorded_name_holds_what_transformerlens_gives(run):
    capture(
        model("gpt_neox"),
        run,
        batch("gpt_neox"),
        sites=["blocks.*.attn.hook_q", "blocks.*.attn.hook_k", "hook_embed"],
        progress=False,
    )
    names = ["hook_embed", *(f"blocks.{i}.attn.hook_{one}" for i in range(2) for one in "kq")]
    for name in names:
        torch.testing.assert_close(run.values(name, "capture")[0], reference("gpt_neox")[name])


def test_the_nearest_names_are_among_the_hints():
    with pytest.raises(RecordingError, match=r"a name of TransformerLens; nearest: blocks\.0\.hook_resid_post"):
        resolve(model("gpt2"), "blocks.0.hook_resid_pos")
    with pytest.raises(RecordingError, match=r"names of TransformerLens are known for .*gpt2.*; there are"):
        resolve(nn.Linear(2, 2), "blocks.0.hook_resid_pos")


def test_nothing_runs(monkeypatch):
    made = model("llama")

    def call(*_: object) -> None:
        raise AssertionError("a module was called")

    monkeypatch.setattr(nn.Module, "__call__", call)
    assert aliases(made)


def test_unknown_and_ambiguous_models_offer_nothing():
    import transformers

    assert aliases(nn.Linear(2, 2)) == {}
    opt = transformers.OPTConfig(hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=50)
    assert aliases(transformers.OPTModel(opt)) == {}
    assert aliases(nn.ModuleList([model("gpt2"), model("llama")])) == {}


def test_thirds_of_a_planted_tensor():
    x = torch.arange(2 * 3 * 24).view(2, 3, 24)
    assert [Third(i)(x)[0, 0].tolist() for i in range(3)] == [[*range(8 * i, 8 * i + 8)] for i in range(3)]
    assert [Third(i, heads=2)(x)[0, 0].tolist() for i in range(3)] == [
        [*range(4 * i, 4 * i + 4), *range(12 + 4 * i, 16 + 4 * i)] for i in range(3)
    ]
    assert Third(1)(x).data_ptr() == x[0, 0, 8:].data_ptr()
    assert torch.equal(Heads()(x.view(2, 3, 4, 6)), x)


def test_parts_are_values():
    part = Third(1, heads=4)
    assert part == Third(1, heads=4) != Third(1)
    assert pickle.loads(pickle.dumps(part)) == part
    assert len({part, Third(1, heads=4), Heads(), Heads()}) == 2


def documented() -> str:
    """Return the table of docs/models.md: the names by the models that have them, "blocks.3." left out."""
    models: dict[str, list[str]] = {}
    tables = {family["models"][0]: family for family in naming._families().values()}
    for family in tables.values():
        listed = [name for section in ("embed", "block", "final", "head") for name in family[section].values()]
        for name in [name for names in listed for name in names]:
            of = ["qwen3"] if "_norm" in name else family["models"]
            models.setdefault(name, []).extend(of)
    every = [model for family in tables.values() for model in family["models"]]
    rows: dict[str, list[str]] = {}
    for name, of in models.items():
        missing = [model for model in every if model not in of]
        who = "all" if not missing else f"all but {', '.join(missing)}" if len(missing) < len(of) else ", ".join(of)
        rows.setdefault(who, []).append(f"`{name}`")
    return "\n".join(["| models | names |", "|---|---|", *(f"| {who} | {', '.join(rows[who])} |" for who in rows)])


def test_the_documentation_lists_what_the_table_offers():
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert documented() in text


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bert"])
def test_an_edit_under_a_name_does_what_transformer_lens_does(family):
    made, x = model(family), batch(family)
    plain = made(x).logits.detach()
    points = bridge(family).hook_dict
    names = [name for name, one in aliases(made).items() if name in points and not one.passes]

    def edited(name: str) -> torch.Tensor:
        with lamina.edit(made, {name: torch.tanh}):
            return made(x).logits

    def check() -> None:
        for name in names:
            expected = bridge(family).run_with_hooks(x, fwd_hooks=[(name, lambda value, hook: value.tanh())])
            torch.testing.assert_close(edited(name), expected, msg=lambda text, name=name: f"{name}: {text}")
            assert not torch.allclose(expected, plain), name

    with torch.no_grad():
        check()
        if family != "bert":
            with broken("edits_put_parts_first"), pytest.raises(AssertionError, match=r"hook_[qkv]"):
                check()
