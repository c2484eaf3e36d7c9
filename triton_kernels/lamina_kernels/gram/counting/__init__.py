"""How many rows of y lie within a radius of each row of x, and how distances are distributed."""
