"""The INT8 operators' problem sizes, each with its reason. Tests, checks and docs read them."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import ConvCase


@dataclass(frozen=True)
class Int8GemmCase:
    """[m, k] times [k, n]."""

    reason: str
    m: int
    n: int
    k: int

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")


INT8_GEMM: tuple[Int8GemmCase, ...] = (
    Int8GemmCase("one product", 1, 1, 1),
    Int8GemmCase("one row streams the weight", 1, 72, 160),
    Int8GemmCase("sixteen rows still do", 16, 40, 96),
    Int8GemmCase("seventeen no more", 17, 24, 64),
    Int8GemmCase("odd sizes break vectors", 7, 13, 37),
    Int8GemmCase("one past a step of 32 products", 33, 33, 33),
    Int8GemmCase("several tiles each way", 150, 140, 48),
    Int8GemmCase("few outputs of long sums split K", 20, 9, 1100),
    Int8GemmCase("a column", 67, 1, 19),
    Int8GemmCase("many columns of two rows", 2, 301, 20),
)

_SAME = (1, 1, 1, 1)

INT8_CONV2D: tuple[ConvCase, ...] = (
    ConvCase("one product", 1, 1, 1, 1, 1, 1, 1),
    ConvCase("3x3 of whole vectors", 2, 16, 7, 6, 24, 3, 3, padding=_SAME),
    ConvCase("1x1 is a product", 2, 32, 5, 6, 40, 1, 1),
    ConvCase("1x1 stride 2 skips pixels", 2, 16, 7, 6, 8, 1, 1, stride=(2, 2)),
    ConvCase("stem 7x7 stride 2 of 3 channels", 1, 3, 11, 13, 8, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3)),
    ConvCase("several tiles each way", 1, 48, 12, 13, 136, 3, 3, padding=_SAME),
    ConvCase("odd channels break vectors", 2, 5, 6, 7, 7, 3, 3, padding=_SAME),
    ConvCase("uneven everything", 2, 9, 11, 8, 10, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1)),
    ConvCase("padding above the kernel", 1, 8, 4, 3, 8, 3, 2, padding=(5, 4, 3, 6)),
    ConvCase("stride above kernel skips inputs", 2, 8, 10, 11, 8, 2, 2, stride=(4, 3)),
    ConvCase("two groups of whole vectors", 1, 32, 6, 5, 48, 3, 3, padding=_SAME, groups=2),
    ConvCase("groups of odd width", 2, 9, 6, 5, 6, 3, 3, padding=_SAME, groups=3),
    ConvCase("depthwise", 2, 32, 8, 7, 32, 3, 3, padding=_SAME, groups=32),
    ConvCase("depthwise of odd channels, dilated", 1, 10, 8, 7, 10, 3, 3, (1, 1), (2, 2, 2, 2), (2, 2), groups=10),
    ConvCase("depthwise with multiplier and stride", 1, 6, 9, 8, 12, 5, 5, (2, 2), (2, 2, 2, 2), groups=6),
)  # fmt: skip
