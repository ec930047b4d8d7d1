"""wgmma in every form: the oracle reads the same tiles through the same descriptors, numpy multiplies them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helpers.native import Host
from helpers.operands import FORMATS, accumulator_dtype, integers, to_bits
from oracles import swizzle_wgmma


@pytest.fixture(autouse=True)
def on_hopper(request: pytest.FixtureRequest) -> None:
    if "runner" in request.fixturenames:
        request.getfixturevalue("runner").needs_hopper()


class Tile:
    """An operand's tile in shared memory, as TMA's boxes leave it, and how wgmma is told of it."""

    def __init__(self, values: np.ndarray, mn_major: bool, swizzle: int) -> None:
        """values [rows, depth]: depth is a multiple of an instruction's 32 bytes."""
        self.rows, depth = values.shape
        self.mn_major, self.swizzle = mn_major, swizzle
        size, span = values.dtype.itemsize, swizzle_wgmma.SPANS[swizzle]
        dense = span // size  # elements of a box's row
        if swizzle == 0:  # blocks of 8 rows of 16 bytes, side by side in the order that is most unlike a matrix
            if mn_major:
                blocks = values.reshape(self.rows // 8, 8, depth // 8, 8).transpose(0, 2, 3, 1)
                self.leading, self.stride, self.step = 128, 128 * (depth // 8), 256
            else:
                blocks = values.reshape(self.rows // 8, 8, depth // dense, dense).transpose(0, 2, 1, 3)
                self.leading, self.stride, self.step = 128, 128 * (depth // dense), 256
        elif mn_major:  # boxes of `dense` rows by all of k
            assert self.rows % dense == 0
            blocks = values.reshape(self.rows // dense, dense, depth).transpose(0, 2, 1)
            self.leading, self.stride, self.step = depth * span, 8 * span, 16 * span
        else:  # one box: its rows are a span of k, of which the product may use a part
            blocks = np.full((self.rows, dense), 0xEE).astype(values.dtype)
            blocks[:, :depth] = values
            self.leading, self.stride, self.step = 16, 8 * span, 32
        self.bytes = np.ascontiguousarray(blocks)

    def place(self, image: np.ndarray, at: int) -> list[int]:
        """Puts the tile into the image; its fields for the kernel."""
        swizzle_wgmma.place(image, at, self.bytes, swizzle_wgmma.SPANS[self.swizzle])
        return [self.mn_major, at, self.swizzle, self.leading, self.stride, self.step]

    @property
    def nbytes(self) -> int:
        return -(-self.bytes.nbytes // 1024) * 1024


def descriptor(fields: list[int], step: int) -> int:
    _, at, swizzle, leading, stride, step_bytes = fields
    start = at + step * step_bytes
    return start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | [0, 3, 2, 1][swizzle] << 62


def run_wgmma(runner, name, columns, majors, swizzles, steps=2, from_registers=False, accumulate=True):
    rng = np.random.default_rng([columns, *swizzles, *majors])
    size = to_bits(np.zeros(1), name).itemsize
    depth = steps * 32 // size
    names = name, "int8" if name == "uint8" else name  # unsigned rows multiply signed columns
    a, b = integers(rng, names[0], 64, depth), integers(rng, names[1], columns, depth)
    tiles = [Tile(to_bits(v, n), mn, s) for v, n, mn, s in zip((a, b), names, majors, swizzles, strict=True)]
    image = np.full(tiles[0].nbytes + tiles[1].nbytes, 0xEE, np.uint8)
    fields = [tiles[0].place(image, 0), tiles[1].place(image, tiles[0].nbytes)]

    # the oracle reads the same image through the same descriptors
    for operand, named, tile, field in zip((a, b), names, tiles, fields, strict=True):
        read = [
            swizzle_wgmma.operand(image, descriptor(field, step), tile.mn_major, tile.rows, tile.bytes.dtype)
            for step in range(steps)
        ]
        assert np.array_equal(np.concatenate(read, 1), to_bits(operand, named))

    registers = np.zeros((steps, 128, 4), np.uint32)
    if from_registers:
        bits = to_bits(a, name)
        for step, warp in itertools.product(range(steps), range(4)):
            part = bits[16 * warp : 16 * warp + 16, step * 32 // size : (step + 1) * 32 // size]
            held = swizzle_wgmma.fragments(part, swizzle_wgmma.MMA_A, 16)
            registers[step, 32 * warp : 32 * warp + 32] = held.view(np.uint32)

    before = rng.integers(-1000, 1000, (64, columns)).astype(accumulator_dtype(name))
    d = swizzle_wgmma.matrix_to_accumulators(before)
    runner.run(
        "wgmma_product", FORMATS[name], columns, Host(*fields[0]), Host(*fields[1]), steps, accumulate,
        image, len(image), registers if from_registers else 0, d,
    )  # fmt: skip
    expected = a @ b.T + (before.astype(np.int64) if accumulate else 0)
    assert np.array_equal(swizzle_wgmma.accumulators_to_matrix(d), expected.astype(d.dtype))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "tf32", "int8", "uint8"])
@pytest.mark.parametrize("swizzles", [(3, 3), (2, 2), (1, 1), (0, 0), (3, 0), (1, 2)])
def test_wgmma_k_major(runner, name, swizzles):
    run_wgmma(runner, name, 64, (False, False), swizzles, steps=1 if 1 in swizzles else 2)


@pytest.mark.parametrize("majors", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("swizzles", [(3, 3), (2, 2), (1, 1), (0, 0)])
def test_wgmma_mn_major(runner, majors, swizzles):
    name = "float16" if swizzles[0] % 2 else "bfloat16"
    run_wgmma(runner, name, 64, majors, swizzles, steps=1 if 1 in swizzles else 2)


@pytest.mark.parametrize(
    ("name", "b_mn_major"),
    [("float16", False), ("bfloat16", False), ("tf32", False), ("int8", False), ("uint8", False), ("float16", True),
     ("bfloat16", True)],
)  # fmt: skip
def test_wgmma_with_a_in_registers(runner, name, b_mn_major):
    run_wgmma(runner, name, 64, (False, b_mn_major), (3, 3), steps=2, from_registers=True)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "tf32", "int8", "uint8"])
def test_wgmma_widths(runner, name):
    """All of them in one type: the others share the lists of operands."""
    for columns in range(8, 257, 8) if name == "bfloat16" else (8, 24, 256):
        run_wgmma(runner, name, columns, (False, False), (3, 3), steps=1)


def test_wgmma_can_start_from_nothing(runner):
    run_wgmma(runner, "float16", 64, (False, False), (3, 3), accumulate=False)
