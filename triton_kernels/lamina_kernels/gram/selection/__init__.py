"""The rows of y that are nearest to each row of x: k of them, or one with the sums of its members."""
