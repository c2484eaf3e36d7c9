"""Rows as sums of the atoms of a dictionary that their codes name: the sums, their loss, and the gradients of both."""
