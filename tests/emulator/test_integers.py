"""Integer, logic and bit instructions: every one, on the numbers that go wrong, against Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helpers.ptx import check, edges, number, product, signed, size_of

KINDS = ("u16", "s16", "u32", "s32", "u64", "s64")


def divided(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def quotient(a: int, b: int) -> int:
    return -1 if b == 0 else divided(a, b)


def remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * divided(a, b)


TWO: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "div": quotient,
    "rem": remainder,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", TWO)
def test_two_operands(word: str, kind: str) -> None:
    rows = product(edges(kind), edges(kind))
    check(
        f"{word}.{kind} $d, $a, $b;",
        kind,
        [kind, kind],
        rows,
        lambda a, b: TWO[word](number(a, kind), number(b, kind)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_high_products(kind: str) -> None:
    bits = 8 * size_of(kind)
    rows = product(edges(kind), edges(kind), edges(kind)[:4])
    high = lambda a, b: number(a, kind) * number(b, kind) >> bits  # noqa: E731
    check(f"mul.hi.{kind} $d, $a, $b;", kind, [kind] * 2, [row[:2] for row in rows], high)
    check(f"mad.hi.{kind} $d, $a, $b, $c;", kind, [kind] * 3, rows, lambda a, b, c: high(a, b) + number(c, kind))
    check(
        f"mad.lo.{kind} $d, $a, $b, $c;", kind, [kind] * 3, rows, lambda a, b, c: number(a, kind) * number(b, kind) + c
    )


@pytest.mark.parametrize("kind", KINDS[:4])
def test_wide_products(kind: str) -> None:
    wide = f"{kind[0]}{2 * int(kind[1:])}"
    rows = product(edges(kind), edges(kind), edges(wide)[:5])
    check(
        f"mul.wide.{kind} $d, $a, $b;",
        wide,
        [kind] * 2,
        [row[:2] for row in rows],
        lambda a, b: number(a, kind) * number(b, kind),
    )
    check(
        f"mad.wide.{kind} $d, $a, $b, $c;",
        wide,
        [kind, kind, wide],
        rows,
        lambda a, b, c: number(a, kind) * number(b, kind) + c,
    )


@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_products_of_24_bits(kind: str) -> None:
    def cut(value: int) -> int:
        return signed(value, 24) if kind == "s32" else value % (1 << 24)

    rows = product(edges(kind), edges(kind), edges(kind)[:4])
    check(f"mul24.lo.{kind} $d, $a, $b;", kind, [kind] * 2, [row[:2] for row in rows], lambda a, b: cut(a) * cut(b))
    check(f"mad24.lo.{kind} $d, $a, $b, $c;", kind, [kind] * 3, rows, lambda a, b, c: cut(a) * cut(b) + c)


def limited(value: int) -> int:
    return max(-(1 << 31), min((1 << 31) - 1, value))


def test_saturation() -> None:
    rows = product(edges("s32"), edges("s32"), edges("s32"))
    s32 = ["s32"] * 3
    check("add.sat.s32 $d, $a, $b;", "s32", s32[:2], [r[:2] for r in rows], lambda a, b: limited(n(a) + n(b)))
    check("sub.sat.s32 $d, $a, $b;", "s32", s32[:2], [r[:2] for r in rows], lambda a, b: limited(n(a) - n(b)))
    check("mad.hi.sat.s32 $d, $a, $b, $c;", "s32", s32, rows, lambda a, b, c: limited((n(a) * n(b) >> 32) + n(c)))


def n(value: int) -> int:
    return number(value, "s32")


@pytest.mark.parametrize("kind", KINDS)
def test_sad(kind: str) -> None:
    rows = product(edges(kind), edges(kind), edges(kind)[:4])
    check(
        f"sad.{kind} $d, $a, $b, $c;",
        kind,
        [kind] * 3,
        rows,
        lambda a, b, c: abs(number(a, kind) - number(b, kind)) + c,
    )


@pytest.mark.parametrize("kind", KINDS[1::2])
def test_one_operand(kind: str) -> None:
    rows = product(edges(kind))
    check(f"neg.{kind} $d, $a;", kind, [kind], rows, lambda a: -number(a, kind))
    check(f"abs.{kind} $d, $a;", kind, [kind], rows, lambda a: abs(number(a, kind)))


@pytest.mark.parametrize("kind", ["u16x2", "s16x2"])
@pytest.mark.parametrize("word", ["add", "min", "max", "min.relu", "max.relu"])
def test_pairs(word: str, kind: str) -> None:
    half = kind[:3]
    values = [a | b << 16 for a, b in product(edges(half)[::2], edges(half)[1::2])]

    def one(a: int, b: int) -> int:
        result = TWO[word.split(".")[0]](number(a, half), number(b, half))
        return max(result, 0) if "relu" in word else result

    def want(a: int, b: int) -> int:
        return one(a, b) % 65536 | one(a >> 16, b >> 16) % 65536 << 16

    if kind == "s16x2" or "relu" not in word:
        check(f"{word}.{kind} $d, $a, $b;", kind, [kind] * 2, product(values, values), want)


@pytest.mark.parametrize("kind", ["s32", "u32", "s16x2"])
def test_minimum_of_one_kind_with_relu_or_three(kind: str) -> None:
    rows = product(edges("s32"), edges("s32"))
    if kind == "s32":
        check("min.relu.s32 $d, $a, $b;", kind, [kind] * 2, rows, lambda a, b: max(min(n(a), n(b)), 0))
        check("max.relu.s32 $d, $a, $b;", kind, [kind] * 2, rows, lambda a, b: max(n(a), n(b), 0))
    if kind != "s16x2":
        rows = product(edges(kind), edges(kind), edges(kind))
        for word, function in (("min", min), ("max", max)):
            check(
                f"{word}.{kind} $d, $a, $b, $c;",
                kind,
                [kind] * 3,
                rows,
                lambda a, b, c, f=function: f(number(a, kind), number(b, kind), number(c, kind)),
            )


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_carry_chains(kind: str) -> None:
    """Of twice the width, by two of them."""
    bits = 8 * size_of(kind)
    rows = product(*[edges(kind)[:7]] * 4)
    # a and b are the low halves, c and e the high ones; the result is the high half
    want = lambda f: lambda a, b, c, e: f(a | c << bits, b | e << bits) >> bits  # noqa: E731
    four = [kind] * 4
    low = f"{{ .reg .b{bits} %low; "
    check(f"{low} add.cc.{kind} %low, $a, $b; addc.{kind} $d, $c, $e; }}", kind, four, rows, want(lambda x, y: x + y))
    check(f"{low} sub.cc.{kind} %low, $a, $b; subc.{kind} $d, $c, $e; }}", kind, four, rows, want(lambda x, y: x - y))
    if kind[0] == "u":
        check(
            f"{low} mad.lo.cc.{kind} %low, $a, $b, $c; madc.hi.{kind} $d, $a, $b, $e; }}",
            kind,
            four,
            rows,
            lambda a, b, c, e: (a * b + (c | e << bits)) >> bits,
        )
    check(
        f"{low} add.cc.{kind} %low, $a, $b; addc.cc.{kind} %low, $c, $e; addc.{kind} $d, 0, 0; }}",
        kind,
        four,
        rows,
        lambda a, b, c, e: ((a | c << bits) + (b | e << bits)) >> 2 * bits,
    )


@pytest.mark.parametrize("kind", ["b16", "b32", "b64"])
def test_logic(kind: str) -> None:
    rows = product(edges(kind), edges(kind))
    for word, want in (("and", int.__and__), ("or", int.__or__), ("xor", int.__xor__)):
        check(f"{word}.{kind} $d, $a, $b;", kind, [kind] * 2, rows, want)
    check(f"not.{kind} $d, $a;", kind, [kind], product(edges(kind)), lambda a: ~a)
    check(f"cnot.{kind} $d, $a;", kind, [kind], product(edges(kind)), lambda a: int(a == 0))


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64"])
def test_shifts(kind: str) -> None:
    bits = 8 * size_of(kind)
    amounts = [0, 1, 7, bits - 1, bits, bits + 1, 64, 255, 1 << 31, (1 << 32) - 1]
    rows = product(edges(kind), amounts)
    check(f"shr.{kind} $d, $a, $b;", kind, [kind, "u32"], rows, lambda a, b: number(a, kind) >> b)
    if kind[0] == "b":
        check(f"shl.{kind} $d, $a, $b;", kind, [kind, "u32"], rows, lambda a, b: a << b if b < bits else 0)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shifts(mode: str) -> None:
    rows = product(edges("b32"), edges("b32"), [0, 1, 5, 31, 32, 33, 63, 64, (1 << 32) - 1])
    amount = (lambda c: c & 31) if mode == "wrap" else (lambda c: min(c, 32))
    b32 = ["b32"] * 3
    check(f"shf.r.{mode}.b32 $d, $a, $b, $c;", "b32", b32, rows, lambda a, b, c: (b << 32 | a) >> amount(c))
    check(f"shf.l.{mode}.b32 $d, $a, $b, $c;", "b32", b32, rows, lambda a, b, c: (b << 32 | a) << amount(c) >> 32)


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_fields(kind: str) -> None:
    bits = 8 * size_of(kind)
    places = [0, 1, 5, bits - 1, bits, 255, 256 + 3]
    lengths = [0, 1, 8, bits - 1, bits, 255, 256 + 4]

    def extracted(value: int, place: int, length: int) -> int:
        """As the manual's loop has it."""
        place, length = place & 255, length & 255
        sign = 0
        if kind[0] == "s" and length:
            sign = value >> min(place + length - 1, bits - 1) & 1
        result = 0
        for i in range(bits):
            inside = i < length and place + i < bits
            result |= (value >> (place + i) & 1 if inside else sign) << i
        return result

    def inserted(field: int, into: int, place: int, length: int) -> int:
        place, length = place & 255, length & 255
        for i in range(length):
            if place + i < bits:
                into = into & ~(1 << place + i) | (field >> i & 1) << place + i
        return into

    rows = product(edges(kind), places, lengths)
    check(f"bfe.{kind} $d, $a, $b, $c;", kind, [kind, "u32", "u32"], rows, extracted)
    rows = product(edges(kind)[::2], edges(kind)[1::2], places, lengths)
    plain = f"b{bits}"
    check(f"bfi.{plain} $d, $a, $b, $c, $e;", plain, [plain, plain, "u32", "u32"], rows, inserted)


