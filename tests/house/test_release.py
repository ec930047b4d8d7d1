"""What is shipped: wheels, the layout for the kernels hub, the versions that are served. `make wheels`, `make hub` and
`make matrix` do the rest, with what they install."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "release"))
import hub  # noqa: E402
import matrix  # noqa: E402
import wheels  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub.make(folder := tmp_path_factory.mktemp("hub") / "made")
    return folder


def variants(made: Path) -> list[Path]:
    return sorted((made / "build").iterdir())


def files(folder: Path, ending: str = "") -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob(f"*{ending}") if p.is_file()}


def test_the_hub_gets_every_source(made: Path) -> None:
    """But those of rooms that are named; data that a room reads, too."""
    written = {path.relative_to(ROOT / "cnnkernels") for path in (ROOT / "cnnkernels").rglob("*.py")}
    written |= {path.relative_to(ROOT / "cnnkernels") for path in (ROOT / "cnnkernels/records").rglob("*.json")}
    written |= {path.relative_to(ROOT) for path in (ROOT / "triton_kernels").rglob("*.*") if path.suffix != ".pyc"}
    expected = {str(path) for path in written if not hub.LEFT_OUT & set(path.parts)}
    assert len(expected) > 150 and "ops/conv.py" in expected
    assert files(made / "torch-ext" / "cnnkernels") == expected
    for variant in variants(made):
        assert files(variant) == expected | {"metadata.json"}


def test_what_the_hub_reads_of_a_variant(made: Path) -> None:
    general = tomllib.loads((made / "build.toml").read_text())["general"]
    assert [path.name for path in variants(made)] == [f"torch-{backend}" for backend in sorted(general["backends"])]
    assert (made / "flake.nix").exists() and (made / "CARD.md").exists()
    ids = set()
    for variant in variants(made):
        said = json.loads((variant / "metadata.json").read_text())
        assert said["backend"]["type"] == variant.name.removeprefix("torch-")
        assert (said["name"], said["version"], said["license"]) == ("cnnkernels", general["version"], "BSD-3-Clause")
        assert said["license"] == PROJECT["project"]["license"]
        digest = said["digest"]["files"]
        assert set(digest) == files(variant) - {"metadata.json"}
        for name, value in digest.items():
            assert base64.b64decode(value) == hashlib.sha256((variant / name).read_bytes()).digest(), name
        assert said["id"].isidentifier() and hub.unique() in said["id"]
        ids.add(said["id"])
    assert len(ids) == len(variants(made))


def test_another_version_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before, found = hub.unique(), list(hub.sources())
    monkeypatch.setattr(hub, "sources", lambda: iter(found[1:]))
    assert hub.unique() != before


def test_no_file_of_the_hub_names_the_package(made: Path) -> None:
    """It is imported under another name: an import of this one would find whatever is installed, or nothing."""
    seen = 0
    for path in (made / "torch-ext").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.partition(".")[0] == "cnnkernels"], path
            elif isinstance(node, ast.ImportFrom):
                seen += node.level > 0
                assert (node.module or "").partition(".")[0] != "cnnkernels" or node.level, path
            elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("importlib."):
                assert "cnnkernels" not in ast.unparse(node), f"{path}: {ast.unparse(node)}"
            elif isinstance(node, ast.Attribute):
                assert not re.fullmatch(r"torch\.ops\.cnnkernels\w*", ast.unparse(node)), path
    assert seen > 300


LOADED = """
import importlib.util, json, sys
from pathlib import Path
import torch

def load(variant):  # as the hub's client does
    name = json.loads((variant / "metadata.json").read_text())["id"]
    spec = importlib.util.spec_from_file_location(name, variant / "__init__.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

x, w = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(3, 2, 3, 3)
for variant in sorted(Path(sys.argv[1]).iterdir()):
    kernel = load(variant)
    assert not [name for name in sys.modules if name.partition(".")[0] == "cnnkernels"]
    with kernel.use_backend("triton"):
        y = kernel.functional.conv2d(x, w)
    (grad,) = torch.autograd.grad(y.sum(), x)
    print(kernel.__name__, y.unique().tolist(), grad.sum().item(), *kernel.available_backends("cpu"))
found = {name.partition("::")[0] for name in torch._C._dispatch_get_all_op_names()}
print(*sorted(name.removesuffix("_capture") for name in found if "cnnkernels" in name))
"""


def test_two_variants_in_one_process_have_a_namespace_each(made: Path) -> None:
    command = [sys.executable, "-c", LOADED, str(made / "build")]
    clean = {"CNNKERNELS_INTERPRET": "1", "PATH": "/usr/bin:/bin", "HOME": str(made), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=made, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids = [json.loads((variant / "metadata.json").read_text())["id"] for variant in variants(made)]
    *calls, namespaces = done.stdout.splitlines()
    assert calls == [f"{name} [18.0] 216.0 triton reference" for name in ids]
    assert namespaces.split() == sorted(ids * 2)  # one is for what marks places of a graph


def test_a_wheel_that_lacks_a_module_is_seen(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    names = [f"cnnkernels/{module}.cpython-311-x86_64-linux-gnu.so" for module in wheels.MODULES - {"_emulator"}]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*names, "cnnkernels/cli/_emulator.py"]:
            archive.writestr(name, "")
    assert wheels.lacking(wheel) == {"_emulator", "_emulated.zip"}


def test_every_python_that_is_served_gets_a_wheel() -> None:
    said = [row.rpartition(" ")[2] for row in PROJECT["project"]["classifiers"] if row.count("Python :: 3.")]
    assert list(wheels.VERSIONS) == said and PROJECT["project"]["requires-python"] == f">={said[0]}"
    identifiers = [f"cp{version.replace('.', '')}-manylinux_x86_64" for version in said]
    assert PROJECT["tool"]["cibuildwheel"]["build"] == identifiers


def test_the_matrix_has_the_oldest_and_the_newest_that_are_served() -> None:
    served = [matrix.combination(text) for text in matrix.COMBINATIONS]
    needed = dict(re.findall(r"^(torch|triton)>=([\d.]+)", "\n".join(PROJECT["project"]["dependencies"]), re.MULTILINE))
    pinned = dict(re.findall(r"^(torch|triton)==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {"torch": served[0].torch, "triton": served[0].triton} == needed
    assert {"torch": served[-1].torch, "triton": served[-1].triton} == pinned
    paths = [path for path in (*matrix.TESTS,) if not (ROOT / path).exists()]
    assert not paths


@pytest.mark.parametrize("text", ["2.11", "2.11:3", "2.11.0:3.6", "2.11:3.6:3.12:4", "torch:triton"])
def test_a_combination_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(matrix.argparse.ArgumentTypeError, match="TORCH:TRITON"):
        matrix.combination(text)
