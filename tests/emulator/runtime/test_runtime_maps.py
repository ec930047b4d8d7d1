"""The driver's encoders of tensor maps without a device: what breaks a demand of their documentation, alone and by one,
is refused, and everything on its edge is taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from helpers.emulated import emulated_tests, kernel

INVALID_VALUE, INVALID_CONTEXT, NOT_SUPPORTED = 1, 201, 801  # of CUresult
U8, U16, S32, F16, F32, F64, TF32_FTZ = 0, 1, 3, 6, 7, 8, 12
NONE, SPAN32, SPAN64, SPAN128 = range(4)

TILED = dict(
    type=F16, rank=3, address=1 << 20, sizes=[64, 40, 7], strides=[128, 5120], box=[64, 8, 2], steps=[1, 1, 1],
    swizzle=SPAN128,
)  # fmt: skip
IM2COL = dict(
    type=F16, rank=4, address=1 << 20, sizes=[64, 20, 20, 3], strides=[128, 2560, 51200], lower=[-1, -1],
    upper=[-1, -1], channels=64, pixels=128, steps=[1, 1, 1, 1], swizzle=SPAN128,
)  # fmt: skip


@pytest.fixture
def module() -> Iterator[ModuleType]:
    module = emulated_tests()
    before = module.standing_for()
    module.stand_for("h100")
    module.cuda.attributes(kernel(module, "parameters"))  # a call that makes a context
    yield module
    module.stand_for(before)


def changed(arguments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`box_1=5` changes one number of a list."""
    made = {name: list(value) if isinstance(value, list) else value for name, value in arguments.items()}
    for name, value in changes.items():
        base, _, index = name.rpartition("_")
        if index.isdigit():
            made[base][int(index)] = value
        else:
            made[name] = value
    return made


BOTH_TAKE = [
    {}, {"address": (1 << 20) + 16}, {"sizes_1": 1 << 32}, {"sizes_0": 1}, {"strides_0": (1 << 40) - 16},
    {"strides_1": 0}, {"steps_1": 8}, {"steps_0": 0}, {"swizzle": NONE}, {"fill": 1}, {"type": U16},
]  # fmt: skip
BOTH_REFUSE = [
    ({"address": (1 << 20) + 8}, "address"),
    ({"sizes_1": 0}, "size[1]"),
    ({"sizes_2": (1 << 32) + 1}, "size[2]"),
    ({"strides_0": 120}, "stride[1]"),
    ({"strides_1": 1 << 40}, "stride[2]"),
    ({"steps_1": 0}, "element stride[1]"),
    ({"steps_2": 9}, "element stride[2]"),
    ({"rank": 6}, "rank"),
    ({"rank": 0}, "rank"),
    ({"type": 13}, "type"),
    ({"type": -1}, "type"),
    ({"swizzle": 4}, "swizzle = 4"),
    ({"swizzle": SPAN64}, "wider than the swizzle, 64"),
    ({"type": F32}, "wider than the swizzle, 128"),
    ({"type": U16, "fill": 1}, "NaN"),
    ({"type": S32, "swizzle": NONE, "fill": 1}, "NaN"),
    ({"fill": 2}, "fill"),
    ({"promotion": 4}, "L2 promotion"),
    ({"map_offset": 32}, "map's address"),
]
TILED_TAKES = [
    *BOTH_TAKE, {"box_1": 256}, {"box_1": 1}, {"swizzle": SPAN32, "box_0": 16}, {"swizzle": SPAN64, "box_0": 32},
    {"swizzle": NONE, "box_0": 256}, {"rank": 1, "swizzle": NONE}, {"type": U8, "swizzle": NONE, "box_0": 16},
    {"type": TF32_FTZ, "box_0": 32}, {"type": F64, "box_0": 16, "fill": 1},
]  # fmt: skip
TILED_REFUSES = [
    *BOTH_REFUSE,
    ({"box_1": 0}, "box[1]"),
    ({"box_2": 257}, "box[2]"),
    ({"box_0": 0}, "box[0]"),
    ({"swizzle": NONE, "box_0": 264}, "box[0]"),
    ({"box_0": 60}, "box[0] * element bytes = 120 is not a multiple of 16"),
    ({"type": U8, "box_0": 24}, "box[0] * element bytes = 24"),
    ({"swizzle": SPAN32, "box_0": 24}, "wider than the swizzle, 32"),
]
IM2COL_TAKES = [
    *BOTH_TAKE, {"pixels": 1024}, {"pixels": 1}, {"channels": 8}, {"swizzle": NONE, "channels": 256},
    {"lower_0": -128, "upper_1": 127}, {"lower_0": 18}, {"upper_1": -20},
    {"rank": 3, "lower_0": -32768, "upper_0": 32767}, {"rank": 3, "lower_1": 1000},
    {"rank": 5, "sizes": [64, 20, 20, 20, 3], "strides": [128, 2560, 51200, 1024000], "steps": [1] * 5,
     "lower": [-16] * 3, "upper": [15] * 3},
]  # fmt: skip
IM2COL_REFUSES = [
    *BOTH_REFUSE,
    ({"rank": 2}, "rank"),
    ({"channels": 0}, "channels"),
    ({"channels": 264, "swizzle": NONE}, "channels"),
    ({"channels": 60}, "channels * element bytes = 120 is not a multiple of 16"),
    ({"pixels": 0}, "pixels"),
    ({"pixels": 1025}, "pixels"),
    ({"lower_0": -129}, "lower[0]"),
    ({"upper_1": 128}, "upper[1]"),
    ({"lower_0": 19}, "size[1] + upper - lower = 0 leaves no place"),
    ({"upper_1": -21}, "size[2] + upper - lower = 0 leaves no place"),
    ({"rank": 3, "lower_0": -32769}, "lower[0]"),
    ({"rank": 3, "upper_0": 32768}, "upper[0]"),
    ({"rank": 5, "sizes": [64, 20, 20, 20, 3], "strides": [128, 2560, 51200, 1024000], "steps": [1] * 5,
      "lower": [0, 0, -17], "upper": [0] * 3}, "lower[2]"),
    ({"rank": 5, "sizes": [64, 20, 20, 20, 3], "strides": [128, 2560, 51200, 1024000], "steps": [1] * 5,
      "lower": [0] * 3, "upper": [0, 16, 0]}, "upper[1]"),
]  # fmt: skip
CASES = [("encode_tiled", TILED, TILED_TAKES, TILED_REFUSES), ("encode_im2col", IM2COL, IM2COL_TAKES, IM2COL_REFUSES)]


