"""Sums over the rows of y, weighted by kernel values or by their softmax."""
