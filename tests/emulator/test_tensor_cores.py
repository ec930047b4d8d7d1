"""wgmma through random descriptors and mma.sync through its fragments, against numpy and against the interpreter."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from cnnkernels import _emulator
from helpers.emulated.launches import MODES, launch
from helpers.instructions.ptx import kernel
from helpers.native import Host, PrimitiveRunner, interpreter_tests
from helpers.operands import FORMATS, accumulator_dtype, integers, to_bits
from oracles import swizzle_wgmma

IMAGE = 32768
TYPES = {"float16": "f16", "bfloat16": "bf16", "tf32": "tf32", "int8": "s8", "uint8": "u8"}


def wgmma_ptx(name: str, columns: int, fields: list[list[int]], more: str, scale_d: int = 1, sums: str = "") -> str:
    """Shared memory from `image`, one product with d as accumulators, d back; a thread's are dense in memory."""
    kind = TYPES.get(name, name)
    sums = sums or ("s32" if kind in ("s8", "u8") else "f32")
    second = "s8" if kind == "u8" else kind
    count = columns // (4 if sums == "f16" else 2)
    d = [f"%d_{i}" for i in range(count)]
    lines = [
        ".reg .b64 %at, %a, %b; .reg .b32 %thread, %offset, %word, %start;",
        f".reg .b32 {', '.join(d)};" if d else "",
        "mov.u32 %thread, %tid.x; shl.b32 %offset, %thread, 2;",
        "COPY: cvt.u64.u32 %at, %offset; add.u64 %at, %at, %image; ld.global.u32 %word, [%at];",
        "mov.u32 %start, memory; add.u32 %start, %start, %offset; st.shared.u32 [%start], %word;",
        f"add.u32 %offset, %offset, 512; setp.lt.u32 %p1, %offset, {IMAGE}; @%p1 bra COPY;",
        "fence.proxy.async.shared::cta; bar.sync 0;",
        "mov.u32 %start, memory; and.b32 %start, %start, 0x3ffff; shr.u32 %start, %start, 4; cvt.u64.u32 %at, %start;",
    ]
    for operand, field in zip("ab", fields, strict=True):
        lines.append(f"add.u64 %{operand}, %at, {descriptor(field)};")
    lines.append(f"mad.wide.u32 %at, %thread, {4 * count}, %out;")
    lines += [f"ld.global.b32 {register}, [%at + {4 * i}];" for i, register in enumerate(d)]
    lines += [
        "wgmma.fence.sync.aligned;",
        f"setp.ne.u32 %p2, {scale_d}, 0;",
        f"wgmma.mma_async.sync.aligned.m64n{columns}k{256 // bits_of(kind)}.{sums}.{kind}.{second}",
        f"  {{{', '.join(d)}}}, %a, %b, %p2{more};",
        "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;",
    ]
    lines += [f"st.global.b32 [%at + {4 * i}], {register};" for i, register in enumerate(d)]
    outside = f".shared .align 1024 .b8 memory[{IMAGE}];\n"
    return kernel("\n".join(lines), parameters=["image", "out"], outside=outside)


def bits_of(kind: str) -> int:
    return {"f16": 16, "bf16": 16, "tf32": 32}.get(kind, 8)


def descriptor(fields: list[int]) -> int:
    """Of a start in `memory`; the oracle's is the same, as that begins at a multiple of 1024."""
    _, start, swizzle, leading, stride, _ = fields
    return start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | [0, 3, 2, 1][swizzle] << 62


def random_operand(rng: random.Random, rows: int, mn_major: bool) -> list[int]:
    """mn_major, start, swizzle, leading, stride, step: anywhere in the image, whatever overlaps."""
    swizzle = rng.randint(0, 3)
    most = 12000 * 16 // max(rows, 16) // 16
    leading, stride = 16 * rng.randint(1, min(most, 64)), 16 * rng.randint(1, min(most, 64))
    return [int(mn_major), 16 * rng.randint(0, 500), swizzle, leading, stride, 0]


