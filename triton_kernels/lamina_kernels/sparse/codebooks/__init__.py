"""Codebooks: rows as the sum of their nearest codes, how codes learn, and quantisers of single numbers."""
