"""`cnnkernels summary`: the table, the picture, and sentences for what is no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnkernels.cli import main as cli

NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()

ready = Net()
number = lambda: 5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["my_network:Net", "my_network:ready"])
def test_the_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["summary", name, "--input", "2,3,10,10"]) == 0
    header, conv, norm, total, note = capsys.readouterr().out.splitlines()
    assert header.split() == ["layer", "kind", "input", "output", "parameters", "MFLOP", "MB", "floor", "us"]
    assert conv.split()[:6] == ["conv", "Conv2d", "2x3x10x10", "2x8x8x8", "224", "0.1"]
    assert norm.split()[:5] == ["norm", "BatchNorm2d", "2x8x8x8", "2x8x8x8", "16"]
    assert total.split()[:2] == ["all", "240"] and "a model's, for an h200" in note


def test_the_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["summary", "my_network:Net", "--input", "1,3,8,8", "--output", "cost.png"]) == 0
    assert (folder / "cost.png").stat().st_size > 1000 and "wrote cost.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "gpu", "says"),
    [
        ("my_network", "h200", "must be given as module:factory, but got 'my_network'"),
        ("no_such:Net", "h200", "no_such:Net cannot be found: No module named 'no_such'"),
        ("my_network:Other", "h200", "my_network:Other cannot be found"),
        ("my_network:number", "h200", "must make a torch.nn.Module, but made int"),
        ("my_network:Net", "voodoo2", "voodoo2"),
    ],
)
def test_refusals(name: str, gpu: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["summary", name, "--input", "1,3,8,8", "--gpu", gpu])
    assert left.value.code == 2 and says in capsys.readouterr().err
