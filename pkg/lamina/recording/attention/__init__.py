"""What attention did, in a few numbers a query and head, without the matrix of queries and keys.

`inputs` holds what one call of attention was given and names the statistics, `reference` computes them from the matrix,
`blocked` from tiles of it. `watch` reads the calls of an attention module; `interface` finds those of Transformers and
stands in their way, `multihead` does so for `torch.nn.MultiheadAttention`.
"""

from __future__ import annotations

from lamina.recording.attention.inputs import STATISTICS, Attention

__all__ = ["STATISTICS", "Attention"]
