"""Kinds of GPU, by the name of what a kernel is compiled for, in plain torch."""

from __future__ import annotations


def kind(target: str) -> str:
    """Return "hopper", "blackwell" (of data centers), "nvidia" for others of NVIDIA, or "amd"."""
    kinds = {"90": "hopper", "100": "blackwell", "103": "blackwell"}
    return "amd" if target.startswith("hip:") else kinds.get(target.removeprefix("cuda:"), "nvidia")


def accurate(target: str) -> str:
    """Return how a target multiplies float32 accurately on its matrix units.

    Those of NVIDIA take bfloat16: six products of the three parts of a number. Those of AMD take float32.
    """
    return "ieee" if target.startswith("hip:") else "bf16x6"
