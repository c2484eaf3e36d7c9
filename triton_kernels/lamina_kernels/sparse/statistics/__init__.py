"""Statistics of units that stream over batches: states with `update`, `merge` and `result`."""
