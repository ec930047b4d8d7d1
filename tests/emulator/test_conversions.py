"""cvt between all types, cvt.pack, mov's packing, comparisons and selections, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest

from helpers.exact_floats import FORMATS, Value, bits_of, value_of
from helpers.ptx import check, edges, evaluate, number, product, signed, size_of

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FLOATS = ("f16", "bf16", "f32", "f64")
INTEGER_ROUNDINGS = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


def float_edges(kind: str) -> list[int]:
    form = FORMATS[kind]
    values = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.75, 126.5, 127.5, 128.5, -128.5, 255.5, 3.0e4, -7.0e4, 1e-3]
    values += [2.0**31 - 1, 2.0**31, -(2.0**31), 2.0**32, 2.0**63, 2.0**64, -1.0, 0.49]
    bits = [bits_of(value, kind) for value in values]
    bits += [0, 1, 1 << form.mantissa_bits, form.largest, form.infinity, form.nan]
    return sorted({*bits, *(each | 1 << form.bits - 1 for each in bits[-6:-1])})


def limits(kind: str) -> tuple[int, int]:
    bits = 8 * size_of(kind)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "s" else (0, (1 << bits) - 1)


def clamp(value: int, kind: str) -> int:
    low, high = limits(kind)
    return max(low, min(high, value))


def register_bits(value: int, kind: str) -> int:
    """As it stands in a register of at least two bytes: extended by its sign, if it has one."""
    return number(value, kind)


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("result", INTEGERS)
def test_integers(result: str, source: str) -> None:
    rows = product(edges(source))
    if result != source:
        check(
            f"cvt.{result}.{source} $d, $a;", result, [source], rows, lambda a: register_bits(number(a, source), result)
        )
    check(
        f"cvt.sat.{result}.{source} $d, $a;",
        result,
        [source],
        rows,
        lambda a: clamp(number(a, source), result),
    )


@pytest.mark.parametrize("result", INTEGERS)
def test_registers_may_be_wider(result: str) -> None:
    """Of a wide source the low bits count; in a wide destination the value is extended."""
    rows = product(edges("u64"))
    for source in INTEGERS:
        text = f"{{ .reg .b64 %wide; cvt.{result}.{source} %wide, $a; mov.b64 $d, %wide; }}"
        want = lambda a, s=source: number(number(a, s), result)  # noqa: E731
        if result != source:
            check(text, "u64", ["u64"], rows, want)


@pytest.mark.parametrize("rounding", INTEGER_ROUNDINGS)
@pytest.mark.parametrize("source", FLOATS)
def test_floats_to_integers(source: str, rounding: str) -> None:
    for result in INTEGERS[2:]:
        bits = 8 * size_of(result)

        def want(a: int) -> int:
            value = value_of(a, source)
            if value != value:
                return 1 << 63 if bits == 64 else 0  # noqa: B023
            if abs(value) == math.inf:
                return limits(result)[value > 0]  # noqa: B023
            return clamp(INTEGER_ROUNDINGS[rounding](Fraction(value)), result)  # noqa: B023

        check(f"cvt.{rounding}.{result}.{source} $d, $a;", result, [source], product(float_edges(source)), want)


@pytest.mark.parametrize("rounding", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("result", FLOATS)
def test_integers_to_floats(result: str, rounding: str) -> None:
    for source in INTEGERS[2:]:
        values = [*edges(source), 2**24 + 1, 2**24 + 3, (1 << 53) + 1, (1 << 40) + (1 << 16), (1 << 62) + 1]
        check(
            f"cvt.{rounding}.{result}.{source} $d, $a;",
            result,
            [source],
            product([value % (1 << 8 * size_of(source)) for value in values]),
            lambda a, s=source: bits_of(Fraction(number(a, s)), result, rounding),
        )


def check_floats(text: str, result: str, source: str, want: Callable[[Value], int]) -> None:
    rows = product(float_edges(source))
    check(text, result, [source], rows, lambda a: want(value_of(a, source)))


@pytest.mark.parametrize("rounding", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(("result", "source"), [("f32", "f64"), ("f16", "f32"), ("bf16", "f32"), ("f16", "f64")])
def test_narrower_floats(result: str, source: str, rounding: str) -> None:
    check_floats(f"cvt.{rounding}.{result}.{source} $d, $a;", result, source, lambda v: bits_of(v, result, rounding))


@pytest.mark.parametrize(("result", "source"), [("f64", "f32"), ("f32", "f16"), ("f32", "bf16"), ("f64", "f16")])
def test_wider_floats(result: str, source: str) -> None:
    rows = product(float_edges(source))
    found = evaluate(f"cvt.{result}.{source} $d, $a;", result, [source], rows)
    for (bits,), got in zip(rows, found, strict=True):
        value = value_of(bits, source)
        assert got == bits_of(value, result) or (value != value and value_of(got, result) != value_of(got, result))


@pytest.mark.parametrize("rounding", INTEGER_ROUNDINGS)
def test_floats_to_whole_floats(rounding: str) -> None:
    def want(value: Value) -> int:
        if isinstance(value, float):
            return bits_of(value, "f32")
        whole = INTEGER_ROUNDINGS[rounding](value)
        return bits_of(Fraction(whole) if whole or value >= 0 else -0.0, "f32")

    check_floats(f"cvt.{rounding}.f32.f32 $d, $a;", "f32", "f32", want)


def test_modifiers() -> None:
    def unit(value: Value) -> int:
        return bits_of(0.0 if value != value or value <= 0 else min(value, 1), "f32")

    check_floats("cvt.sat.f32.f32 $d, $a;", "f32", "f32", unit)
    check_floats("cvt.rn.relu.f16.f32 $d, $a;", "f16", "f32", lambda v: bits_of(Fraction(0) if v < 0 else v, "f16"))
    check_floats("cvt.rn.satfinite.f16.f32 $d, $a;", "f16", "f32", lambda v: bits_of(v, "f16", finite=True))
    tiny = lambda v: v != 0 and abs(v) < Fraction(1, 2**126)  # noqa: E731
    flushed = lambda v: bits_of((-0.0 if v < 0 else Fraction(0)) if v == v and tiny(v) else v, "f32")  # noqa: E731
    check_floats("cvt.ftz.f32.f32 $d, $a;", "f32", "f32", flushed)


@pytest.mark.parametrize("rounding", ["rna", "rn", "rz"])
def test_tf32(rounding: str) -> None:
    """A NaN is the canonical one, but of .rna, which keeps what it can of the operand's."""

    def want(bits: int) -> int:
        value = value_of(bits, "f32")
        if value != value:
            return bits & ~0x1FFF if rounding == "rna" else 0x7FFFFFFF
        return bits_of(value, "tf32", rounding) << 13

    values = [0x3F801000, 0x3F803000, 0x3F800FFF, 0xBF801000, 0x7F7FFFFF, 0x00001000, 0x00000FFF]
    rows = product([*float_edges("f32"), *values])
    check(f"cvt.{rounding}.tf32.f32 $d, $a;", "b32", ["f32"], rows, want)


