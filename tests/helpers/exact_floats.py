"""Floating-point formats by exact fractions: what an operation has to be, rounded once."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

Value = Fraction | float  # a float is an infinity, a NaN or a negative zero


class Format(NamedTuple):
    exponent_bits: int
    mantissa_bits: int
    infinities: bool = True

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        return (1 << self.exponent_bits - 1) - 1

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits

    @property
    def largest(self) -> int:
        return self.infinity - 1 if self.infinities else (1 << self.bits - 1) - 2

    @property
    def nan(self) -> int:
        """The one that instructions make."""
        return (1 << self.bits - 1) - 1


FORMATS = {
    "f16": Format(5, 10), "bf16": Format(8, 7), "f32": Format(8, 23), "f64": Format(11, 52),
    "e5m2": Format(5, 2), "e4m3": Format(4, 3, False), "tf32": Format(8, 10),
}  # fmt: skip


def value_of(bits: int, kind: str) -> Value:
    form = FORMATS[kind]
    magnitude, sign = bits & (1 << form.bits - 1) - 1, -1 if bits >> form.bits - 1 else 1
    if magnitude > (form.infinity if form.infinities else form.largest):
        return math.nan
    if form.infinities and magnitude == form.infinity:
        return sign * math.inf
    if magnitude == 0:
        return Fraction(0) if sign > 0 else -0.0
    exponent, mantissa = magnitude >> form.mantissa_bits, magnitude & (1 << form.mantissa_bits) - 1
    if exponent:
        mantissa |= 1 << form.mantissa_bits
    return sign * mantissa * Fraction(2) ** (max(exponent, 1) - form.bias - form.mantissa_bits)


def is_negative(value: Value) -> bool:
    return math.copysign(1, value) < 0 if isinstance(value, float) else value < 0


def round_quotient(value: Fraction, mode: str, negative: bool) -> int:
    whole, rest = divmod(value, 1)
    if mode == "rn":
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    elif mode == "rna":
        up = rest >= Fraction(1, 2)
    else:
        up = rest > 0 and (mode == "rm" if negative else mode == "rp")
    return int(whole) + up


def bits_of(value: Value, kind: str, mode: str = "rn", finite: bool = False) -> int:
    """`finite`: what is too large becomes the largest number."""
    form = FORMATS[kind]
    sign = 1 << form.bits - 1 if is_negative(value) else 0
    if isinstance(value, float) and math.isnan(value):
        return form.nan
    if isinstance(value, float) and math.isinf(value):
        return sign | (form.largest if finite else form.infinity)
    size = abs(Fraction(value))
    if size == 0:
        return sign
    exponent = max(exponent_of(size), 1 - form.bias)
    mantissa = round_quotient(size / Fraction(2) ** (exponent - form.mantissa_bits), mode, bool(sign))
    result = mantissa + (exponent + form.bias - 1 << form.mantissa_bits)
    if result > form.largest:
        stays = finite or mode == "rz" or mode == ("rp" if sign else "rm") or not form.infinities
        result = form.largest if stays else form.infinity
    return sign | result


def exponent_of(size: Fraction) -> int:
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= size else exponent - 1


def added(a: Value, b: Value, mode: str = "rn") -> Value:
    if (isinstance(a, float) and not math.isfinite(a)) or (isinstance(b, float) and not math.isfinite(b)):
        return float(a) + float(b) if max(abs(a), abs(b)) == math.inf else math.nan
    result = Fraction(a) + Fraction(b)
    if result == 0:
        both = is_negative(a) and is_negative(b)
        opposite = is_negative(a) != is_negative(b) or a != 0
        return -0.0 if (both and a == 0) or (mode == "rm" and opposite) else Fraction(0)
    return result


def multiplied(a: Value, b: Value) -> Value:
    negative = is_negative(a) != is_negative(b)
    if a != a or b != b:
        return math.nan
    if math.inf in (abs(a), abs(b)):
        return math.nan if 0 in (a, b) else -math.inf if negative else math.inf
    result = Fraction(a) * Fraction(b)
    return -0.0 if result == 0 and negative else result


def divided(a: Value, b: Value) -> Value:
    negative = is_negative(a) != is_negative(b)
    zero = -0.0 if negative else Fraction(0)
    infinity = -math.inf if negative else math.inf
    if a != a or b != b or (a == 0 and b == 0) or (abs(a) == math.inf and abs(b) == math.inf):
        return math.nan
    if abs(a) == math.inf or b == 0:
        return infinity
    return zero if a == 0 or abs(b) == math.inf else Fraction(a) / Fraction(b)


def root(a: Value, kind: str) -> Value:
    """To far more bits than the format has, and never on a tie unless it is exact."""
    if a != a or (a < 0):
        return math.nan
    if a == 0 or a == math.inf:
        return a
    scale = 4 * (FORMATS[kind].mantissa_bits + 64) + 2 * abs(exponent_of(Fraction(a)))
    scaled = Fraction(a) * 4**scale
    whole = math.isqrt(int(scaled))
    exact = scaled == whole * whole
    return Fraction(2 * whole + (not exact), 2 ** (scale + 1))