@pytest.mark.parametrize("kind", ["b32", "b64"])
def test_counts(kind: str) -> None:
    bits = 8 * size_of(kind)
    rows = product(edges(kind))
    check(f"popc.{kind} $d, $a;", "u32", [kind], rows, int.bit_count)
    check(f"clz.{kind} $d, $a;", "u32", [kind], rows, lambda a: bits - a.bit_length())
    check(f"brev.{kind} $d, $a;", kind, [kind], rows, lambda a: int(f"{a:0{bits}b}"[::-1], 2))


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_find_highest(kind: str) -> None:
    bits = 8 * size_of(kind)
    rows = product(edges(kind))

    def place(value: int) -> int:
        value = number(value, kind)
        return (~value if value < 0 else value).bit_length() - 1

    check(f"bfind.{kind} $d, $a;", "u32", [kind], rows, place)
    check(
        f"bfind.shiftamt.{kind} $d, $a;",
        "u32",
        [kind],
        rows,
        lambda a: bits - 1 - place(a) if place(a) >= 0 else -1,
    )


@pytest.mark.parametrize("table", [0x00, 0x01, 0x80, 0x96, 0xE8, 0xCA, 0xF0, 0xCC, 0xAA, 0xFF])
def test_look_up(table: int) -> None:
    def want(a: int, b: int, c: int) -> int:
        return sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i for i in range(32))

    rows = product(*[edges("b32")] * 3)
    check(f"lop3.b32 $d, $a, $b, $c, {table};", "b32", ["b32"] * 3, rows, want)


