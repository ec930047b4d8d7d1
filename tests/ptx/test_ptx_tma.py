"""TMA: tiles, im2col columns and stores against the oracles, and what a tensor map may be."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.device import HAS_GPU
from helpers.native import Host, PrimitiveRunner, interpreter_tests
from oracles import swizzle_wgmma, tma_im2col


@pytest.fixture(autouse=True)
def on_hopper(request: pytest.FixtureRequest) -> None:
    if "runner" in request.fixturenames:
        request.getfixturevalue("runner").needs_hopper()


ELEMENTS = {"uint8": (0, np.uint8), "int32": (1, np.int32), "float16": (2, np.uint16), "float32": (4, np.uint32)}


def padded(values: list[int] | tuple[int, ...], length: int, fill: int = 0) -> list[int]:
    return [*values, *[fill] * (length - len(values))]


def box_fields(x: np.ndarray, element: int, step: list[int], swizzle: int) -> list:
    """element, address, rank, size[5], stride[5], step[5], swizzle."""
    size, stride = x.shape[::-1], x.strides[::-1]
    return [
        element, x, x.ndim, *padded(size, 5), *padded(stride, 5), *padded(step, 5, 1), swizzle
    ]  # fmt: skip


def random_words(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


TILES = [
    # (shape outermost first, corner innermost first, box innermost first, step, element, swizzle)
    ((64,), (5,), (32,), [1], "float16", 0),
    ((64,), (-7,), (64,), [1], "uint8", 0),
    ((40, 64), (0, 0), (64, 16), [1, 1], "float16", 3),
    ((40, 72), (32, 33), (64, 16), [1, 1], "float16", 3),  # past the end of both
    ((40, 64), (-16, -3), (32, 20), [1, 1], "float16", 2),
    ((40, 64), (3, 2), (16, 9), [1, 1], "float16", 1),
    ((40, 128), (1, 2), (128, 9), [1, 1], "uint8", 3),
    ((6, 7, 24), (8, -1, -2), (16, 4, 5), [1, 1, 1], "float32", 2),
    ((6, 9, 16), (0, 1, 1), (16, 8, 5), [1, 2, 2], "int32", 3),  # strided: ceil(8 / 2) by ceil(5 / 2)
    ((2, 5, 6, 16), (0, -1, -1, 0), (16, 4, 3, 2), [1, 1, 1, 1], "float16", 1),
    ((2, 3, 4, 5, 16), (4, 1, 1, -1, 1), (8, 3, 2, 3, 2), [1, 1, 1, 1, 1], "float16", 0),
    ((4, 16), (100, 0), (16, 4), [1, 1], "float16", 0),  # wholly outside
]


@pytest.mark.parametrize("case", TILES, ids=range(len(TILES)))
def test_tma_loads_tiles(runner, case):
    shape, corner, box, step, element, swizzle = case
    code, dtype = ELEMENTS[element]
    x = random_words(np.random.default_rng(0), shape, dtype)
    image = np.zeros(16384, np.uint8)
    offset = 2048
    fields = Host(*box_fields(x, code, step, swizzle), *padded(box, 5, 1))
    runner.run("tma_load_tile", fields, Host(*padded(corner, 8)), offset, len(image), image)
    expected = np.full_like(image, 0xEE)
    swizzle_wgmma.place(expected, offset, swizzle_wgmma.tile(x, corner, box, step), swizzle_wgmma.SPANS[swizzle])
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("case", TILES, ids=range(len(TILES)))
def test_tma_stores_tiles(runner, case):
    shape, corner, box, step, element, swizzle = case
    code, dtype = ELEMENTS[element]
    rng = np.random.default_rng(0)
    x = random_words(rng, shape, dtype)
    values = random_words(rng, tuple(-(-b // s) for b, s in zip(box, step, strict=True))[::-1], dtype)
    image = np.zeros(16384, np.uint8)
    swizzle_wgmma.place(image, 0, values, swizzle_wgmma.SPANS[swizzle])
    expected = x.copy()
    for index in np.ndindex(values.shape):
        at = [c + i * s for c, i, s in zip(corner[::-1], index, step[::-1], strict=True)]
        if all(0 <= a < n for a, n in zip(at, shape, strict=True)):
            expected[tuple(at)] = values[index]
    fields = Host(*box_fields(x, code, step, swizzle), *padded(box, 5, 1))
    runner.run("tma_store_tile", fields, Host(*padded(corner, 8)), len(image), image)
    assert np.array_equal(x, expected)


@pytest.mark.parametrize("runner", [None if HAS_GPU else "ptx"], indirect=True)  # the interpreter fills with zeros
@pytest.mark.parametrize(("element", "floats"), [("float16", np.float16), ("float32", np.float32)])
def test_tma_fills_with_nan_where_asked(runner, element, floats):
    code, dtype = ELEMENTS[element]
    x = np.arange(1, 5 * 16 + 1).astype(floats).reshape(5, 16)
    image = np.zeros(4096, np.uint8)
    corner, box = (-8, 3), (16, 4)  # half of each row and two of four rows are outside
    fields = Host(*box_fields(x.view(dtype), code, [1, 1], 0), *padded(box, 5, 1))
    runner.run("tma_load_tile_nan", fields, Host(*padded(corner, 8)), 0, len(image), image)
    found = image[: 64 * x.itemsize].view(floats).reshape(4, 16)
    assert np.array_equal(found[:2, 8:], x[3:, :8])
    assert np.isnan(found[:2, :8]).all() and np.isnan(found[2:]).all()


COLUMNS = [
    # (shape, start (c, w, .., n), tap, lower, upper, step, channels, pixels, element, swizzle)
    ((2, 6, 7, 64), (0, -1, -1, 0), (0, 0), (-1, -1), (-1, -1), (1, 1), 64, 64, "float16", 3),
    ((2, 6, 7, 64), (0, -1, -1, 0), (2, 1), (-1, -1), (-1, -1), (1, 1), 64, 64, "float16", 3),
    (
        (2, 6, 7, 72),
        (64, 2, 3, 1),
        (1, 2),
        (-1, -1),
        (-1, -1),
        (1, 1),
        64,
        40,
        "float16",
        3,
    ),  # channels end, images end
    ((3, 9, 8, 32), (0, -1, 1, 0), (2, 0), (-1, -1), (-1, -1), (2, 2), 32, 50, "float16", 2),  # stride 2
    ((1, 7, 7, 128), (0, -2, -2, 0), (4, 2), (-2, -2), (-2, -2), (1, 1), 128, 49, "uint8", 3),  # dilation 2, int8
    ((2, 5, 5, 16), (0, -2, -3, 0), (1, 0), (-2, -3), (0, 1), (1, 1), 16, 100, "float32", 2),  # asymmetric corners
    ((2, 11, 16), (0, -1, 0), (2,), (-1,), (-1,), (1,), 16, 25, "float16", 1),  # N W C
    ((2, 3, 4, 5, 16), (0, -1, -1, -1, 0), (1, 2, 0), (-1, -1, -1), (-1, -1, -1), (1, 1, 1), 16, 90, "float16", 0),
]


@pytest.mark.parametrize("case", COLUMNS, ids=range(len(COLUMNS)))
def test_tma_loads_columns(runner, case):
    shape, start, tap, lower, upper, step, channels, pixels, element, swizzle = case
    code, dtype = ELEMENTS[element]
    x = random_words(np.random.default_rng(0), shape, dtype)
    image = np.zeros(32768, np.uint8)
    offset = 1024
    fields = Host(*box_fields(x, code, [1, *step, 1], swizzle), *padded(lower, 3), *padded(upper, 3), channels, pixels)
    place = Host(*padded(start, 5), *padded(tap, 3))
    runner.run("tma_load_im2col", fields, place, offset, len(image), image)
    expected = np.full_like(image, 0xEE)
    found = tma_im2col.column(x, start, tap, pixels, channels, lower, upper, step)
    swizzle_wgmma.place(expected, offset, found, swizzle_wgmma.SPANS[swizzle])
    assert np.array_equal(image, expected)


def test_tma_rounds_to_tf32(runner):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(44), [1 + 2.0**-11, 1 + 3 * 2.0**-11, np.inf, -0.0]])
    x = values.astype(np.float32).reshape(3, 16)
    image = np.zeros(1024, np.uint8)
    runner.run(
        "tma_load_tile", Host(*box_fields(x, 5, [1, 1], 0), *padded((16, 3), 5, 1)), Host(*[0] * 8), 0, 1024, image
    )
    unit = 2.0 ** (np.frexp(x.astype(np.float64))[1] - 11)
    with np.errstate(invalid="ignore"):
        expected = np.where(np.isfinite(x), np.round(x / unit) * unit, x).astype(np.float32)  # ties to even
    assert np.array_equal(image[: x.nbytes].view(np.uint32), expected.reshape(-1).view(np.uint32))


BAD_MAPS = [
    (dict(rank=6), r"rank = 6 is not in \[1, 5\]"),
    (dict(size=(0, 40)), r"size\[0\] = 0"),
    (dict(size=(64, 2**32 + 1)), r"size\[1\] = 4294967297"),
    (dict(stride=(0, 24)), r"stride\[1\] = 24 is not a multiple of 16"),
    (dict(stride=(0, 2**40)), r"stride\[1\] = 1099511627776"),
    (dict(step=(1, 9)), r"step\[1\] = 9 is not in \[1, 8\]"),
    (dict(box=(64, 257)), r"box\[1\] = 257 is not in \[1, 256\]"),
    (dict(box=(12, 8)), r"box\[0\] \* element bytes = 24 is not a multiple of 16"),
    (dict(box=(128, 8)), r"box\[0\] \* element bytes = 256 is not in \[16, 128\]"),
    (dict(address=8), r"address = \d+ is not a multiple of 16"),
]


@pytest.mark.parametrize(("change", "message"), BAD_MAPS)
def test_bad_tensor_maps_are_refused(change, message):
    good = dict(address=0, rank=2, size=(64, 40), stride=(0, 128), step=(1, 1), box=(64, 8))
    good.update(change)
    fields = [
        2, 4096 + good["address"], good["rank"], *padded(good["size"], 5, 1), *padded(good["stride"], 5, 16),
        *padded(good["step"], 5, 1), 3, *padded(good["box"], 5, 1)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        PrimitiveRunner(interpreter_tests(), "cpu").run("tma_load_tile", Host(*fields), Host(*[0] * 8), 0, 1024, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lower=(-129, 0)), r"lower\[0\] = -129 is not in \[-128, 127\]"),
        (dict(upper=(0, 128)), r"upper\[1\] = 128"),
        (dict(upper=(-7, 0)), r"size\[1\] \+ upper - lower = 0"),
        (dict(channels=257), r"channels = 257"),
        (dict(pixels=1025), r"pixels = 1025"),
        (dict(rank=2), r"rank = 2 is not in \[3, 5\]"),
    ],
)
def test_bad_im2col_maps_are_refused(change, message):
    good = dict(rank=4, lower=(0, 0), upper=(0, 0), channels=64, pixels=32)
    good.update(change)
    fields = [
        2, 4096, good["rank"], 64, 7, 6, 2, 0, 0, 128, 896, 5376, 0, *[1] * 5, 3, *good["lower"], 0, *good["upper"], 0,
        good["channels"], good["pixels"]
    ]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        PrimitiveRunner(interpreter_tests(), "cpu").run("tma_load_im2col", Host(*fields), Host(*[0] * 8), 0, 1024, 0)
