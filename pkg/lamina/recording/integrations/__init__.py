"""Recording inside of other people's training loops.

A file a library, imported only when it is named: `lamina.recording.integrations.lightning` and `.transformers` each
hold a `LaminaCallback`. `following` is what they share: a recorder that is told what happens, one event at a time.
`lightning_checkpoints` and `transformers_checkpoints` save what these loops train into a run, without recording.
Loops that are written out (plain, Accelerate) and models of TransformerLens and nnsight need nothing of this.
"""
