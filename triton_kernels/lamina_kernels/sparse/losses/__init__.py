"""How well codes and a dictionary reconstruct rows: losses that hold no second copy of the rows."""