def small_numbers(name: str, rng: np.random.Generator, most: int = 3) -> np.ndarray:
    """An image of memory in which every element is a small integer of the type."""
    size = to_bits(np.zeros(1), name).itemsize
    return np.ascontiguousarray(to_bits(rng.integers(-most, most + 1, IMAGE // size), name)).view(np.uint8)


def numbers(bits: np.ndarray, name: str) -> np.ndarray:
    if name == "float16":
        return bits.view(np.float16).astype(np.float64)
    if name == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view({"tf32": np.float32, "int8": np.int8, "uint8": np.uint8}[name]).astype(np.float64)


def product(image: np.ndarray, name: str, fields: list[list[int]], columns: int) -> np.ndarray:
    second = "int8" if name == "uint8" else name
    found = []
    for field, rows, kind in zip(fields, (64, columns), (name, second), strict=True):
        dtype = to_bits(np.zeros(1), kind).dtype
        bits = swizzle_wgmma.operand(image, descriptor(field), bool(field[0]), rows, dtype)
        found.append(numbers(bits, kind))
    return found[0] @ found[1].T


def run_wgmma(ptx: str, image: np.ndarray, d: np.ndarray, **mode: Any) -> np.ndarray:
    d = np.ascontiguousarray(d)
    launch(ptx, "test", [torch.from_numpy(image), torch.from_numpy(d)], block=(128, 1, 1), **mode)
    return d


FORMS = [
    *((name, (False, False)) for name in TYPES),
    *((name, majors) for name in ("float16", "bfloat16") for majors in ((True, True), (True, False), (False, True))),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "majors"), FORMS)
def test_random_descriptors(name, majors, seed):
    """The interpreter, which knows nothing of the emulator's model, finds the same in the same memory."""
    rng, generator = random.Random(f"{name} {majors} {seed}"), np.random.default_rng(seed)
    columns = rng.choice([8, 24, 64] if name != "bfloat16" else [8, 40, 72])
    columns = columns if not any(majors) else rng.choice([8, 24, 64])
    fields = [random_operand(rng, 64, majors[0]), random_operand(rng, columns, majors[1])]
    image = small_numbers("int8" if name == "uint8" else name, generator)
    before = generator.integers(-100, 100, (64, columns)).astype(accumulator_dtype(name))
    expected = product(image, name, fields, columns) + before
    more = (
        "" if name in ("int8", "uint8") else ", 1, 1" + (f", {fields[0][0]}, {fields[1][0]}" if "float" in name else "")
    )
    ptx = wgmma_ptx(name, columns, fields, more)
    for mode in MODES:
        d = run_wgmma(ptx, image, swizzle_wgmma.matrix_to_accumulators(before), **mode)
        assert np.array_equal(swizzle_wgmma.accumulators_to_matrix(d), expected.astype(d.dtype)), mode
    there = swizzle_wgmma.matrix_to_accumulators(before)
    operands = Host(*fields[0]), Host(*fields[1])
    interpreter = PrimitiveRunner(interpreter_tests(), "cpu")
    interpreter.run("wgmma_product", FORMATS[name], columns, *operands, 1, True, image, len(image), 0, there)
    assert np.array_equal(there, d)


def test_negation_and_scale():
    fields = [[0, 0, 3, 16, 1024, 0], [0, 8192, 3, 16, 1024, 0]]
    image = small_numbers("float16", np.random.default_rng(0))
    before = np.full((64, 16), 5, np.float32)
    plain = product(image, "float16", fields, 16)
    for scale, signs, expected in [
        (0, (1, 1), plain),
        (1, (-1, 1), before - plain),
        (1, (1, -1), before - plain),
        (0, (-1, -1), plain),
    ]:
        ptx = wgmma_ptx("float16", 16, fields, f", {signs[0]}, {signs[1]}, 0, 0", scale)
        d = run_wgmma(ptx, image, swizzle_wgmma.matrix_to_accumulators(before))
        assert np.array_equal(swizzle_wgmma.accumulators_to_matrix(d), expected.astype(np.float32))


@pytest.mark.parametrize(("kind", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
@pytest.mark.parametrize("sums", ["f32", "f16"])
def test_eight_bit_floats(kind, dtype, sums):
    fields = [[0, 0, 3, 16, 1024, 0], [0, 8192, 2, 16, 512, 0]]
    values = torch.from_numpy(np.random.default_rng(0).integers(-3, 4, IMAGE)).float().to(dtype)
    image = values.view(torch.uint8).numpy().copy()
    found = [
        swizzle_wgmma.operand(image, descriptor(field), False, rows, np.uint8)
        for field, rows in zip(fields, (64, 16), strict=True)
    ]
    a, b = (torch.from_numpy(bits).view(dtype).double().numpy() for bits in found)
    before = np.full((64, 16), 5, np.float32 if sums == "f32" else np.float16)
    d = run_wgmma(wgmma_ptx(kind, 16, fields, ", 1, 1", sums=sums), image, swizzle_wgmma.matrix_to_accumulators(before))
    assert np.array_equal(swizzle_wgmma.accumulators_to_matrix(d), (a @ b.T + before).astype(d.dtype))


def test_a_wait_is_the_whole_warpgroups():
    """When the first warp has waited, it may write over operands, though other warps may not have come so far."""
    fields = [[0, 0, 3, 16, 1024, 0], [0, 8192, 3, 16, 1024, 0]]
    image, before = small_numbers("float16", np.random.default_rng(0)), np.zeros((64, 16), np.float32)
    wait = "wgmma.wait_group.sync.aligned 0;"
    text = wgmma_ptx("float16", 16, fields, ", 1, 1, 0, 0")
    text = text.replace(wait, f"{wait} setp.eq.u32 %p3, %thread, 0; @%p3 st.shared.u32 [memory + 8192], 0x7e007e00;")
    modes = [{"warps_meet": False, "late": late, "random": True, "seed": s} for late in (False, True) for s in range(9)]

    def right(mode: dict[str, Any]) -> bool:
        d = run_wgmma(text, image, swizzle_wgmma.matrix_to_accumulators(before), races=False, **mode)
        return np.array_equal(swizzle_wgmma.accumulators_to_matrix(d), product(image, "float16", fields, 16))

    assert all(right(mode) for mode in modes)
    _emulator.set_wrong_model("wait_is_early")
    try:
        assert not all(right(mode) for mode in modes)
    finally:
        _emulator.set_wrong_model("")


def test_what_wgmma_refuses():
    fields = [[0, 0, 3, 16, 1024, 0], [0, 8192, 3, 16, 1024, 0]]
    image, d = small_numbers("float16", np.random.default_rng(0)), np.zeros((128, 8), np.float32)
    outside = [fields[0], [0, IMAGE - 64, 0, 4096, 4096, 0]]
    with pytest.raises(_emulator.EmulatorFault, match="outside"):
        run_wgmma(wgmma_ptx("float16", 16, outside, ", 1, 1, 0, 0"), image, d)
    text = wgmma_ptx("float16", 16, fields, ", 1, 1, 0, 0")
    with pytest.raises(_emulator.EmulatorFault, match=r"no fence\.proxy\.async"):
        run_wgmma(text.replace("fence.proxy.async.shared::cta;", ""), image, d)
    with pytest.raises(_emulator.EmulatorFault, match=r"since the last wgmma\.fence"):
        run_wgmma(text.replace("wgmma.fence.sync.aligned;", ""), image, d)
    with pytest.raises(_emulator.EmulatorFault, match="base offset"):
        run_wgmma(text.replace("add.u64 %b, %at, ", "add.u64 %b, %at, 0x2000000000000; add.u64 %b, %b, "), image, d)


def test_accumulators_are_nonsense_until_waited_for():
    fields = [[0, 0, 3, 16, 1024, 0], [0, 8192, 3, 16, 1024, 0]]
    image, d = small_numbers("float16", np.random.default_rng(0)), np.zeros((128, 8), np.float32)
    text = wgmma_ptx("float16", 16, fields, ", 1, 1, 0, 0").replace("wgmma.wait_group.sync.aligned 0;", "")
    assert np.isnan(run_wgmma(text, image, d)).all()


@pytest.mark.parametrize(
    "copy",
    [
        "mov.b32 %copy, %d_3;",
        "selp.b32 %copy, %d_3, 0, %p1; @!%p1 mov.b32 %copy, %d_3;",
        "mov.b32 {%h1, %h2}, %d_3; mov.b32 %copy, {%h1, %h2};",
        ".local .b32 kept; st.local.b32 [kept], %d_3; ld.local.b32 %other, [kept]; mov.b32 %copy, %other;",
    ],
)
def test_copies_of_accumulators_wait_with_them(copy):
    """Compilers copy them before the wait: from register to register, half by half, through local memory."""
    fields = [[0, 0, 3, 16, 1024, 0], [0, 8192, 3, 16, 1024, 0]]
    image, before = small_numbers("float16", np.random.default_rng(0)), np.zeros((64, 16), np.float32)
    wait = "wgmma.wait_group.sync.aligned 0;"
    text = wgmma_ptx("float16", 16, fields, ", 1, 1, 0, 0")
    text = text.replace(wait, f".reg .b32 %copy, %other; {copy} {wait} mov.b32 %d_3, %copy;")
    for late in (False, True):
        d = run_wgmma(text, image, swizzle_wgmma.matrix_to_accumulators(before), late=late)
        assert np.array_equal(swizzle_wgmma.accumulators_to_matrix(d), product(image, "float16", fields, 16))


SHAPES = [
    ("m16n8k16", "f16"), ("m16n8k8", "f16"), ("m16n8k16", "bf16"), ("m16n8k8", "bf16"), ("m16n8k8", "tf32"),
    ("m16n8k4", "tf32"), ("m16n8k32", "s8"), ("m16n8k16", "s8"), ("m8n8k16", "s8"), ("m16n8k32", "u8"),
    ("m8n8k4", "f64"), ("m16n8k16", "f64"), ("m16n8k8", "f64"), ("m16n8k4", "f64"),
]  # fmt: skip
INTERPRETED = {
    ("m16n8k16", "f16", "f32"), ("m16n8k16", "bf16", "f32"), ("m16n8k8", "tf32", "f32"), ("m16n8k32", "s8", "s32"),
    ("m16n8k32", "u8", "s32"), ("m8n8k4", "f64", "f64"),
}  # fmt: skip
NAMES = {kind: name for name, kind in TYPES.items()} | {"f64": "float64"}


def held(lane: int, register: int, part: int, rows: int, elements: int) -> tuple[int, int]:
    """Row and k of A, as the manual's tables of each shape have them."""
    row = lane // 4 + (8 * (register % 2) if rows == 16 else 0)
    block = register // 2 if rows == 16 else register
    return row, block * 4 * elements + lane % 4 * elements + part


@pytest.mark.parametrize(("shape", "kind"), SHAPES)
@pytest.mark.parametrize("sums", ["", "f16"])
def test_mma(shape, kind, sums):
    if sums == "f16" and kind != "f16":
        sums = ""
    m, k = int(shape[1:].split("n")[0]), int(shape.split("k")[1])
    name, second = NAMES[kind], "s8" if kind == "u8" else kind
    sums = sums or ("s32" if kind in ("s8", "u8") else "f64" if kind == "f64" else "f32")
    rng = np.random.default_rng(k)
    a, b = integers(rng, name, m, k), integers(rng, NAMES[second], 8, k)
    size = to_bits(np.zeros(1), name).itemsize
    elements, word = max(4 // size, 1), "b64" if kind == "f64" else "b32"
    width = 8 if kind == "f64" else 4
    a_bits, b_bits = to_bits(a, name), to_bits(b, NAMES[second])
    registers_a, registers_b = m * k * size // 32 // width, 8 * k * size // 32 // width
    left = np.zeros((32, registers_a * elements), a_bits.dtype)
    right = np.zeros((32, registers_b * elements), b_bits.dtype)
    for lane, register, part in np.ndindex(32, registers_a, elements):
        left[lane, register * elements + part] = a_bits[held(lane, register, part, m, elements)]
    for lane, register, part in np.ndindex(32, registers_b, elements):
        right[lane, register * elements + part] = b_bits[held(lane, register, part, 8, elements)]
    d_type = {"s32": np.int32, "f64": np.float64, "f32": np.float32, "f16": np.float16}[sums]
    before = rng.integers(-100, 100, (m, 8)).astype(d_type)
    places = [(lane, v, lane // 4 + 8 * (v // 2), 2 * (lane % 4) + v % 2) for lane in range(32) for v in range(m // 4)]
    d = np.zeros((32, m // 4), d_type)
    for lane, v, row, column in places:
        d[lane, v] = before[row, column]
    initial, count = d.copy(), d[0].nbytes // width
    names = {n: [f"%{n}_{i}" for i in range(c)] for n, c in (("x", registers_a), ("y", registers_b), ("z", count))}
    body = [".reg .b32 %lane; .reg .b64 %at; mov.u32 %lane, %tid.x;"]
    for operand, pointer in (("x", "a"), ("y", "b"), ("z", "d")):
        body.append(f".reg .{word} {', '.join(names[operand])};")
        body.append(f"mad.wide.u32 %at, %lane, {width * len(names[operand])}, %{pointer};")
        body += [f"ld.global.{word} {r}, [%at + {width * i}];" for i, r in enumerate(names[operand])]
    vectors = {n: "{" + ", ".join(r) + "}" for n, r in names.items()}
    operands = f"{vectors['z']}, {vectors['x']}, {vectors['y']}, {vectors['z']}"
    body.append(f"mma.sync.aligned.{shape}.row.col.{sums}.{kind}.{second}.{sums} {operands};")
    body += [f"st.global.{word} [%at + {width * i}], {r};" for i, r in enumerate(names["z"])]
    ptx = kernel("\n".join(body), parameters=["a", "b", "d"])
    launch(
        ptx,
        "test",
        [torch.from_numpy(left.view(np.uint8)), torch.from_numpy(right.view(np.uint8)), torch.from_numpy(d)],
    )
    expected = (a @ b.T + before).astype(d_type)
    assert all(d[lane, v] == expected[row, column] for lane, v, row, column in places)
    if (shape, kind, sums) in INTERPRETED:
        there = initial.copy()
        interpreter = PrimitiveRunner(interpreter_tests(), "cpu")
        interpreter.run("mma", FORMATS[name], 1, 1, left[None], right[None], there[None, None])
        assert np.array_equal(there, d)


@pytest.mark.parametrize("transposed", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_move(count, transposed):
    """ldmatrix, and stmatrix as its inverse. Rows of matrices lie in a random order."""
    rng = np.random.default_rng(count)
    matrices = rng.integers(0, 1 << 16, (count, 8, 8)).astype(np.uint16)
    order = rng.permutation(32)
    memory = np.zeros((32, 8), np.uint16)
    for row in range(8 * count):
        memory[order[row]] = matrices[row // 8, row % 8]
    found, back = np.zeros((32, count), np.uint32), np.zeros((32, 8), np.uint16)
    registers = [f"%m{i}" for i in range(count)]
    vector = "{" + ", ".join(registers) + "}"
    body = f"""
    .reg .b32 %lane, %row, %from, %word, {", ".join(registers)}; .reg .b64 %at;
    mov.u32 %lane, %tid.x; mul.wide.u32 %at, %lane, 4; add.u64 %at, %at, %order; ld.global.u32 %row, [%at];
    mul.wide.u32 %at, %lane, 16; add.u64 %at, %at, %memory; mov.u32 %from, area; mad.lo.u32 %word, %lane, 16, %from;
    """
    for i in range(4):
        body += f"ld.global.u32 %r{i}, [%at + {4 * i}]; st.shared.u32 [%word + {4 * i}], %r{i};\n"
    body += "bar.warp.sync -1; mad.lo.u32 %row, %row, 16, %from;\n"
    body += f"ldmatrix.sync.aligned.m8n8.x{count}{transposed}.shared.b16 {vector}, [%row];\n"
    body += f"mul.wide.u32 %at, %lane, {4 * count}; add.u64 %at, %at, %found;\n"
    body += "".join(f"st.global.u32 [%at + {4 * i}], {r};\n" for i, r in enumerate(registers)) + "bar.warp.sync -1;\n"
    for i in range(4):
        body += f"st.shared.u32 [%word + {4 * i}], 0;\n"
    body += "bar.warp.sync -1;\n"
    body += f"stmatrix.sync.aligned.m8n8.x{count}{transposed}.shared.b16 [%row], {vector};\n"
    body += "bar.warp.sync -1; mul.wide.u32 %at, %lane, 16; add.u64 %at, %at, %back;\n"
    for i in range(4):
        body += f"ld.shared.u32 %r{i}, [%word + {4 * i}]; st.global.u32 [%at + {4 * i}], %r{i};\n"
    ptx = kernel(body, parameters=["order", "memory", "found", "back"], outside=".shared .align 16 .b8 area[512];\n")
    tensors = [order.astype(np.int32), memory.view(np.int16), found.view(np.int32), back.view(np.int16)]
    launch(ptx, "test", [torch.from_numpy(tensor) for tensor in tensors])
    expected = matrices.transpose(0, 2, 1) if transposed else matrices
    for lane, m, half in np.ndindex(32, count, 2):
        assert found[lane, m] >> 16 * half & 0xFFFF == expected[m, lane // 4, 2 * (lane % 4) + half]
    assert np.array_equal(back, memory)