PAIRS = {"f16x2": "f16", "bf16x2": "bf16", "e4m3x2": "e4m3", "e5m2x2": "e5m2"}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("relu", ["", ".relu"])
def test_two_floats_to_a_pair(pair: str, relu: str) -> None:
    """The first source is the upper half; bytes are always .satfinite."""
    kind = PAIRS[pair]
    bits, finite = FORMATS[kind].bits, bits_are_bytes(kind)
    rounding = "rn.satfinite" if finite else "rn"

    def one(a: int) -> int:
        value = value_of(a, "f32")
        return bits_of(Fraction(0) if relu and value < 0 else value, kind, finite=finite)

    values = float_edges("f32") + [
        bits_of(value, "f32") for value in (448.0, 464.0, 465.0, 1.0625, 2**-9, 2**-10, 2**-17)
    ]
    rows = list(zip(values, values[5:] + values[:5], strict=True))
    check(f"cvt.{rounding}{relu}.{pair}.f32 $d, $a, $b;", pair, ["f32"] * 2, rows, lambda a, b: one(a) << bits | one(b))


def bits_are_bytes(kind: str) -> bool:
    return FORMATS[kind].bits == 8


@pytest.mark.parametrize("pair", ["e4m3x2", "e5m2x2"])
def test_bytes_and_halves(pair: str) -> None:
    kind = PAIRS[pair]
    rows = product([low | (255 - low) << 8 for low in range(256)])
    widened = lambda bits: bits_of(value_of(bits, kind), "f16")  # noqa: E731
    check(
        f"cvt.rn.f16x2.{pair} $d, $a;",
        "f16x2",
        [pair],
        rows,
        lambda a: widened(a >> 8) << 16 | widened(a & 255),
    )
    halves = float_edges("f16")
    rows = [(low | high << 16,) for low, high in zip(halves, halves[::-1], strict=True)]
    narrowed = lambda bits: bits_of(value_of(bits, "f16"), kind, finite=True)  # noqa: E731
    check(
        f"cvt.rn.satfinite.{pair}.f16x2 $d, $a;",
        pair,
        ["f16x2"],
        rows,
        lambda a: narrowed(a >> 16) << 8 | narrowed(a & 65535),
    )


