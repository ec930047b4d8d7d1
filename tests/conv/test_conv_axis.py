"""An index in mixed radix leads where plain division says, also beyond 2^31 and where digits were joined."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.native import PrimitiveRunner

# Three digits, the fastest first: size, stride, h, w.
AXES = {
    "windows": [(9, 4, 0, 2), (7, 300, 3, 0), (5, 40000, 0, 0)],
    "joined": [(8, 1, 0, 0), (9, 8, 0, 0), (10, 72, 0, 0)],
    "ones dropped": [(1, 5, 0, 1), (11, 3, 0, 1), (1, 7, 1, 0)],
    "backwards taps": [(4, 1, 0, 0), (3, -64, 0, -1), (3, -640, -1, 0)],
    "more than 2^31 pixels": [(46341, 3, 0, 1), (46348, 139050, 1, 0), (7, 2**34, 0, 0)],
    "too long to join": [(2**20, 1, 0, 0), (2**12, 2**20, 0, 0), (3, 2**32, 0, 0)],
}


@pytest.mark.parametrize("digits", AXES.values(), ids=AXES)
def test_walk(runner: PrimitiveRunner, digits: list[tuple[int, int, int, int]]) -> None:
    extent = digits[0][0] * digits[1][0] * digits[2][0]
    for first in {0, 1, extent // 2, max(0, extent - 200), extent - 1}:
        by = np.array([b for b in (0, 1, 2, 3, 7, 31, 32, 63, 127, 199) if first + b < extent], np.int64)
        out = np.zeros((len(by), 3), np.int64)
        runner.run("conv_axis_walk", first, by, out, len(by), *(field for digit in digits for field in digit))
        for index, found in zip(first + by, out, strict=True):
            rest, expected = int(index), [0, 0, 0]
            for size, *moves in digits:
                rest, d = divmod(rest, size)
                expected = [total + d * move for total, move in zip(expected, moves, strict=True)]
            assert found.tolist() == expected
