"""The pointwise functions f(u; a) of kernels and their slopes on tiles; `functions` says what they are."""

from __future__ import annotations

import triton
import triton.language as tl

# A minimum, or a maximum, that dropped NaN would hide a broken row.
KEEP_NAN = tl.constexpr(tl.PropagateNan.ALL)
LOG2E = tl.constexpr(1.4426950408889634)
PI = tl.constexpr(3.141592653589793)
TINY = tl.constexpr(1.1754943508222875e-38)

# (arcsin x / x - 1) / x² as a polynomial of x² up to 1/4, interpolated at the nodes of Chebyshev: 1e-9 of x off.
ASIN_0 = tl.constexpr(0.1666666633742721)
ASIN_1 = tl.constexpr(0.07500094543702736)
ASIN_2 = tl.constexpr(0.044599401490536664)
ASIN_3 = tl.constexpr(0.03110066304225682)
ASIN_4 = tl.constexpr(0.017149237233349848)
ASIN_5 = tl.constexpr(0.03369084873528785)

# log(1 + x) / x as a polynomial of x up to 1, interpolated likewise: 1.5e-7 of the logarithm off in single precision.
LOG_1 = tl.constexpr(-0.49999892711639404)
LOG_2 = tl.constexpr(0.33329710364341736)
LOG_3 = tl.constexpr(-0.24951615929603577)
LOG_4 = tl.constexpr(0.1966327428817749)
LOG_5 = tl.constexpr(-0.1526966691017151)
LOG_6 = tl.constexpr(0.10543623566627502)
LOG_7 = tl.constexpr(-0.056373611092567444)
LOG_8 = tl.constexpr(0.019542526453733444)
LOG_9 = tl.constexpr(-0.0031760570127516985)


@triton.constexpr_function
def is_half(number):
    """Return whether the binary digits of a whole number end with 0."""
    return number % 2 == 0


@triton.constexpr_function
def half_of(number):
    """Return half of a whole number, rounded down."""
    return number // 2


@triton.jit
def exp(u):
    """Return e^u."""
    return tl.exp2(u * LOG2E)


@triton.jit
def log1p(x):
    """Return log(1 + x) for x at least 0, with the digits that 1 + x loses near 0."""
    y = 1.0 + x
    near = tl.log(y) * (x / tl.where(y == 1.0, 1.0, y - 1.0))
    return tl.where(x > 1.0, tl.log(y), tl.where(y == 1.0, x, near))


@triton.jit
def softplus(u):
    """Return log(1 + e^u), small ones with all of their digits: a polynomial of e^-|u|, without a logarithm."""
    x = exp(-tl.abs(u))
    p = LOG_9
    p = p * x + LOG_8
    p = p * x + LOG_7
    p = p * x + LOG_6
    p = p * x + LOG_5
    p = p * x + LOG_4
    p = p * x + LOG_3
    p = p * x + LOG_2
    p = p * x + LOG_1
    return tl.maximum(u, 0.0) + (x + x * x * p)


@triton.jit
def asin(x):
    """Return arcsin x for x from 0 to 1, to about 2 units in the last place: a polynomial, of what is left near 1."""
    far = x > 0.5
    z = tl.where(far, 0.5 - 0.5 * x, x * x)
    root = tl.where(far, tl.sqrt(z), x)
    p = ASIN_5
    p = p * z + ASIN_4
    p = p * z + ASIN_3
    p = p * z + ASIN_2
    p = p * z + ASIN_1
    p = p * z + ASIN_0
    near = root + root * (z * p)
    return tl.where(far, near * -2.0 + 0.5 * PI, near)


@triton.jit
def power(x, DEGREE: tl.constexpr):
    """Return x to a whole number from 0 on."""
    if DEGREE == 0:
        return tl.full(x.shape, 1.0, tl.float32)
    elif DEGREE == 1:
        return x
    elif is_half(DEGREE):
        return power(x * x, half_of(DEGREE))
    else:
        return x * power(x * x, half_of(DEGREE))


@triton.jit
def half_angle(u):
    """Return sin and cos of half of an angle, and pi less the angle, where -u is the chord of it."""
    # The minimum of NaN stays NaN.
    sin = u * -0.5
    sin = tl.where(sin > 1.0, 1.0, sin)
    return sin, tl.sqrt(tl.where(sin < 1.0, 1.0 - sin * sin, sin - sin)), asin(sin) * -2.0 + PI


