"""Every primitive of csrc/ptx on its own, bit for bit what numpy says: in the interpreter and, marked gpu, on a GPU.

TMA's are in test_ptx_tma.py, wgmma's in test_ptx_wgmma.py.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from helpers.native import PrimitiveRunner, interpreter_tests
from helpers.operands import FORMATS, accumulator_dtype, integers, to_bits
from oracles import swizzle_wgmma

# Conversions


def convert(runner: PrimitiveRunner, conversion: int, words: np.ndarray) -> np.ndarray:
    out = np.zeros_like(words)
    runner.run("convert", conversion, words, out, len(words))
    return out


def interesting_floats() -> np.ndarray:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 20000, dtype=np.uint32)
    powers = np.float32(2.0) ** np.arange(-40, 40)
    near = np.concatenate([powers * np.float32(1 + k * 2.0**-12) for k in range(-3, 4)]).astype(np.float32)
    special = np.array(
        [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x477FEFFF, 0x477FF000, 0x33000000,
         0x33000001, 0x387FE000, 0x7F7FFFFF, 1],
        dtype=np.uint32,
    )  # fmt: skip
    return np.concatenate([bits, near.view(np.uint32), (-near).view(np.uint32), special])


def test_float16_to_float(runner):
    halves = np.arange(1 << 16, dtype=np.uint32)
    expected = torch.from_numpy(halves.astype(np.uint16).view(np.float16)).float().numpy().view(np.uint32).copy()
    expected[np.isnan(expected.view(np.float32))] = 0x7FFFFFFF
    assert np.array_equal(convert(runner, 0, halves), expected)


@pytest.mark.parametrize(("conversion", "dtype"), [(1, torch.float16), (3, torch.bfloat16)])
def test_float_to_16_bits(runner, conversion, dtype):
    words = interesting_floats()
    values = torch.from_numpy(words.view(np.float32))
    expected = values.to(dtype).view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    expected[torch.isnan(values).numpy()] = 0x7FFF
    assert np.array_equal(convert(runner, conversion, words), expected)


def test_bfloat16_to_float(runner):
    words = np.arange(1 << 16, dtype=np.uint32)
    assert np.array_equal(convert(runner, 2, words), words << 16)


def test_float_to_tf32(runner):
    words = interesting_floats()
    exponent = words >> 23 & 255
    words = words[(exponent > 0) & (exponent < 255)]
    values = words.view(np.float32).astype(np.float64)
    unit = 2.0 ** (np.floor(np.log2(np.abs(values))) - 10)
    with np.errstate(over="ignore"):
        expected = (np.copysign(np.floor(np.abs(values) / unit + 0.5), values) * unit).astype(np.float32)
    assert np.array_equal(convert(runner, 4, words), expected.view(np.uint32))
    special = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)
    assert np.array_equal(convert(runner, 4, special), special)


# mma.sync


def run_mma(runner: PrimitiveRunner, name: str, a: np.ndarray, b: np.ndarray, d: np.ndarray) -> np.ndarray:
    """d [M, N] + a [M, K] b [N, K]^T, through fragments packed element by element as the PTX manual lists them."""
    size = a.dtype.itemsize
    m, held = (8, 2) if name == "float64" else (16, 4)
    mt, nt = len(a) // m, len(b) // 8
    left = [
        swizzle_wgmma.fragments(a[m * i :][:m], swizzle_wgmma.MMA_A, m * a.shape[1] * size // 32) for i in range(mt)
    ]
    right = [swizzle_wgmma.fragments(b[8 * j :][:8], swizzle_wgmma.MMA_B, b.shape[1] * size // 4) for j in range(nt)]
    places = [
        (i, j, lane, v, *swizzle_wgmma.mma_d(lane // 4, lane % 4, v, name == "float64"))
        for i, j, lane, v in itertools.product(range(mt), range(nt), range(32), range(held))
    ]
    sums = np.empty((mt, nt, 32, held), d.dtype)
    for i, j, lane, v, row, column in places:
        sums[i, j, lane, v] = d[m * i + row, 8 * j + column]
    runner.run("mma", FORMATS[name], mt, nt, np.stack(left), np.stack(right), sums)
    result = np.empty_like(d)
    for i, j, lane, v, row, column in places:
        result[m * i + row, 8 * j + column] = sums[i, j, lane, v]
    return result


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize("name", FORMATS)
def test_mma(runner, name, tiles):
    rng = np.random.default_rng(tiles)
    m, k = (8, 4) if name == "float64" else (16, 32 // to_bits(np.zeros(1), name).itemsize)
    columns = "int8" if name == "uint8" else name  # unsigned rows multiply signed columns
    a, b = integers(rng, name, m * tiles[0], k), integers(rng, columns, 8 * tiles[1], k)
    most = 1 << 31 if columns == "int8" else 1 << 20
    d = rng.integers(-most, most, (len(a), len(b))).astype(accumulator_dtype(name))
    result = run_mma(runner, name, to_bits(a, name), to_bits(b, columns), d)
    expected = (d.astype(np.int64) + a @ b.T).astype(np.int64)
    if columns == "int8":  # sums wrap
        expected = (expected & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    assert np.array_equal(result, expected.astype(d.dtype))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "tf32"])
def test_mma_rounds_like_a_float_sum(runner, name):
    """Of random floats only the order of the sum is the machine's own: the error is a few roundings of its terms."""
    rng = np.random.default_rng(3)
    k = 8 if name == "tf32" else 16
    values = [rng.standard_normal((n, k)).astype(np.float32) for n in (16, 8)]
    if name == "tf32":
        bits = [convert(runner, 4, v.reshape(-1).view(np.uint32)).reshape(v.shape) for v in values]
        exact = [x.view(np.float32).astype(np.float64) for x in bits]
    else:
        dtype = getattr(torch, name)
        rounded = [torch.from_numpy(v).to(dtype) for v in values]
        bits = [x.view(torch.int16).numpy().view(np.uint16) for x in rounded]
        exact = [x.double().numpy() for x in rounded]
    d = rng.standard_normal((16, 8)).astype(np.float32)
    result = run_mma(runner, name, *bits, d)
    magnitude = np.abs(d) + np.abs(exact[0]) @ np.abs(exact[1]).T
    assert (np.abs(result - (d + exact[0] @ exact[1].T)) <= (k + 1) * 2.0**-23 * magnitude).all()