@pytest.mark.parametrize("kind", ["u8", "s8", "u16", "s16"])
def test_packed_integers(kind: str) -> None:
    bits = 8 * size_of(kind)
    pack = lambda a, b: clamp(signed(a, 32), kind) % (1 << bits) << bits | clamp(signed(b, 32), kind) % (1 << bits)  # noqa: E731
    rows = product(edges("s32"), edges("s32"), [0, 0xFEDCBA98])
    if bits == 8:
        check(
            f"cvt.pack.sat.{kind}.s32.b32 $d, $a, $b, $c;",
            "b32",
            ["s32", "s32", "b32"],
            rows,
            lambda a, b, c: pack(a, b) | c << 16,
        )
    else:
        check(f"cvt.pack.sat.{kind}.s32 $d, $a, $b;", "b32", ["s32"] * 2, [row[:2] for row in rows], pack)


def test_moves() -> None:
    rows = product(edges("b32"), edges("b32"))
    check("mov.b64 $d, {$a, $b};", "b64", ["b32"] * 2, rows, lambda a, b: a | b << 32)
    check(
        "{ .reg .b32 %x, %y; mov.b64 {%x, %y}, $a; sub.u32 $d, %x, %y; }",
        "b32",
        ["b64"],
        product(edges("b64")),
        lambda a: a - (a >> 32),
    )
    check("mov.b32 $d, {$a, $b};", "b32", ["b16"] * 2, product(edges("b16"), edges("b16")), lambda a, b: a | b << 16)
    check(
        "{ .reg .b16 %x; mov.b32 {_, %x}, $a; mov.b16 $d, %x; }",
        "b16",
        ["b32"],
        product(edges("b32")),
        lambda a: a >> 16,
    )
    four = "{ .reg .b16 %w, %x, %y, %z; mov.b64 {%w, %x, %y, %z}, $a; mov.b64 $d, {%z, %y, %x, %w}; }"
    turned = lambda a: int.from_bytes(b"".join((a >> 16 * i & 65535).to_bytes(2, "big") for i in range(4)), "big")  # noqa: E731
    check(four, "b64", ["b64"], product(edges("b64")), turned)
    wide = "{ .reg .b128 %x; .reg .b64 %y, %z; mov.b128 %x, {$a, $b}; mov.b128 {%y, %z}, %x; sub.u64 $d, %y, %z; }"
    check(wide, "b64", ["b64"] * 2, product(edges("b64"), edges("b64")), lambda a, b: a - b)


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
