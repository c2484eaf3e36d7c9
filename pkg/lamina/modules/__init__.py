"""Modules of torch as they come: wrapped, and divided among processes."""
