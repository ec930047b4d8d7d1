"""Who looks on at the INT8 operators: torch.compile, torch.export, opcheck, vmap and the choice of a backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import backends, functional, nn, use_backend
from helpers.int8 import floats, integers


class Chain(torch.nn.Module):
    """conv, relu, int8 in between, then a linear layer of the pixels' channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        given = {"activation": "relu", "out_scale": 0.03, "out_zero_point": -128}
        self.first = nn.Int8Conv2d.from_float(torch.nn.Conv2d(8, 12, 3, 2, 1, groups=2), input_scale=0.03, **given)
        self.last = nn.Int8Linear.from_float(torch.nn.Linear(12, 5), input_scale=0.03, input_zero_point=-128)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).movedim(1, -1))


def test_compile_export_and_the_dispatcher_see_the_operators(device: str) -> None:
    torch.compiler.reset()
    net, x = Chain().to(device), floats((2, 8, 7, 9), 2, -3, 3).to(device)
    with use_backend("reference"), torch.no_grad():
        right = net(x)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=True)
        assert torch.equal(compiled(x), right) and torch.equal(compiled(x[:1]), right[:1])
        batch = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
        program = torch.export.export(net, (x,), dynamic_shapes=batch)
        assert torch.equal(program.module()(x[:1]), right[:1])
        called = {str(node.target) for node in program.graph.nodes}
        assert {"cnnkernels.int8_conv.default", "cnnkernels.int8_gemm.default"} <= called
        each = torch.func.vmap(lambda image: net(image[None])[0])(x)
    assert torch.equal(each, right)


@pytest.mark.parametrize("out_dtype", [torch.int32, torch.float16, torch.int8], ids=str)
def test_opcheck(backend: str, device: str, out_dtype: torch.dtype) -> None:
    """Schema, fake kernel (sizes, strides, dtype) and tracing of both operators, as their functions call them."""
    a, b = integers((5, 7), 1).to(device), integers((6, 7), 2).to(device).t()
    x, w = integers((2, 4, 6, 5), 3).to(device), integers((6, 4, 3, 3), 4).to(device)
    given: dict[str, Any] = {"out_dtype": out_dtype}
    if out_dtype is not torch.int32:
        given |= {"bias": floats((6,), 5).to(device), "activation": "relu6"}
    if out_dtype is torch.int8:
        given["out_scale"] = torch.tensor([2.0], device=device)
    calls: list[tuple[Any, tuple[Any, ...]]] = []

    class Seeing(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "cnnkernels":
                calls.append((func, args))
            return func(*args, **(kwargs or {}))

    with use_backend(backend), Seeing():
        functional.int8_gemm(a, b, zero_point_a=3, **given)
        functional.int8_conv2d(x, w, given.pop("bias", None), 2, 1, **given)
    assert [func.__name__ for func, _ in calls] == ["int8_gemm.default", "int8_conv.default"]
    for func, args in calls:
        torch.library.opcheck(func, args)


def test_the_kernels_take_what_the_operators_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_missing", lambda backend, device: None)
    for op in ("int8_gemm", "int8_conv2d"):
        for dtype in (torch.int8, torch.uint8):
            problem = backends.Problem(op, "cuda", dtype, (8, 0))
            assert backends.decide(problem, "auto").backend == "cuda"
        problem = backends.Problem(op, "cuda", torch.float16, (9, 0))
        assert backends.decide(problem, "triton").reason == "the kernels take int8 and uint8, not float16"
