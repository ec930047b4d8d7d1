"""What an installed copy must do, run by .ci/wheel outside the checkout: kernels, no-triton or no-kernels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import cnnkernels


def expect_refusal(backend: str, *words: str) -> None:
    """A backend that is not there says so in one sentence that names the remedy."""
    try:
        convolve(backend)
    except (RuntimeError, ImportError) as error:
        assert all(word in str(error) for word in words), error
        print(f"{backend}: {error}")
    else:
        raise AssertionError(f"the {backend} backend served a call it has no kernels for")


def convolve(backend: str) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(1, 2, 5, 5, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    with cnnkernels.use_backend(backend):
        y = cnnkernels.functional.max_pool2d(cnnkernels.functional.conv2d(x, w), 2)
    torch.testing.assert_close(y, F.max_pool2d(F.conv2d(x, w), 2))
    print(f"{backend}: as PyTorch")


def main(state: str) -> None:
    checkout = Path(__file__).resolve().parent.parent
    assert checkout not in Path(cnnkernels.__file__).resolve().parents, "this is the checkout, not an installed copy"
    assert importlib.util.find_spec("triton_kernels") is None, "triton_kernels must not be importable by that name"
    assert importlib.util.find_spec("cnnkernels.triton_kernels") is not None
    convolve("auto")
    convolve("reference")
    if state == "kernels":
        convolve("cuda")
        convolve("triton")
    elif state == "no-triton":
        convolve("cuda")
        expect_refusal("triton", "triton is not installed", "pip install")
    else:
        expect_refusal("cuda", "not built", "make build")
        expect_refusal("triton", "triton is not installed", "pip install")


if __name__ == "__main__":
    main(sys.argv[1])