def test_permute_bytes() -> None:
    def want(a: int, b: int, c: int) -> int:
        both = (b << 32 | a).to_bytes(8, "little")
        picked = [(both[c >> 4 * i & 7], c >> 4 * i & 8) for i in range(4)]
        return int.from_bytes(bytes((255 if byte & 128 else 0) if sign else byte for byte, sign in picked), "little")

    controls = [0x3210, 0x7654, 0x0123, 0xFEDC, 0x89AB, 0x5410, 0x7632, 0xFFFF1111, 0x0C4E]
    check("prmt.b32 $d, $a, $b, $c;", "b32", ["b32"] * 3, product(edges("b32"), edges("b32"), controls), want)


# Which bytes of {b, a} each mode takes, by the control's low two bits: the manual's table, the highest byte first.
PERMUTATIONS = {
    "f4e": ["3210", "4321", "5432", "6543"],
    "b4e": ["5670", "6701", "7012", "0123"],
    "rc8": ["0000", "1111", "2222", "3333"],
    "ecl": ["3210", "3211", "3222", "3333"],
    "ecr": ["0000", "1110", "2210", "3210"],
    "rc16": ["1010", "3232", "1010", "3232"],
}


@pytest.mark.parametrize("mode", PERMUTATIONS)
def test_permutation_modes(mode: str) -> None:
    def want(a: int, b: int, c: int) -> int:
        both = (b << 32 | a).to_bytes(8, "little")
        return int.from_bytes(bytes(both[int(index)] for index in PERMUTATIONS[mode][c & 3]), "big")

    rows = product([0x03020100, 0xFEDC1234], [0x07060504, 0x98765432], [0, 1, 2, 3, 6])
    check(f"prmt.b32.{mode} $d, $a, $b, $c;", "b32", ["b32"] * 3, rows, want)


@pytest.mark.parametrize("first", ["u32", "s32"])
@pytest.mark.parametrize("second", ["u32", "s32"])
def test_dot_products(first: str, second: str) -> None:
    def field(value: int, index: int, bits: int, kind: str) -> int:
        value = value >> index * bits & (1 << bits) - 1
        return signed(value, bits) if kind == "s32" else value

    rows = product(edges("b32"), edges("b32"), edges("b32")[:4])
    check(
        f"dp4a.{first}.{second} $d, $a, $b, $c;",
        "b32",
        ["b32"] * 3,
        rows,
        lambda a, b, c: c + sum(field(a, i, 8, first) * field(b, i, 8, second) for i in range(4)),
    )
    for half, start in (("lo", 0), ("hi", 2)):
        check(
            f"dp2a.{half}.{first}.{second} $d, $a, $b, $c;",
            "b32",
            ["b32"] * 3,
            rows,
            lambda a, b, c, s=start: c + sum(field(a, i, 16, first) * field(b, s + i, 8, second) for i in range(2)),
        )