@triton.jit
def angle(u, DEGREE: tl.constexpr):
    """Return J_n of an angle over pi."""
    sin_half, cos_half, rest = half_angle(u)  # pyright: ignore[reportGeneralTypeIssues]
    sin, cos = 2.0 * sin_half * cos_half, 1.0 - 2.0 * sin_half * sin_half
    if DEGREE == 0:
        return rest * (1.0 / PI)
    elif DEGREE == 1:
        return (sin + rest * cos) * (1.0 / PI)
    else:
        return (3.0 * sin * cos + rest * (1.0 + 2.0 * cos * cos)) * (1.0 / PI)


@triton.jit
def angle_slope(u, DEGREE: tl.constexpr):
    """Return the derivative of `angle` by u."""
    sin_half, cos_half, rest = half_angle(u)  # pyright: ignore[reportGeneralTypeIssues]
    if DEGREE == 0:
        return tl.where(cos_half > 0.0, 1.0 / (tl.where(cos_half > 0.0, cos_half, 1.0) * PI), cos_half)
    elif DEGREE == 1:
        return rest * sin_half * (2.0 / PI)
    else:
        cos = 1.0 - 2.0 * sin_half * sin_half
        return sin_half * (2.0 * sin_half * cos_half + rest * cos) * (8.0 / PI)


@triton.jit
def log_of_distance(u):
    """Return log(-u), that of 0 as if it were the smallest normal number."""
    return tl.log(tl.maximum(-u, TINY, propagate_nan=KEEP_NAN))


@triton.constexpr_function
def has_shape(name):
    """Return whether a function has a number besides its argument."""
    return name in ("rational", "power", "softplus", "logarithm")


@triton.jit
def value(u, a, FUNCTION: tl.constexpr, DEGREE: tl.constexpr):
    """Return f(u; a); "exp" takes u times log2(e)."""
    if FUNCTION == "identity":
        return u
    elif FUNCTION == "exp":
        return tl.exp2(u)
    elif FUNCTION == "matern3":
        return (1.0 - u) * exp(u)
    elif FUNCTION == "matern5":
        return (1.0 - u + u * u * (1.0 / 3.0)) * exp(u)
    elif FUNCTION == "rational":
        return exp(-a * log1p(u * (-1.0 / a)))
    elif FUNCTION == "inverse":
        return tl.rsqrt(1.0 - u)
    elif FUNCTION == "power":
        return power(u + a, DEGREE)
    elif FUNCTION == "softplus":
        return softplus(u + a)
    elif FUNCTION == "logarithm":
        return -a * log_of_distance(u)
    else:
        tl.static_assert(FUNCTION == "angle")
        return angle(u, DEGREE)


@triton.jit
def slope(u, k, a, FUNCTION: tl.constexpr, DEGREE: tl.constexpr):
    """Return df/du from u (as `value` takes it) and k = f(u; a)."""
    if FUNCTION == "identity":
        return tl.full(u.shape, 1.0, tl.float32)
    elif FUNCTION == "exp":
        return k
    elif FUNCTION == "matern3":
        return -u * exp(u)
    elif FUNCTION == "matern5":
        return u * (u - 1.0) * exp(u) * (1.0 / 3.0)
    elif FUNCTION == "rational":
        return k / (1.0 - u * (1.0 / a))
    elif FUNCTION == "inverse":
        return 0.5 * k * k * k
    elif FUNCTION == "power":
        return DEGREE * power(u + a, DEGREE - 1)
    elif FUNCTION == "softplus":
        return 1.0 / (1.0 + exp(-(u + a)))
    elif FUNCTION == "logarithm":
        return tl.where(u < 0.0, -a / tl.where(u < 0.0, u, -1.0), 0.0)
    else:
        tl.static_assert(FUNCTION == "angle")
        return angle_slope(u, DEGREE)


@triton.jit
def by_shape(u, k, a, FUNCTION: tl.constexpr, DEGREE: tl.constexpr):
    """Return df/da, of a function that `has_shape`."""
    if FUNCTION == "rational":
        v = u * (-1.0 / a)
        return k * (v / (1.0 + v) - log1p(v))
    elif FUNCTION == "logarithm":
        return -log_of_distance(u)
    else:
        return slope(u, k, a, FUNCTION, DEGREE)
