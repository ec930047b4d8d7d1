"""TMA against formulas in numpy (tests/oracles), on random boxes; and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from cnnkernels import _emulator
from helpers.emulated.launches import launch
from helpers.instructions.ptx import HEADER
from helpers.native import Host, PrimitiveRunner, interpreter_tests
from oracles import swizzle_wgmma, tma_im2col

BYTES = 32768
TYPES = {"u8": (0, np.uint8), "s32": (3, np.int32), "f16": (6, np.uint16), "f32": (7, np.uint32)}

LOAD = """{header}
.shared .align 1024 .b8 memory[{bytes}]; .shared .align 8 .b64 barrier;
.visible .entry test(.param .align 64 .b8 map[128], .param .u64 image)
{{
  .reg .pred %p<4>; .reg .b32 %r<20>; .reg .b64 %d<9>; .reg .b16 %h<4>;
  mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0;
  ld.param.u64 %d2, [image]; mov.b64 %d1, map; cvta.param.u64 %d1, %d1;
  mov.u32 %r2, memory; shl.b32 %r3, %r1, 2; mov.u32 %r5, %r3;
FILL: add.u32 %r4, %r2, %r5; st.shared.u32 [%r4], 0xeeeeeeee;
  add.u32 %r5, %r5, 512; setp.lt.u32 %p2, %r5, {bytes}; @%p2 bra FILL;
  @%p1 mbarrier.init.shared::cta.b64 [barrier], 1; bar.sync 0;
  {moves}
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], {count};
  @%p1 cp.async.bulk.tensor.{rank}d.shared::cluster.global.{mode}.mbarrier::complete_tx::bytes
    [memory + {offset}], [%d1, {{{at}}}], [barrier]{taps};
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [barrier], 0; @!%p3 bra WAIT;
COPY: add.u32 %r4, %r2, %r3; ld.shared.u32 %r5, [%r4];
  cvt.u64.u32 %d3, %r3; add.u64 %d3, %d3, %d2; st.global.u32 [%d3], %r5;
  add.u32 %r3, %r3, 512; setp.lt.u32 %p2, %r3, {bytes}; @%p2 bra COPY;
  ret;
}}
"""

STORE = """{header}
.shared .align 1024 .b8 memory[{bytes}];
.visible .entry test(.param .align 64 .b8 map[128], .param .u64 image)
{{
  .reg .pred %p<4>; .reg .b32 %r<20>; .reg .b64 %d<9>;
  mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0;
  ld.param.u64 %d2, [image]; mov.b64 %d1, map; cvta.param.u64 %d1, %d1; mov.u32 %r2, memory; shl.b32 %r3, %r1, 2;
COPY: add.u32 %r4, %r2, %r3; cvt.u64.u32 %d3, %r3; add.u64 %d3, %d3, %d2;
  ld.global.u32 %r5, [%d3]; st.shared.u32 [%r4], %r5;
  add.u32 %r3, %r3, 512; setp.lt.u32 %p2, %r3, {bytes}; @%p2 bra COPY;
  fence.proxy.async.shared::cta; bar.sync 0;
  {moves}
  @%p1 {instruction}.{rank}d.global.shared::cta.{mode}.bulk_group [%d1, {{{at}}}], [memory];
  cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
  ret;
}}
"""


def filled(template: str, start: list[int], taps: list[int] | None, **fields: Any) -> str:
    moves = [f"mov.s32 %r{10 + i}, {value};" for i, value in enumerate(start)]
    moves += [f"mov.u16 %h{i}, {value};" for i, value in enumerate(taps or [])]
    at = ", ".join(f"%r{10 + i}" for i in range(len(start)))
    tapped = f", {{{', '.join(f'%h{i}' for i in range(len(taps)))}}}" if taps else ""
    return template.format(
        header=HEADER, bytes=BYTES, moves=" ".join(moves), at=at, rank=len(start), taps=tapped, **fields
    )


def random_words(shape: list[int], dtype: type, seed: int) -> np.ndarray:
    words = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, [*shape, 4]).astype(dtype)
    memory = np.zeros(words[..., 0].nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    aligned = memory[start : start + words[..., 0].nbytes].view(dtype).reshape(shape)
    aligned[...] = words[..., 0]
    return aligned


def random_tile(rng: random.Random) -> dict[str, Any]:
    """A box that TMA takes: its rows and the tensor's are multiples of 16 bytes."""
    name = rng.choice(list(TYPES))
    size = np.dtype(TYPES[name][1]).itemsize
    rank, swizzle = rng.randint(1, 5), rng.choice([0, 1, 2, 3])
    most = swizzle_wgmma.SPANS[swizzle] if swizzle else 128
    unit = 16 // size
    row = unit * rng.randint(1, most // 16)
    shape = [rng.randint(1, 6) for _ in range(rank - 1)] + [unit * rng.randint(1, 2 * most // 16)]
    step = [1] + [rng.choice([1, 1, 2, 3]) for _ in range(rank - 1)]
    box = [row] + [rng.randint(1, 4) * s for s in step[1:]]
    start = [rng.randint(-row, shape[-1])] + [rng.randint(-3, n + 1) for n in shape[-2::-1]]
    return {"name": name, "shape": shape, "box": box, "step": step, "start": start, "swizzle": swizzle}


def map_of(x: np.ndarray, tile: dict[str, Any]) -> bytes:
    return _emulator.tiled_map(
        TYPES[tile["name"]][0],
        x.ctypes.data,
        list(x.shape[::-1]),
        list(x.strides[-2::-1]),
        tile["box"],
        element_strides=tile["step"],
        swizzle=[0, 32, 64, 128][tile["swizzle"]],
    )


def run(ptx: str, tensor_map: bytes, image: np.ndarray, **mode: Any) -> None:
    launch(ptx, "test", [tensor_map, torch.from_numpy(image)], block=(128, 1, 1), **mode)


def interpreters_box(x: np.ndarray, kind: str, step: list[int], swizzle: int) -> list[Any]:
    """As the interpreter's test kernels take it: element, address, rank, sizes, strides, steps, swizzle."""

    def five(values: Any, fill: int) -> list[int]:
        return [*values, *[fill] * (5 - len(values))]

    element = {"u8": 0, "s32": 1, "f16": 2, "f32": 4}[kind]
    return [element, x, x.ndim, *five(x.shape[::-1], 0), *five(x.strides[::-1], 0), *five(step, 1), swizzle]


@pytest.mark.parametrize("seed", range(30))
def test_tiles(seed):
    rng = random.Random(seed)
    tile = random_tile(rng)
    x = random_words(tile["shape"], TYPES[tile["name"]][1], seed)
    values = swizzle_wgmma.tile(x, tile["start"], tile["box"], tile["step"])
    span, offset = swizzle_wgmma.SPANS[tile["swizzle"]], 128 * rng.randint(0, 20)
    image, expected = np.zeros(BYTES, np.uint8), np.full(BYTES, 0xEE, np.uint8)
    swizzle_wgmma.place(expected, 1024 + offset, values, span)  # addresses in a block begin at 1024
    ptx = filled(LOAD, tile["start"], None, count=values.nbytes, mode="tile", offset=offset)
    run(ptx, map_of(x, tile), image, seed=seed, random=True)
    assert np.array_equal(image[:-1024], expected[1024:])

    stored = random_words(list(values.shape), TYPES[tile["name"]][1], seed + 1)
    source, wanted = np.zeros(BYTES + 1024, np.uint8), x.copy()
    swizzle_wgmma.place(source, 1024, stored, span)
    for index in np.ndindex(stored.shape):
        at = [c + i * s for c, i, s in zip(tile["start"][::-1], index, tile["step"][::-1], strict=True)]
        if all(0 <= a < n for a, n in zip(at, x.shape, strict=True)):
            wanted[tuple(at)] = stored[index]
    ptx = filled(STORE, tile["start"], None, mode="tile", instruction="cp.async.bulk.tensor")
    run(ptx, map_of(x, tile), source[1024:].copy(), seed=seed)
    assert np.array_equal(x, wanted)


@pytest.mark.parametrize("seed", range(30))
def test_im2col_columns(seed):
    rng = random.Random(seed)
    while True:
        n, h, w = rng.randint(1, 3), rng.randint(1, 7), rng.randint(1, 7)
        lower, upper = [[rng.randint(-3, 2) for _ in "wh"] for _ in "lu"]
        if w + upper[0] - lower[0] >= 1 and h + upper[1] - lower[1] >= 1:
            break
    stride, taps = [rng.randint(1, 3) for _ in "wh"], [rng.randint(0, 3) for _ in "wh"]
    swizzle = rng.choice([0, 1, 2, 3])
    channels = 8 * rng.randint(1, (swizzle_wgmma.SPANS[swizzle] if swizzle else 64) // 16)
    pixels, x = rng.randint(1, 60), random_words([n, h, w, 8 * rng.randint(1, 4)], np.uint16, seed)
    places = [(size + up - low - 1) // s for size, up, low, s in zip((w, h), upper, lower, stride, strict=True)]
    corner = [low + s * rng.randint(0, p) for low, s, p in zip(lower, stride, places, strict=True)]
    start = [rng.randint(0, 8), *corner, rng.randint(0, n)]
    values = tma_im2col.column(x, start, taps, pixels, channels, lower, upper, stride)
    tensor_map = _emulator.im2col_map(
        6, x.ctypes.data, list(x.shape[::-1]), list(x.strides[-2::-1]), lower, upper, channels, pixels,
        element_strides=[1, *stride, 1], swizzle=[0, 32, 64, 128][swizzle],
    )  # fmt: skip
    image, expected = np.zeros(BYTES, np.uint8), np.full(BYTES, 0xEE, np.uint8)
    swizzle_wgmma.place(expected, 1024, values, swizzle_wgmma.SPANS[swizzle])
    run(filled(LOAD, start, taps, count=values.nbytes, mode="im2col", offset=0), tensor_map, image)
    assert np.array_equal(image[:-1024], expected[1024:])
    there, fields = np.zeros(16384, np.uint8), interpreters_box(x, "f16", [1, *stride, 1], swizzle)
    columns = [*lower, 0, *upper, 0, channels, pixels]
    place = Host(*start, 0, *taps, 0)
    interpreter = PrimitiveRunner(interpreter_tests(), "cpu")
    interpreter.run("tma_load_im2col", Host(*fields, *columns), place, 0, len(there), there)
    assert np.array_equal(image[: len(there)], there)

    stored = random_words([pixels, channels], np.uint16, seed + 1)
    source, wanted = np.zeros(BYTES + 1024, np.uint8), x.copy()
    swizzle_wgmma.place(source, 1024, stored, swizzle_wgmma.SPANS[swizzle])
    numbers = np.arange(1, x.size + 1, dtype=np.int64).reshape(x.shape)  # which element of x a pixel's is; 0: none
    where = tma_im2col.column(numbers, start, [0, 0], pixels, channels, lower, upper, stride)
    wanted.reshape(-1)[where[where > 0] - 1] = stored[where > 0]
    ptx = filled(STORE, start, None, mode="im2col_no_offs", instruction="cp.async.bulk.tensor")
    run(ptx, tensor_map, source[1024:].copy())
    assert np.array_equal(x, wanted)


@pytest.mark.parametrize("seed", range(100, 120))
def test_the_interpreter_loads_the_same_tiles(seed):
    """Two readings of the manual, which know nothing of each other."""
    tile = random_tile(random.Random(seed))
    x = random_words(tile["shape"], TYPES[tile["name"]][1], seed)
    count = swizzle_wgmma.tile(x, tile["start"], tile["box"], tile["step"]).nbytes
    here, there = np.zeros(BYTES, np.uint8), np.zeros(16384, np.uint8)
    run(filled(LOAD, tile["start"], None, count=count, mode="tile", offset=2048), map_of(x, tile), here)
    box = interpreters_box(x, tile["name"], tile["step"], tile["swizzle"])
    fields = Host(*box, *tile["box"], *[1] * (5 - len(tile["box"])))
    place = Host(*tile["start"], *[0] * (8 - len(tile["start"])))
    PrimitiveRunner(interpreter_tests(), "cpu").run("tma_load_tile", fields, place, 2048, len(there), there)
    assert np.array_equal(here[: len(there)], there)


def test_tf32_is_rounded_to_even():
    words = np.array([0x3F801000, 0x3F803000, 0x3F801001, 0x3F800FFF, 0xBF801000, 0x7F7FFFFF, 0x7F800000, 0], np.uint32)
    memory = torch.from_numpy(np.tile(words, 8).view(np.float32).copy())
    tensor_map = _emulator.tiled_map(11, memory.data_ptr(), [64], [], [64], element_strides=[1])
    image = np.zeros(BYTES, np.uint8)
    run(filled(LOAD, [0], None, count=256, mode="tile", offset=0), tensor_map, image)
    even = [0x3F800000, 0x3F804000, 0x3F802000, 0x3F800000, 0xBF800000, 0x7F800000, 0x7F800000, 0]
    assert image[:32].view(np.uint32).tolist() == even


def test_what_lies_outside_may_be_nan():
    x = torch.ones(4, 8, dtype=torch.float32)
    image = np.zeros(BYTES, np.uint8)
    tensor_map = _emulator.tiled_map(7, x.data_ptr(), [8, 4], [32], [8, 4], element_strides=[1, 1], nan_fill=True)
    run(filled(LOAD, [4, 2], None, count=128, mode="tile", offset=0), tensor_map, image)
    found = image[:128].view(np.float32).reshape(4, 8)
    inside = np.zeros((4, 8), bool)
    inside[:2, :4] = True
    assert np.array_equal(np.isnan(found), ~inside)
    assert (found[inside] == 1).all()


def test_what_tma_refuses():
    x = random_words([4, 16], np.uint16, 0)
    good = {"name": "f16", "shape": [4, 16], "box": [16, 4], "step": [1, 1], "start": [0, 0], "swizzle": 0}
    ptx = filled(LOAD, [0, 0], None, count=128, mode="tile", offset=0)
    image = np.zeros(BYTES, np.uint8)
    run(ptx, map_of(x, good), image)
    refusals = [
        (ptx, map_of(x, good | {"box": [16, 300]}), "side of its box"),
        (ptx, map_of(x, good | {"swizzle": 1, "box": [32, 4]}), "wider than its swizzle"),
        (ptx, map_of(x, good | {"step": [1, 9]}), "element stride"),
        (ptx, b"\x12" * 128, "no tensor map"),
        (filled(LOAD, [0], None, count=128, mode="tile", offset=0), map_of(x, good), "1 coordinates in a tensor of 2"),
        (filled(LOAD, [0, 0], None, count=128, mode="tile", offset=64), map_of(x, good), "aligned"),
        (filled(LOAD, [0, 0], None, count=112, mode="tile", offset=0), map_of(x, good), "bytes from what|waits"),
    ]
    for text, tensor_map, why in refusals:
        with pytest.raises(_emulator.EmulatorFault, match=why):
            run(text, tensor_map, image)
