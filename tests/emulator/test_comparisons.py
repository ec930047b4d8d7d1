"""Comparisons, selections and what is done with predicates, exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helpers.instructions.exact_floats import FORMATS, Value, float_edges, value_of
from helpers.instructions.ptx import check, edges, evaluate, number, product

FLOATS = ("f16", "bf16", "f32", "f64")
INTEGER_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64", "b16", "b32", "b64"])
def test_integer_comparisons(kind: str) -> None:
    rows = product(edges(kind), edges(kind))
    words = dict(INTEGER_COMPARISONS)
    if kind[0] == "b":
        words = {word: words[word] for word in ("eq", "ne")}
    if kind[0] == "u":
        words |= {"lo": words["lt"], "ls": words["le"], "hi": words["gt"], "hs": words["ge"]}
    for word, compare in words.items():
        check(
            f"setp.{word}.{kind} $d, $a, $b;",
            "pred",
            [kind] * 2,
            rows,
            lambda a, b, c=compare: c(number(a, kind), number(b, kind)),
        )


@pytest.mark.parametrize("kind", FLOATS)
def test_float_comparisons(kind: str) -> None:
    rows = product([*float_edges(kind)[::2], FORMATS[kind].nan], float_edges(kind)[1::2])
    nan = lambda a, b: a != a or b != b  # noqa: E731
    words = {word: (lambda a, b, c=compare: not nan(a, b) and c(a, b)) for word, compare in INTEGER_COMPARISONS.items()}
    words |= {
        word + "u": (lambda a, b, c=compare: nan(a, b) or c(a, b)) for word, compare in INTEGER_COMPARISONS.items()
    }
    words |= {"num": lambda a, b: not nan(a, b), "nan": nan}
    for word, compare in words.items():
        check(
            f"setp.{word}.{kind} $d, $a, $b;",
            "pred",
            [kind] * 2,
            rows,
            lambda a, b, c=compare: c(value_of(a, kind), value_of(b, kind)),
        )


def test_comparisons_combined() -> None:
    rows = product(edges("s32")[::2], edges("s32")[1::2], [0, 1])
    operations: dict[str, Callable[[bool, bool], bool]] = {
        "and": lambda p, q: p and q,
        "or": lambda p, q: p or q,
        "xor": lambda p, q: p != q,
    }
    less = lambda a, b: number(a, "s32") < number(b, "s32")  # noqa: E731
    for word, combine in operations.items():
        for bang in ("", "!"):
            third = lambda c, bang=bang: c != bool(bang)  # noqa: E731
            check(
                f"setp.lt.{word}.s32 $d, $a, $b, {bang}$c;",
                "pred",
                ["s32", "s32", "pred"],
                rows,
                lambda a, b, c, f=combine, t=third: f(less(a, b), t(c)),
            )
            second = f"setp.lt.{word}.s32 _|$d, $a, $b, {bang}$c;"
            check(
                second,
                "pred",
                ["s32", "s32", "pred"],
                rows,
                lambda a, b, c, f=combine, t=third: f(not less(a, b), t(c)),
            )


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_comparisons_of_pairs(kind: str) -> None:
    values = float_edges(kind)
    pairs = [low | high << 16 for low, high in zip(values, values[::-1], strict=True)]
    for word in ("lt", "geu", "nan"):
        for half, text in enumerate((f"setp.{word}.{kind}x2 $d|_, $a, $b;", f"setp.{word}.{kind}x2 _|$d, $a, $b;")):
            found = evaluate(text, "pred", [f"{kind}x2"] * 2, product(pairs, pairs[::4]))
            halves = [(a >> 16 * half & 65535, b >> 16 * half & 65535) for a, b in product(pairs, pairs[::4])]
            assert found == evaluate(f"setp.{word}.{kind} $d, $a, $b;", "pred", [kind] * 2, halves)


def test_set() -> None:
    rows = product(edges("s32"), edges("s32"))
    less = lambda a, b: number(a, "s32") < number(b, "s32")  # noqa: E731
    check("set.lt.u32.s32 $d, $a, $b;", "u32", ["s32"] * 2, rows, lambda a, b: -int(less(a, b)))
    check("set.lt.f32.s32 $d, $a, $b;", "f32", ["s32"] * 2, rows, lambda a, b: 0x3F800000 * less(a, b))
    halves = product(float_edges("f16"), float_edges("f16"))
    lower = lambda a, b: value_of(a, "f16") < value_of(b, "f16")  # noqa: E731
    check("set.lt.f16.f16 $d, $a, $b;", "f16", ["f16"] * 2, halves, lambda a, b: 0x3C00 * lower(a, b))
    doubled = [(a | b << 16, b | a << 16) for a, b in halves]
    want = lambda a, b: 0x3C00 * lower(a & 65535, b & 65535) | 0x3C00 * lower(a >> 16, b >> 16) << 16  # noqa: E731
    check("set.lt.f16x2.f16x2 $d, $a, $b;", "f16x2", ["f16x2"] * 2, doubled, want)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("word", ["gt", "nan"])
def test_masks_of_pairs(word: str, kind: str) -> None:
    """All ones in the half that compares so."""
    values = [*float_edges(kind), FORMATS[kind].nan]
    rows = [(a | b << 16, b | c << 16) for a, b, c in zip(values, values[3:] + values[:3], values[::-1], strict=True)]

    def one(a: int, b: int) -> int:
        x, y = value_of(a & 65535, kind), value_of(b & 65535, kind)
        nan = x != x or y != y
        return 0xFFFF * (nan if word == "nan" else not nan and x > y)

    want = lambda a, b: one(a, b) | one(a >> 16, b >> 16) << 16  # noqa: E731
    check(f"set.{word}.u32.{kind}x2 $d, $a, $b;", "u32", ["b32"] * 2, rows, want)


def test_selections() -> None:
    for kind in ("b16", "b32", "b64"):
        rows = product(edges(kind)[:4], edges(kind)[4:], [0, 1])
        check(f"selp.{kind} $d, $a, $b, $c;", kind, [kind, kind, "pred"], rows, lambda a, b, c: a if c else b)
    rows = product(edges("b32")[:4], edges("b32")[4:], edges("s32"))
    check(
        "slct.b32.s32 $d, $a, $b, $c;",
        "b32",
        ["b32", "b32", "s32"],
        rows,
        lambda a, b, c: a if number(c, "s32") >= 0 else b,
    )
    rows = product(edges("b64")[:4], edges("b64")[4:], float_edges("f32"))
    check(
        "slct.b64.f32 $d, $a, $b, $c;",
        "b64",
        ["b64", "b64", "f32"],
        rows,
        lambda a, b, c: a if value_of(c, "f32") >= 0 else b,
    )


def test_predicates() -> None:
    rows = product([0, 1], [0, 1], [0, 1])
    two = {"and": int.__and__, "or": int.__or__, "xor": int.__xor__}
    for word, want in two.items():
        check(f"{word}.pred $d, $a, $b;", "pred", ["pred"] * 2, [row[:2] for row in rows], want)
        check(
            f"{word}.pred $d, $a, !$b;",
            "pred",
            ["pred"] * 2,
            [row[:2] for row in rows],
            lambda a, b, f=want: f(a, 1 - b),
        )
    check("not.pred $d, $a;", "pred", ["pred"], [(0,), (1,)], lambda a: 1 - a)
    check("mov.pred $d, $a;", "pred", ["pred"], [(0,), (1,)], lambda a: a)
    check("selp.pred $d, $a, $b, $c;", "pred", ["pred"] * 3, rows, lambda a, b, c: a if c else b)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_properties(kind: str) -> None:
    form = FORMATS[kind]
    exponent = lambda a: a >> form.mantissa_bits & (1 << form.exponent_bits) - 1  # noqa: E731
    fraction = lambda a: a & (1 << form.mantissa_bits) - 1  # noqa: E731
    top = (1 << form.exponent_bits) - 1
    properties: dict[str, Callable[[int], bool]] = {
        "finite": lambda a: exponent(a) != top,
        "infinite": lambda a: exponent(a) == top and not fraction(a),
        "number": lambda a: exponent(a) != top or not fraction(a),
        "notanumber": lambda a: exponent(a) == top and fraction(a) != 0,
        "normal": lambda a: 0 < exponent(a) < top,
        "subnormal": lambda a: exponent(a) == 0 and fraction(a) != 0,
    }
    for word, want in properties.items():
        check(f"testp.{word}.{kind} $d, $a;", "pred", [kind], product(float_edges(kind)), want)
