"""Numbers about a training: norms, the gradient noise scale, the log-partition of outputs.

`options` says which, `meters` takes them step by step. `norms` measures gradients, weights and updates with the sums of
`squares`, `noise_scale` compares gradients of two batch sizes, `log_partition` reads logits. `backward` tells when a
backward pass has ended; `found` is what they hand to the writer.
"""

from __future__ import annotations

from lamina.recording.numbers.meters import Meters
from lamina.recording.numbers.noise_scale import NoiseScale, two_batch_sizes
from lamina.recording.numbers.options import Numbers

__all__ = ["Meters", "NoiseScale", "Numbers", "two_batch_sizes"]
