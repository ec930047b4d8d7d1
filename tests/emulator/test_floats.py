"""Floating-point arithmetic: every instruction, on the numbers that go wrong, against exact fractions rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from helpers.instructions.exact_floats import (
    FORMATS,
    Value,
    added,
    bits_of,
    divided,
    is_negative,
    multiplied,
    root,
    value_of,
)
from helpers.instructions.ptx import check, evaluate, product

KINDS = ("f32", "f64", "f16", "bf16")
ROUNDINGS = ("rn", "rz", "rm", "rp")


def edges(kind: str) -> list[int]:
    form = FORMATS[kind]
    one, last = form.bias << form.mantissa_bits, (1 << form.mantissa_bits) - 1
    plain = [
        0, 1, last, last + 1,  # subnormal numbers and the first that is none
        one, one + 1, one - 1, one | last, one + (1 << form.mantissa_bits), form.largest, form.infinity, form.nan,
        one + (last // 3), (3 << form.mantissa_bits) + last // 5, form.infinity - (3 << form.mantissa_bits) + last // 7,
    ]  # fmt: skip
    return plain + [bits | 1 << form.bits - 1 for bits in plain if bits != form.nan]


def flush(value: Value, kind: str) -> Value:
    form = FORMATS[kind]
    if value != 0 and value == value and abs(value) < 2.0 ** (1 - form.bias):
        return -0.0 if is_negative(value) else 0.0
    return value


def wanted(kind: str, operation: Callable[..., Value], mode: str = "rn", ftz: bool = False) -> Callable[..., int]:
    def want(*bits: int) -> int:
        values = [value_of(each, kind) for each in bits]
        if ftz:
            values = [flush(value, kind) for value in values]
        result = bits_of(operation(*values), kind, mode)
        if kind == "f64" and result == FORMATS[kind].nan:
            return NAN_OF_F64
        return bits_of(flush(value_of(result, kind), kind), kind) if ftz else result

    return want


NAN_OF_F64 = -1  # any: f64's NaN is the host's


def check_floats(text: str, kind: str, rows: list[tuple[int, ...]], want: Callable[..., int]) -> None:
    sources = [kind] * len(rows[0])
    for row, bits in zip(rows, evaluate(text, kind, sources, rows), strict=True):
        expected = want(*row)
        if expected == NAN_OF_F64:
            assert math.isnan(value_of(bits, kind)), (text, row, hex(bits))
        else:
            assert bits == expected, (text, [hex(each) for each in row], hex(bits), hex(expected))


@pytest.mark.parametrize(("kind", "mode"), [*product(("f32", "f64"), ROUNDINGS), ("f16", "rn"), ("bf16", "rn")])
def test_sums_and_products(kind: str, mode: str) -> None:
    rows = product(edges(kind), edges(kind))
    check_floats(f"add.{mode}.{kind} $d, $a, $b;", kind, rows, wanted(kind, lambda a, b: added(a, b, mode), mode))
    check_floats(
        f"sub.{mode}.{kind} $d, $a, $b;", kind, rows, wanted(kind, lambda a, b: added(a, negated(b), mode), mode)
    )
    check_floats(f"mul.{mode}.{kind} $d, $a, $b;", kind, rows, wanted(kind, multiplied, mode))
    few = edges(kind)[::3]
    rows = product(edges(kind), few, few)
    fused = lambda a, b, c: added(multiplied(a, b), c, mode)  # noqa: E731
    check_floats(f"fma.{mode}.{kind} $d, $a, $b, $c;", kind, rows, wanted(kind, fused, mode))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_fused_halves_are_rounded_once(kind: str) -> None:
    """A product on a tie, and a summand too small for a double to tell."""
    form = FORMATS[kind]
    one = form.bias << form.mantissa_bits
    odd = one + (1 << form.mantissa_bits // 2)  # its square ends on a tie
    tiny = [1, 1 | 1 << form.bits - 1, 3 << form.mantissa_bits]
    rows = product([odd, one + 1, one + 3], [odd, one + 1, one | 1 << form.mantissa_bits - 1], tiny)
    check_floats(f"fma.rn.{kind} $d, $a, $b, $c;", kind, rows, wanted(kind, lambda a, b, c: added(multiplied(a, b), c)))


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("mode", ROUNDINGS)
def test_quotients_and_roots(kind: str, mode: str) -> None:
    rows = product(edges(kind), edges(kind))
    check_floats(f"div.{mode}.{kind} $d, $a, $b;", kind, rows, wanted(kind, divided, mode))
    one = value_of(FORMATS[kind].bias << FORMATS[kind].mantissa_bits, kind)
    rows = product(edges(kind))
    check_floats(f"rcp.{mode}.{kind} $d, $a;", kind, rows, wanted(kind, lambda a: divided(one, a), mode))
    check_floats(f"sqrt.{mode}.{kind} $d, $a;", kind, rows, wanted(kind, lambda a: root(a, kind), mode))


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("add.ftz.f32 $d, $a, $b;", added),
        ("mul.ftz.f32 $d, $a, $b;", multiplied),
        ("div.rn.ftz.f32 $d, $a, $b;", divided),
    ],
)
def test_flushing(text: str, operation: Callable[..., Value]) -> None:
    check_floats(text, "f32", product(edges("f32"), edges("f32")), wanted("f32", operation, ftz=True))


def test_flushing_halves() -> None:
    rows = product(edges("f16"), edges("f16"))
    check_floats("add.ftz.f16 $d, $a, $b;", "f16", rows, wanted("f16", added, ftz=True))


@pytest.mark.parametrize("kind", KINDS)
def test_signs(kind: str) -> None:
    bits = FORMATS[kind].bits
    rows = product(edges(kind))
    check(f"neg.{kind} $d, $a;", kind, [kind], rows, lambda a: a ^ 1 << bits - 1)
    check(f"abs.{kind} $d, $a;", kind, [kind], rows, lambda a: a & (1 << bits - 1) - 1)
    if bits >= 32:
        want = lambda a, b: b & (1 << bits - 1) - 1 | a & 1 << bits - 1  # noqa: E731
        check(f"copysign.{kind} $d, $a, $b;", kind, [kind] * 2, product(edges(kind), edges(kind)), want)


def extremum(a: Value, b: Value, larger: bool, nan: bool = False, xorsign: bool = False) -> Value:
    negative = is_negative(a) != is_negative(b)
    if xorsign:
        a, b = abs(a), abs(b)
    if a != a or b != b:
        result = math.nan if nan or (a != a and b != b) else b if a != a else a
    elif a == b == 0:
        signs = [is_negative(a), is_negative(b)]
        result = -0.0 if (all(signs) if larger else any(signs)) else 0.0
    else:
        result = max(a, b) if larger else min(a, b)
    return negated(result) if xorsign and negative and result == result else result


def negated(value: Value) -> Value:
    return -value if value != 0 else 0.0 if is_negative(value) else -0.0


@pytest.mark.parametrize("word", ["min", "max"])
@pytest.mark.parametrize("kind", KINDS)
def test_extrema(kind: str, word: str) -> None:
    rows = product(edges(kind), edges(kind))
    larger = word == "max"
    plain = wanted(kind, lambda a, b: extremum(a, b, larger))
    check_floats(f"{word}.{kind} $d, $a, $b;", kind, rows, plain)
    if kind == "f64":
        return
    check_floats(f"{word}.NaN.{kind} $d, $a, $b;", kind, rows, wanted(kind, lambda a, b: extremum(a, b, larger, True)))
    signs = wanted(kind, lambda a, b: extremum(a, b, larger, xorsign=True))
    check_floats(f"{word}.xorsign.abs.{kind} $d, $a, $b;", kind, rows, signs)
    if kind == "f32":
        few = edges(kind)[::3]
        three = wanted(kind, lambda a, b, c: extremum(extremum(a, b, larger), c, larger))
        check_floats(f"{word}.f32 $d, $a, $b, $c;", kind, product(few, few, few), three)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("word", ["add", "sub", "mul", "min", "max"])
def test_pairs(kind: str, word: str) -> None:
    """Each half as it is alone."""
    values = edges(kind)
    rows = product(values, values)
    alone = evaluate(f"{word}.{kind} $d, $a, $b;", kind, [kind] * 2, rows)
    doubled = [(a | c << 16, b | d << 16) for (a, b), (c, d) in zip(rows, rows[::-1], strict=True)]
    found = evaluate(f"{word}.{kind}x2 $d, $a, $b;", f"{kind}x2", [f"{kind}x2"] * 2, doubled)
    assert found == [low | high << 16 for low, high in zip(alone, alone[::-1], strict=True)]


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_fused_pairs(kind: str) -> None:
    few = edges(kind)[::3]
    rows = product(few, few, few)
    for tail in ("", ".relu"):
        alone = evaluate(f"fma.rn{tail}.{kind} $d, $a, $b, $c;", kind, [kind] * 3, rows)
        doubled = [
            tuple(x | y << 16 for x, y in zip(row, other, strict=True))
            for row, other in zip(rows, rows[::-1], strict=True)
        ]
        found = evaluate(f"fma.rn{tail}.{kind}x2 $d, $a, $b, $c;", f"{kind}x2", [f"{kind}x2"] * 3, doubled)
        assert found == [low | high << 16 for low, high in zip(alone, alone[::-1], strict=True)]
        negative = [bits for bits in alone if value_of(bits, kind) < 0]
        assert (negative == []) == (tail == ".relu")


def test_saturation() -> None:
    rows = product(edges("f32"), edges("f32"))

    def clamp(a: Value, b: Value) -> Value:
        result = added(a, b)
        return 0.0 if result != result or result <= 0 else min(result, 1)

    check_floats("add.sat.f32 $d, $a, $b;", "f32", rows, wanted("f32", clamp))


APPROXIMATE = {
    "ex2.approx.f32": lambda x: 2.0**x if x < 1024 else math.inf,
    "ex2.approx.ftz.f32": lambda x: 2.0**x if x < 1024 else math.inf,
    "lg2.approx.f32": lambda x: math.log2(x) if x > 0 else math.nan,
    "sin.approx.f32": math.sin,
    "cos.approx.f32": math.cos,
    "tanh.approx.f32": math.tanh,
    "rsqrt.approx.f32": lambda x: x**-0.5 if x > 0 else math.nan,
    "rcp.approx.f32": lambda x: 1 / x,
    "sqrt.approx.f32": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    "tanh.approx.f16": math.tanh,
    "tanh.approx.bf16": math.tanh,
    "ex2.approx.f16": lambda x: 2.0**x,
    "ex2.approx.ftz.bf16": lambda x: 2.0**x,
}


@pytest.mark.parametrize("word", APPROXIMATE)
def test_approximations(word: str) -> None:
    """A double's result, rounded to the type: PTX allows more, a GPU's bits are its own."""
    kind = word.rpartition(".")[2]
    values = [0.5, -0.5, 1.0, -1.5, 3.25, 7.0, 100.0, -13.0, 0.0078125]
    rows = [(bits_of(value, kind),) for value in values]
    check_floats(f"{word} $d, $a;", kind, rows, lambda a: bits_of(APPROXIMATE[word](float(value_of(a, kind))), kind))


def test_approximate_quotients() -> None:
    rows = product([0x3F800000, 0x40490FDB, 0xC2280000], [0x40400000, 0x3EAAAAAB])
    for word in ("div.full.f32", "div.approx.f32"):
        check_floats(f"{word} $d, $a, $b;", "f32", rows, wanted("f32", divided))