def test_tf32_operands_lose_their_low_bits(runner):
    a = np.zeros((16, 8), np.uint32)
    a[:, 0] = 0x3F801FFF  # 1 and thirteen bits more
    b = np.zeros((8, 8), np.uint32)
    b[:, 0] = 0x3F800000
    assert (run_mma(runner, "tf32", a, b, np.zeros((16, 8), np.float32)) == 1).all()


# ldmatrix and stmatrix


def matrices(image: np.ndarray, offsets: np.ndarray, count: int) -> np.ndarray:
    """[count, 8, 8] of 16-bit elements."""
    rows = [image[at : at + 16].view(np.uint16) for at in offsets[: 8 * count]]
    return np.array(rows).reshape(count, 8, 8)


def registers_of(held: np.ndarray, transposed: bool) -> np.ndarray:
    """[32, count] registers of [count, 8, 8] matrices."""
    held = held.transpose(0, 2, 1) if transposed else held
    return np.ascontiguousarray(held).reshape(len(held), 32, 2).view(np.uint32)[..., 0].T.copy()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(runner, count, transposed):
    rng = np.random.default_rng(count)
    image = rng.integers(0, 256, 4096).astype(np.uint8)
    offsets = (16 * rng.integers(0, 256, 32)).astype(np.int32)
    offsets[8 * count :] = -12345  # not looked at
    registers = np.zeros((32, count), np.uint32)
    runner.run("ldmatrix", count, transposed, image, offsets, registers)
    assert np.array_equal(registers, registers_of(matrices(image, offsets, count), transposed))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_stmatrix(runner, count, transposed):
    runner.needs_hopper()
    rng = np.random.default_rng(count)
    before = rng.integers(0, 256, 4096).astype(np.uint8)
    offsets = (16 * rng.permutation(256)[:32]).astype(np.int32)
    held = rng.integers(0, 1 << 16, (count, 8, 8)).astype(np.uint16)
    expected = before.copy()
    for at, row in zip(offsets, held.reshape(-1, 8), strict=False):
        expected[at : at + 16] = row.view(np.uint8)
    runner.run("stmatrix", count, transposed, before, offsets, registers_of(held, transposed))
    assert np.array_equal(before, expected)


@pytest.mark.parametrize(
    ("pitch", "swizzle", "trips"), [(128, False, 8), (64, False, 4), (144, False, 1), (128, True, 1)]
)
def test_ldmatrix_counts_bank_conflicts(pitch, swizzle, trips):
    module = interpreter_tests()
    rows = np.arange(32)
    chunk = rows % 8 if swizzle else 0
    offsets = (pitch * (rows % 8) + 16 * chunk).astype(np.int32)
    module.reset_statistics()
    PrimitiveRunner(module, "cpu").run(
        "ldmatrix", 4, False, np.zeros(4096, np.uint8), offsets, np.zeros((32, 4), np.uint32)
    )
    counts = module.statistics()
    assert counts["ldmatrix trips"] == 4 * trips
    assert counts["ldmatrix trips needed"] == 4


# cp.async, mbarrier, barriers, registers


@pytest.mark.parametrize("by_mbarrier", [False, True])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_cp_async(runner, size, by_mbarrier):
    rng = np.random.default_rng(size)
    threads, rounds = 64, 6
    count = threads * rounds
    source = rng.integers(0, 256, 16384).astype(np.uint8)
    start = (size * rng.integers(0, 16384 // size, count)).astype(np.int32)
    to = (size * rng.permutation(16384 // size)[:count]).astype(np.int32)
    valid = rng.integers(0, 2, count).astype(np.int32)
    image = np.zeros(16384, np.uint8)
    expected = np.full(16384, 0xEE, np.uint8)
    for f, t, v in zip(start, to, valid, strict=True):
        expected[t : t + size] = source[f : f + size] if v else 0
    runner.run("cp_async_copies", size, by_mbarrier, threads, rounds, source, start, to, valid, image)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_mbarrier_ring(runner, stages):
    rng = np.random.default_rng(stages)
    given = rng.integers(-1000, 1000, (17, 32)).astype(np.int32)
    out = np.zeros_like(given)
    runner.run("mbarrier_ring", stages, len(given), given, out)
    assert np.array_equal(out, 2 * given[:, ::-1])


def test_elect_one(runner):
    runner.needs_hopper()
    elected = np.full(128, -1, np.int32)
    runner.run("elect", elected)
    assert (elected.reshape(4, 32).sum(1) == 1).all()
    assert set(elected) == {0, 1}


def test_named_barriers(runner):
    given = np.arange(128, dtype=np.int32)
    out = np.zeros_like(given)
    runner.run("named_barriers", given, out)
    assert np.array_equal(out, given.reshape(2, 64)[:, ::-1].reshape(-1))


def test_warpgroups_hand_over_registers(runner):
    runner.needs_hopper()
    given = np.arange(384, dtype=np.int32)
    out = np.zeros_like(given)
    runner.run("hand_over_registers", given, out)
    assert np.array_equal(out, 3 * given)
