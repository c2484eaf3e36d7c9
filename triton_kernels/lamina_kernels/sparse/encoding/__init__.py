"""Codes of rows under an encoder: its product with a selection behind it, so that what is not kept is never stored."""
