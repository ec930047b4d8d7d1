"""What the kernels are called with, and what PyTorch makes of it: small integers, so that every result is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Box:
    """A tensor behind a tensor map. `swizzle` is Gluon's, whose layouts are the caller's; else Triton chooses."""

    tensor: torch.Tensor
    block: list[int]
    swizzle: int | None = None
    padding: str = "zero"
    multicast: bool = False  # over the cluster's two blocks
    split: bool = False  # each of them has half of the rows


@dataclass(frozen=True)
class Case:
    name: str
    kernel: str
    arguments: Callable[[], dict[str, Any]]  # tensors, boxes, numbers; in the kernel's order
    expected: Callable[[dict[str, Any]], dict[str, torch.Tensor]]  # of the arguments that it writes
    grid: tuple[int, int, int] = (1, 1, 1)
    constants: dict[str, Any] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3
    blocks: int = 1  # of a cluster
    arch: int = 90


def integers(*shape: int, dtype: torch.dtype = torch.float16, most: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randint(-most, most + 1, shape, generator=generator).to(dtype)


def product(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (a.double() @ b.double()).to(dtype)


def stored(matrix: torch.Tensor, columns_first: bool) -> torch.Tensor:
    """The same matrix, its columns dense in memory."""
    return matrix.t().contiguous().t() if columns_first else matrix.contiguous()


def tiles(size: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int, int]:
    return (-(-size[0] // tile[0]), -(-size[1] // tile[1]), 1)


def matmul(
    name: str,
    dtype: torch.dtype,
    size: tuple[int, int, int],
    tile: tuple[int, int, int],
    *,
    majors: str = "kk",
    out: torch.dtype = torch.float32,
    sums: str = "float32",
    **options: Any,
) -> Case:
    m, n, k = size

    def arguments() -> dict[str, Any]:
        a = stored(integers(m, k, dtype=torch.float32, seed=1).to(dtype), majors[0] == "m")
        b = stored(integers(k, n, dtype=torch.float32, seed=2).to(dtype), majors[1] == "k")
        strides = {"sam": a.stride(0), "sak": a.stride(1), "sbk": b.stride(0), "sbn": b.stride(1)}
        return {"a": a, "b": b, "c": torch.zeros(m, n, dtype=out), "M": m, "N": n, "K": k, **strides}

    constants = {"BM": tile[0], "BN": tile[1], "BK": tile[2], "SUM": sums}
    return Case(
        name,
        "matmul",
        arguments,
        lambda given: {"c": product(given["a"], given["b"], out)},
        tiles(size[:2], tile[:2]),
        constants,
        **options,
    )


def tma_matmul(
    name: str,
    dtype: torch.dtype,
    size: tuple[int, int, int],
    tile: tuple[int, int, int],
    *,
    majors: str = "kk",
    out: torch.dtype = torch.float16,
    sums: str = "float32",
    **options: Any,
) -> Case:
    m, n, k = size
    a_first, b_first = majors[0] == "m", majors[1] == "k"

    def arguments() -> dict[str, Any]:
        a, b = integers(m, k, dtype=dtype, seed=3), integers(k, n, dtype=dtype, seed=4)
        return {
            "a": Box(a.t().contiguous() if a_first else a, [tile[2], tile[0]] if a_first else [tile[0], tile[2]]),
            "b": Box(b.t().contiguous() if b_first else b, [tile[1], tile[2]] if b_first else [tile[2], tile[1]]),
            "c": Box(torch.zeros(m, n, dtype=out), [tile[0], tile[1]]),
            "K": k,
        }

    def expected(given: dict[str, Any]) -> dict[str, torch.Tensor]:
        a, b = given["a"].tensor, given["b"].tensor
        return {"c": product(a.t() if a_first else a, b.t() if b_first else b, out)}

    constants = {"BM": tile[0], "BN": tile[1], "BK": tile[2], "AT": a_first, "BT": b_first, "SUM": sums}
    return Case(name, "tma_matmul", arguments, expected, tiles(size[:2], tile[:2]), constants, **options)


def device_maps() -> Case:
    def arguments() -> dict[str, Any]:
        a, b = integers(104, 200, seed=5), integers(200, 136, seed=6)
        return {"a": a, "b": b, "c": torch.zeros(104, 136, dtype=torch.float16), "M": 104, "N": 136, "K": 200}

    return Case(
        "maps made by the kernel",
        "device_maps_matmul",
        arguments,
        lambda given: {"c": product(given["a"], given["b"], torch.float16)},
        (2, 2, 1),
        {"BM": 64, "BN": 128, "BK": 64},
    )


def doubled(given: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"y": given["x"].tensor * 2}


def tma_double(name: str, shape: tuple[int, int], block: list[int], dtype: torch.dtype) -> Case:
    def arguments() -> dict[str, Any]:
        x = integers(*shape, dtype=dtype, most=30)
        return {"x": Box(x, block), "y": Box(torch.zeros_like(x), block)}

    constants = {"BM": block[0], "BN": block[1]}
    return Case(name, "tma_double", arguments, doubled, tiles(shape, (block[0], block[1])), constants)


def tma_double_5d() -> Case:
    block = [2, 2, 4, 4, 8]

    def arguments() -> dict[str, Any]:
        x = integers(2, 3, 3, 6, 8, most=30)
        return {"x": Box(x, block), "y": Box(torch.zeros_like(x), block)}

    def expected(given: dict[str, Any]) -> dict[str, torch.Tensor]:
        y, x = torch.zeros_like(given["x"].tensor), given["x"].tensor
        for i in range(2):
            part = (slice(None), slice(2 * i, 2 * i + 2), slice(None), slice(4 * i, 4 * i + 4))
            y[part] = x[part] * 2
        return {"y": y}

    constants = dict(zip("PQRST", block, strict=True))
    return Case("TMA of five dimensions", "tma_double_5d", arguments, expected, (2, 1, 1), constants)


def nan_padding() -> Case:
    """x[40, 72] by boxes of [32, 64], the second of which lies outside for the most part; y is larger."""

    def arguments() -> dict[str, Any]:
        x = integers(40, 72, dtype=torch.float32, most=30)
        return {"x": Box(x, [32, 32], padding="nan"), "y": Box(torch.zeros(64, 96), [32, 32])}

    def expected(given: dict[str, Any]) -> dict[str, torch.Tensor]:
        y = torch.full((64, 96), float("nan"))
        y[:40, :72] = given["x"].tensor * 2
        return {"y": y}

    return Case("TMA that fills with NaN", "tma_double", arguments, expected, (2, 3, 1), {"BM": 32, "BN": 32})


def tma_load_3d() -> Case:
    def arguments() -> dict[str, Any]:
        return {"x": Box(integers(4, 8, 16, most=30), [4, 4, 16]), "y": torch.zeros(4, 4, 16, dtype=torch.float16)}

    return Case(
        "TMA load of three dimensions",
        "tma_load_3d",
        arguments,
        lambda given: {"y": given["x"].tensor[:, 1:5]},
        constants={"P": 4, "Q": 4, "R": 16},
    )


def narrow(dtype: torch.dtype, arch: int) -> Case:
    def arguments() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        bits = torch.randint(-(1 << 31), 1 << 31, (4096,), generator=generator).to(torch.int32).view(torch.float32)
        near = torch.randn(4096, generator=generator)
        return {
            "x": torch.where(bits.isfinite() & (torch.arange(4096) % 2 == 0), bits, near),
            "y": torch.zeros(4096, dtype=dtype),
        }

    return Case(
        f"f32 to {dtype}, sm_{arch}",
        "narrow",
        arguments,
        lambda given: {"y": given["x"].to(dtype)},
        constants={"N": 4096},
        arch=arch,
    )


def tma_reduce() -> Case:
    def arguments() -> dict[str, Any]:
        x = integers(96, 64, dtype=torch.float32, most=30)
        return {"x": Box(x, [32, 64]), "y": Box(torch.zeros(32, 64), [32, 64])}

    return Case(
        "TMA that adds",
        "tma_reduce",
        arguments,
        lambda given: {"y": given["x"].tensor.view(3, 32, 64).sum(0)},
        (3, 1, 1),
        {"BM": 32, "BN": 64},
    )


def scaled_matmul(dtype: torch.dtype) -> Case:
    def arguments() -> dict[str, Any]:
        return {"a": integers(64, 128, dtype=dtype), "b": integers(128, 64, dtype=dtype), "c": torch.zeros(64, 64)}

    return Case(
        f"wgmma with A in registers, {dtype}",
        "scaled_matmul",
        arguments,
        lambda given: {"c": product(given["a"] * 2 + 1, given["b"], torch.float32)},
        constants={"K": 128, "BM": 64, "BN": 64, "BK": 64},
    )


def chained_matmul() -> Case:
    def arguments() -> dict[str, Any]:
        a, b, d = integers(64, 64, most=1), integers(64, 32, most=1), integers(32, 64, most=1)
        return {"a": a, "b": b, "d": d, "c": torch.zeros(64, 64)}

    return Case(
        "wgmma of an accumulator",
        "chained_matmul",
        arguments,
        lambda given: {"c": product(given["a"].double() @ given["b"].double(), given["d"], torch.float32)},
        constants={"K": 64, "BM": 64, "BN": 32, "BP": 64},
    )


def row_sums(arch: int) -> Case:
    def arguments() -> dict[str, Any]:
        return {"x": integers(16, 512, dtype=torch.float32), "out": torch.zeros(16)}

    return Case(
        f"row sums, sm_{arch}",
        "row_sums",
        arguments,
        lambda given: {"out": given["x"].sum(1)},
        constants={"COLS": 512, "ROWS": 16},
        arch=arch,
    )


def multicast() -> Case:
    def arguments() -> dict[str, Any]:
        return {
            "a": Box(integers(128, 128), [128, 64], 128, split=True),
            "b": Box(integers(128, 64, seed=1), [64, 64], 128, multicast=True),
            "c": torch.zeros(128, 64),
        }

    return Case(
        "multicast in a cluster of two",
        "multicast_matmul",
        arguments,
        lambda given: {"c": product(given["a"].tensor, given["b"].tensor, torch.float32)},
        constants={"K": 128, "BM": 128, "BN": 64, "BK": 64, "D": ("mma", 64, 16, True)},
        blocks=2,
    )


def late_wait() -> Case:
    def arguments() -> dict[str, Any]:
        return {
            "a": Box(integers(64, 320), [64, 64], 128),
            "b": Box(integers(320, 64, seed=1), [64, 64], 128),
            "c": torch.zeros(64, 64),
        }

    return Case(
        "a product in flight while the next one's operands come",
        "late_wait_matmul",
        arguments,
        lambda given: {"c": product(given["a"].tensor, given["b"].tensor, torch.float32)},
        constants={"K": 320, "BM": 64, "BN": 64, "BK": 64, "D": ("mma", 64, 16, False)},
    )


def any_layout(
    dtype: torch.dtype, swizzles: tuple[int, int], majors: str, size: tuple[int, int, int], **options: Any
) -> Case:
    m, n, k = size
    a_first, b_first = majors[0] == "m", majors[1] == "k"

    def arguments() -> dict[str, Any]:
        a, b = integers(m, k, dtype=torch.float32).to(dtype), integers(k, n, dtype=torch.float32, seed=1).to(dtype)
        return {
            "a": a.t().contiguous() if a_first else a,
            "b": b.t().contiguous() if b_first else b,
            "c": torch.zeros(m, n, dtype=torch.int32 if dtype == torch.int8 else torch.float32),
        }

    def expected(given: dict[str, Any]) -> dict[str, torch.Tensor]:
        a, b = given["a"], given["b"]
        return {"c": product(a.t() if a_first else a, b.t() if b_first else b, given["c"].dtype)}

    bits = dtype.itemsize * 8
    constants = {
        "BM": m, "BN": n, "BK": k,
        "LA": ("shared", swizzles[0], bits, a_first), "LB": ("shared", swizzles[1], bits, b_first),
        "AT": a_first, "BT": b_first, "D": ("mma", n, bits, False), "REG": ("blocked",),
        "SUM": "int32" if dtype == torch.int8 else "float32",
    }  # fmt: skip
    name = f"wgmma of {dtype} {majors} {m}x{n}x{k}, swizzles {swizzles[0]} and {swizzles[1]}"
    return Case(name, "any_layout_matmul", arguments, expected, constants=constants, **options)


h, b16, f, s8 = torch.float16, torch.bfloat16, torch.float32, torch.int8
e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2

CASES = [
    matmul("one f16 tile", h, (64, 64, 64), (64, 64, 64), stages=1),
    matmul("f16, both K-major", h, (100, 72, 144), (64, 64, 64)),
    matmul("f16, A M-major, B N-major", h, (104, 72, 144), (64, 64, 64), majors="mn"),
    matmul("f16, A K-major, B N-major, f16 out", h, (104, 72, 144), (64, 64, 64), majors="kn", out=h),
    matmul("bf16, A M-major, B K-major", b16, (104, 72, 144), (64, 64, 64), majors="mk"),
    matmul("tf32", f, (72, 72, 100), (64, 64, 32)),
    matmul("s8", s8, (100, 80, 208), (64, 64, 128), out=torch.int32, sums="int32"),
    matmul("e4m3", e4m3, (64, 64, 256), (64, 64, 128)),
    matmul("e5m2", e5m2, (64, 64, 256), (64, 64, 128)),
    matmul("f16 summed in f16", h, (64, 64, 64), (64, 64, 64), sums="float16", out=h),
    matmul("f16, 128 x 128, 8 warps", h, (144, 136, 160), (128, 128, 64), majors="kn", warps=8),
    matmul("f16, swizzle of 64 bytes", h, (72, 72, 80), (64, 64, 32)),
    matmul("f16, swizzle of 32 bytes", h, (72, 72, 40), (64, 64, 16)),
    matmul("f16, 64 x 256", h, (64, 264, 128), (64, 256, 64), majors="kn"),
    matmul("mma.sync f16", h, (40, 40, 80), (32, 32, 32)),
    matmul("mma.sync f16, transposed operands", h, (40, 40, 80), (32, 32, 32), majors="mn"),
    matmul("mma.sync bf16", b16, (40, 40, 80), (32, 32, 32)),
    matmul("mma.sync tf32", f, (40, 40, 80), (32, 32, 32)),
    matmul("mma.sync s8", s8, (40, 48, 80), (32, 32, 32), out=torch.int32, sums="int32"),
    matmul("sm_80 f16", h, (72, 40, 80), (64, 32, 32), arch=80),
    matmul("sm_80 bf16, transposed operands", b16, (72, 40, 80), (64, 32, 32), majors="mn", arch=80),
    matmul("sm_80 tf32", f, (72, 40, 80), (64, 32, 32), arch=80),
    matmul("sm_80 s8", s8, (72, 48, 80), (64, 32, 32), out=torch.int32, sums="int32", arch=80),
    matmul("sm_80 f64", torch.float64, (40, 40, 40), (32, 32, 16), out=torch.float64, sums="float64", arch=80),
    matmul("sm_90 f64", torch.float64, (40, 40, 40), (32, 32, 16), out=torch.float64, sums="float64"),
    tma_matmul("TMA, one tile", h, (64, 64, 64), (64, 64, 64), majors="kn", stages=1),
    tma_matmul("TMA f16, B N-major", h, (104, 136, 200), (64, 128, 64), majors="kn"),
    tma_matmul("TMA f16, both K-major", h, (104, 136, 200), (64, 128, 64)),
    tma_matmul("TMA bf16, A M-major, B N-major", b16, (104, 136, 200), (64, 128, 64), majors="mn", out=b16),
    tma_matmul("TMA f16, 8 warps", h, (136, 136, 200), (128, 128, 64), majors="kn", warps=8),
    tma_matmul("TMA s8", s8, (80, 80, 208), (64, 64, 64), out=torch.int32, sums="int32"),
    tma_matmul("TMA tf32", f, (72, 72, 100), (64, 64, 32), out=f),
    tma_matmul("TMA f16, a cluster of two", h, (136, 136, 200), (128, 128, 64), blocks=2),
    device_maps(),
    tma_double("TMA copy f16", (40, 72), [32, 64], h),
    tma_double("TMA copy of 32-byte rows", (40, 40), [32, 16], h),
    tma_double("TMA copy s32", (40, 40), [32, 32], torch.int32),
    tma_double_5d(),
    tma_load_3d(),
    *(narrow(dtype, arch) for dtype in (h, b16) for arch in (80, 90)),
    nan_padding(),
    tma_reduce(),
    scaled_matmul(h),
    scaled_matmul(b16),
    chained_matmul(),
    row_sums(80),
    row_sums(90),
    multicast(),
    late_wait(),
    *(any_layout(h, swizzles, "kk", (64, 64, 64)) for swizzles in ((32, 64), (128, 32), (64, 128))),
    *(any_layout(h, swizzles, "mn", (64, 64, 64)) for swizzles in ((32, 64), (128, 32), (64, 128))),
    any_layout(b16, (128, 128), "mk", (64, 128, 128)),
    any_layout(h, (128, 128), "kn", (128, 256, 64), warps=8),
    any_layout(s8, (128, 64), "kk", (64, 64, 128)),
    any_layout(s8, (64, 32), "kk", (64, 32, 64)),
    any_layout(e4m3, (128, 32), "kk", (64, 64, 128)),
    any_layout(e5m2, (64, 64), "kk", (64, 64, 64)),
    any_layout(f, (128, 64), "kk", (64, 64, 32)),
]  # fmt: skip
