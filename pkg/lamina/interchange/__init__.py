"""Interchange: what other programs wrote comes into a run, and what a run holds goes out to them."""

from __future__ import annotations

from lamina.interchange.checkpoints_in import from_checkpoints
from lamina.interchange.checkpoints_out import to_checkpoint
from lamina.interchange.datasets import from_datasets
from lamina.interchange.dcp import from_dcp, to_dcp
from lamina.interchange.memmap import from_memmap
from lamina.interchange.npy import from_npy
from lamina.interchange.npz import from_npz
from lamina.interchange.parquet import from_parquet
from lamina.interchange.parquet_out import to_parquet
from lamina.interchange.safetensors import from_safetensors
from lamina.interchange.safetensors_out import to_safetensors
from lamina.interchange.zarr_out import to_zarr

__all__ = [
    "from_checkpoints",
    "from_datasets",
    "from_dcp",
    "from_memmap",
    "from_npy",
    "from_npz",
    "from_parquet",
    "from_safetensors",
    "to_checkpoint",
    "to_dcp",
    "to_parquet",
    "to_safetensors",
    "to_zarr",
]
