from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lamina.errors import LaminaWarning, RecordingError
from lamina.recording import Site
from lamina.recording.resolve import resolve
from tests.recording.models import Net


def names(model: nn.Module, sites) -> list[str]:
    return [site.name for site in resolve(model, sites).sites]


def test_a_star_stands_for_one_component():
    assert names(Net(), "blocks.*.output") == ["blocks.0.output", "blocks.1.output"]
    assert names(Net(), ["blocks.*.mlp.output"]) == ["blocks.0.mlp.output", "blocks.1.mlp.output"]


def test_two_stars_stand_for_any_number_of_components():
    assert names(Net(depth=1), "**.mlp.**.output") == [
        "blocks.0.mlp.output",
        "blocks.0.mlp.0.output",
        "blocks.0.mlp.1.output",
    ]
    every = names(Net(), "**.output")
    assert len(every) == len(list(Net().modules())) - 1
    assert "output" in every


def test_a_container_that_is_never_called_is_no_site():
    assert "blocks.output" not in names(Net(), "**.output")
    with pytest.raises(RecordingError, match=r"matches nothing.*blocks\.0\.output"):
        names(Net(), "blocks.output")


def test_the_root_is_plain_input_and_output():
    model = Net()
    sites = resolve(model, ["input", "output"]).sites
    assert [(site.name, site.kind, site.module) for site in sites] == [
        ("input", "input", model),
        ("output", "output", model),
    ]


def test_the_last_component_is_the_kind_even_of_a_module_named_output():
    layer = nn.Sequential(OrderedDict(output=nn.Linear(2, 2)))
    model = nn.ModuleDict({"layer": layer})
    assert names(model, "layer.output.output") == ["layer.output.output"]
    assert resolve(model, "layer.output.output").sites[0].module is layer.output
    assert resolve(model, "layer.output").sites[0].module is layer


def test_elements_follow_the_kind():
    sites = resolve(nn.LSTM(2, 2), ["output[1][0]", "output[hidden]", "input[-1]"]).sites
    assert [(site.name, site.path) for site in sites] == [
        ("output[1][0]", (1, 0)),
        ("output[hidden]", ("hidden",)),
        ("input[-1]", (-1,)),
    ]


def test_a_dict_gives_options_and_the_last_glob_wins():
    sites = resolve(Net(), {"blocks.*.output": Site(every=10), "blocks.0.output": Site(every=2)}).sites
    assert {site.name: site.options.every for site in sites} == {"blocks.0.output": 2, "blocks.1.output": 10}


def test_a_site_that_several_globs_select_is_recorded_once():
    assert names(Net(), ["head.output", "*.output", "head.output"]).count("head.output") == 1


def test_a_shared_module_is_recorded_once_and_a_warning_says_so():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    with pytest.warns(LaminaWarning, match=r"2\.output is 0\.output"):
        assert names(model, "*.output") == ["0.output", "1.output"]


def test_a_shared_module_has_the_name_that_was_asked_for():
    layer = nn.Linear(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(nn.Sequential(layer, nn.ReLU(), layer), "2.output") == ["2.output"]


def test_names_leave_out_the_wrappers_of_torch_compile():
    model = Net()
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")  # pyright: ignore[reportArgumentType]
    assert "blocks.1.mlp.output" in names(model, "**.output")
    assert names(torch.compile(model, backend="eager"), "blocks.*.output") == [  # pyright: ignore[reportArgumentType]
        "blocks.0.output",
        "blocks.1.output",
    ]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("block.*.mlp.output", r"blocks\.0\.mlp\.output"),
        ("blocks.0.mpl.output", r"blocks\.0\.mlp\.output"),
        ("blocks.*.mlp", r"ends in its kind: blocks\.\*\.mlp\.output"),
        ("heads.output[0]", r"head\.output"),
        ("head.output.grd", "head.output"),
        ("", "there are: blocks"),
        ("blocks.*.hook_resid_post", r"names of TransformerLens are known for bert, .*gpt2, "),
    ],
)
def test_a_glob_that_matches_nothing_raises_with_the_nearest_names(pattern, hint):
    with pytest.raises(RecordingError, match="matches nothing in Net") as caught:
        resolve(Net(), [pattern])
    with pytest.raises(RecordingError, match=hint):
        raise caught.value


def test_what_is_no_site_raises():
    with pytest.raises(RecordingError, match="is no site"):
        resolve(Net(), [3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(RecordingError, match="options of the site"):
        resolve(Net(), {"output": 100})  # pyright: ignore[reportArgumentType]
