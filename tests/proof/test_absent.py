"""Why there is no GPU is said: each cause by a sentence of its own."""

from pathlib import Path

import pytest
import torch

from cnnkernels.certified import without_gpu
from cnnkernels.certified.absent import why_no_gpu


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of device files, under a PyTorch with CUDA."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    (tmp_path / "nvidiactl").touch()
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    return tmp_path


def test_pytorch_without_cuda(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_no_gpu(devices) == "it is built without CUDA"
    assert without_gpu() == "PyTorch sees no GPU to prove the kernels on: it is built without CUDA"


def test_no_device(devices: Path) -> None:
    for name in ("nvidia0", "nvidia1"):
        (devices / name).unlink()
    assert why_no_gpu(devices) == f"there is none, or its driver is not loaded: {devices}/nvidia0 does not exist"


def test_no_permission(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = {devices / "nvidia0"}  # root opens anything, so that modes would not do
    monkeypatch.setattr("os.access", lambda path, mode: path not in shut)
    assert "permission" not in why_no_gpu(devices)  # the other one would do
    shut.add(devices / "nvidia1")
    assert why_no_gpu(devices).startswith(f"no permission to open {devices}/nvidia0: ")


@pytest.mark.parametrize("value", ["", "-1", " "])
def test_hidden(devices: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert why_no_gpu(devices) == f"CUDA_VISIBLE_DEVICES={value!r} hides all of them"


def test_what_pytorch_says_of_an_old_driver(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    assert why_no_gpu(devices) == "The NVIDIA driver on your system is too old (found version 11040)."


def test_none_is_shown(devices: Path) -> None:
    assert "MIG" in why_no_gpu(devices)
