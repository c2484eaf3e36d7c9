"""The product of a Gram matrix with V."""
