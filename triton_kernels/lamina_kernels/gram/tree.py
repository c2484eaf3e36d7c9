"""The tree of a kernel as Triton compiles it: one string, and what a kernel asks of it while it is compiled.

`terms.encoded` writes a leaf with the columns of its rows. Here it has the number of its base instead, so that rows of
any width run the same code: "kind:function:degree:base:place", with operators behind their two, as there.
"""

from __future__ import annotations

import triton


@triton.constexpr_function
def is_leaf(code):
    """Return whether a tree is a leaf."""
    return " " not in code


@triton.constexpr_function
def operator(code):
    """Return "+" or "*", of a tree that is no leaf."""
    return code[-1]


@triton.constexpr_function
def left(code):
    """Return the first of the two trees that a tree joins."""
    return " ".join(code.split()[: middle(code)])


@triton.constexpr_function
def right(code):
    """Return the second of them."""
    return " ".join(code.split()[middle(code) : -1])


@triton.constexpr_function
def kind(leaf):
    """Return what a leaf makes of its base: "dot", "cosine", "square", "root", "norm" or "own"."""
    return leaf.split(":")[0]


@triton.constexpr_function
def function(leaf):
    """Return the name of the function of a leaf."""
    return leaf.split(":")[1]


@triton.constexpr_function
def degree(leaf):
    """Return the whole number in the function of a leaf."""
    return int(leaf.split(":")[2])


@triton.constexpr_function
def base_of(leaf):
    """Return the number of the base of a leaf."""
    return int(leaf.split(":")[3])


@triton.constexpr_function
def place(leaf):
    """Return the row of a leaf in the parameters."""
    return int(leaf.split(":")[4])


@triton.constexpr_function
def leaves(code):
    """Return how many leaves a tree has; their places are the numbers below."""
    return len([token for token in code.split() if token not in "+*"])


@triton.constexpr_function
def leaf_at(code, number):
    """Return the leaf with this place."""
    return next(token for token in code.split() if token.split(":")[-1] == str(number))


@triton.constexpr_function
def holds(code, number):
    """Return whether a tree has the leaf with this place."""
    return any(token.split(":")[-1] == str(number) for token in code.split())


@triton.constexpr_function
def bases(code):
    """Return how many bases there are, by the code of all of them: "kind:norm:chunk:turn", one behind the other."""
    return len(code.split())


@triton.constexpr_function
def base_kind(code, number):
    """Return what a base is.

    "dot", "cosine", "square" and "scaled" (a "square" of one leaf, with norms times its weight) are products of rows,
    "root" is a squared distance, "norm" a distance, and "own" a value.
    """
    return code.split()[number].split(":")[0]


@triton.constexpr_function
def moves(code, number):
    """Return whether a base is a distance: its gradient by x_i is a sum of x_i - y_j, and not of y_j."""
    return base_kind(code, number) not in ("dot", "cosine")


@triton.constexpr_function
def norm(code, number):
    """Return p of a "norm"."""
    return float(code.split()[number].split(":")[1])


@triton.constexpr_function
def chunk(code, number):
    """Return how many columns are multiplied at a time."""
    return int(code.split()[number].split(":")[2])


@triton.constexpr_function
def is_whole(code, number):
    """Return whether these are all, so that a tile of rows of x is loaded once."""
    return code.split()[number].split(":")[3] == "whole"


@triton.constexpr_function
def together(code, number):
    """Return how many chunks are multiplied in a turn, where they are not all; see `dot_of_chunks`."""
    return int(code.split()[number].split(":")[3])


@triton.constexpr_function
def middle(code):
    """Return where the second of two trees starts among the tokens."""
    missing, tokens = 1, code.split()[:-1]
    for index in reversed(range(len(tokens))):
        missing += 1 if tokens[index] in "+*" else -1
        if missing == 0:
            return index
    raise ValueError(f"{code!r} is no tree")


@triton.constexpr_function
def parts(codes):
    """Return how many codes are written one behind the other."""
    return len(codes.split(";"))


@triton.constexpr_function
def part(codes, number):
    """Return one of them."""
    return codes.split(";")[number]
