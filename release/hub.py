"""The operators for the Hugging Face kernels hub: `make hub`.

    python release/hub.py [FOLDER]

Into build/hub, or the folder, comes a project for kernel-builder (build.toml, flake.nix, CARD.md, torch-ext/cnnkernels)
and beside it, in build/, the variants that it makes of one without native code, which `kernels.get_local_kernel` loads.
A variant is the package itself, imported under its `id`: that is the operators' namespace too (cnnkernels/package.py),
so that two versions can be in one process. It has what Triton and PyTorch serve. The hub asks of native code for one
binary of all versions of Python, which the bindings, pybind11's, are not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIVEN = ROOT / "release" / "hub"
SETTINGS = tomllib.loads((GIVEN / "build.toml").read_text())
GENERAL = SETTINGS["general"]
# Programs for a terminal and a browser, and what runs the PTX of native modules.
LEFT_OUT = {"cli", "learn", "emulator", "__main__.py", "py.typed"}


def sources() -> Iterator[tuple[Path, Path]]:
    """Each file that goes along, and its place in the package."""
    endings = {f".{ending}" for ending in SETTINGS["torch-noarch"]["pyext"]}
    for root, place in ((ROOT / "cnnkernels", Path()), (ROOT / "triton_kernels", Path("triton_kernels"))):
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if path.suffix in endings and path.is_file() and not {"__pycache__", *LEFT_OUT} & set(name.parts):
                yield path, place / name


def unique() -> str:
    """Of what the files say, so that it names this version of them and no other."""
    digest = hashlib.sha256()
    for path, place in sources():
        digest.update(f"{place}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def copy(to: Path) -> None:
    for path, place in sources():
        (to / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to / place)


def metadata(variant: Path, backend: str) -> dict[str, object]:
    """What a variant's metadata.json says; the digest is of every file but itself."""
    files = {
        path.relative_to(variant).as_posix(): base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
        for path in sorted(variant.rglob("*"))
        if path.is_file()
    }
    return {
        "name": GENERAL["name"],
        "id": f"_{GENERAL['name']}_{backend}_{unique()}",
        "version": GENERAL["version"],
        "license": GENERAL["license"],
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": files},
    }


def make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(GIVEN, folder)
    copy(folder / "torch-ext" / GENERAL["name"])
    for backend in GENERAL["backends"]:
        variant = folder / "build" / f"torch-{backend}"
        copy(variant)
        (variant / "metadata.json").write_text(json.dumps(metadata(variant, backend), indent=2) + "\n")


if __name__ == "__main__":
    made = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "hub"
    make(made)
    print(f"{made}: {sum(1 for _ in sources())} files, for {' and '.join(GENERAL['backends'])}, as {unique()}")