@pytest.mark.parametrize(("name", "good", "takes", "refuses"), CASES, ids=["tiled", "im2col"])
def test_what_is_demanded(
    module: ModuleType, name: str, good: dict, takes: list[dict], refuses: list[tuple[dict, str]]
) -> None:
    encode = getattr(module.cuda, name)
    maps = set()
    for change in takes:
        status, why, made = encode(**changed(good, **change))
        assert (status, why) == (0, ""), change
        maps.add(made)
    # each says something else, but for what the hardware does not read: the innermost element stride
    assert len(maps) == len(takes) - sum("steps_0" in change for change in takes)
    for change, word in refuses:
        status, why, made = encode(**changed(good, **change))
        assert status == INVALID_VALUE and word in why and module.cuda.why_no_map() == why, (change, why)
        assert made == bytes(128), change


@pytest.mark.parametrize(("name", "good"), [case[:2] for case in CASES], ids=["tiled", "im2col"])
def test_what_a_gpu_has_not(module: ModuleType, name: str, good: dict) -> None:
    encode = getattr(module.cuda, name)
    for interleave in (1, 2):
        assert encode(**good, interleave=interleave)[:2] == (NOT_SUPPORTED, "interleaved layouts are not emulated")
    for gpu in ("a100", "rtx4090"):
        module.stand_for(gpu)
        assert encode(**good)[:2] == (NOT_SUPPORTED, f"{gpu} has no TMA")
    module.stand_for("rtx5090")
    assert encode(**good)[0] == 0


def test_a_thread_without_a_context(module: ModuleType) -> None:
    """As on a GPU a new thread has none before the runtime's first call that makes one."""
    found = []

    def encode() -> None:
        found.append(module.cuda.encode_tiled(**TILED)[0])
        module.cuda.attributes(kernel(module, "parameters"))
        found.append(module.cuda.encode_tiled(**TILED)[0])

    thread = threading.Thread(target=encode)
    thread.start()
    thread.join()
    assert found == [INVALID_CONTEXT, 0]
