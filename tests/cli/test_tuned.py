"""Tables of measured plans: read, refused with the reason, and obeyed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.records import tuned
from helpers.conv import integers
from helpers.tuned import CASE, PLAN, ROW, TABLE, forget


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A table in a file that CNNKERNELS_TUNED names."""
    path = tmp_path / "h200.json"
    tuned.save(TABLE, path)
    monkeypatch.setenv("CNNKERNELS_TUNED", str(path))
    forget()
    yield path
    forget()


def test_what_was_saved_is_loaded(written: Path) -> None:
    assert tuned.load(written) == TABLE
    lines = written.read_text().splitlines()
    assert [line.count('"backend"') for line in lines if '"backend"' in line] == [1, 1], "a row a line"


def test_rows_are_found_by_gpu_backend_and_problem(written: Path) -> None:
    found = tuned.plans("NVIDIA H200", "cuda")
    assert "NVIDIA H200" in tuned.gpus()
    for batch in (2, 64):  # the batch is no part of it
        key = tuned.key("forward", "bf16", Layout.NHWC, CASE.geometry._replace(n=batch))
        assert found[key] == PLAN
    assert tuned.key("forward", "bf16", Layout.NCHW, CASE.geometry) not in found
    assert tuned.key("forward", "bf16", Layout.NHWC, CASE.geometry._replace(dilation_w=2)) not in found
    assert tuned.key("backward_input", "bf16", Layout.NHWC, CASE.geometry) not in found
    assert tuned.plans("NVIDIA H200", "triton") == {} == tuned.plans("NVIDIA A100", "cuda")


def test_a_weight_gradient_is_tuned_for_its_batch() -> None:
    assert "n" in tuned.geometry_fields("backward_weight", CASE.geometry)
    assert "n" not in tuned.geometry_fields("backward_input", CASE.geometry)


def test_the_packages_own_tables_are_read() -> None:
    """None is measured yet; this fails on the first that does not load."""
    for path in tuned.FOLDER.glob("*.json"):
        assert tuned.load(path).rows


@pytest.mark.parametrize("name", ["nowhere.json", ""])
def test_a_file_that_is_not_there_is_named_with_the_variable(
    written: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A folder is none, either."""
    path = written.parent / name
    monkeypatch.setenv("CNNKERNELS_TUNED", f"{written}:{path}")
    with pytest.raises(FileNotFoundError, match=f"^CNNKERNELS_TUNED names {path}, and there is no such file$"):
        tuned.plans("NVIDIA H200", "cuda")


def without(name: str) -> str:
    fields = json.loads(json.dumps({"gpu": "x", "date": "x", "versions": {}, "rows": []}))
    del fields[name]
    return json.dumps(fields)


def with_row(**changes: Any) -> str:
    row = {
        "backend": "cuda", "direction": "forward", "dtype": "bf16", "layout": "nhwc", "geometry": ROW.geometry,
        "plan": PLAN, "microseconds": 1.0, "selected_microseconds": 2.0,
    } | changes  # fmt: skip
    return json.dumps({"gpu": "x", "date": "x", "versions": {}, "rows": [row]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "it holds no object"),
        (without("gpu"), "it has no 'gpu'"),
        (without("rows"), "it has no 'rows'"),
        (with_row(dtype="int8"), "row 0: dtype is 'int8', none of fp64, fp32, tf32, fp16, bf16"),
        (with_row(direction="sideways"), "row 0: direction is 'sideways'"),
        (with_row(colour="red"), "row 0: .*unexpected keyword argument 'colour'"),
        (with_row(geometry={"c": 3}), "row 0: its geometry has not the fields c, d, dilation_d, dilation_h"),
        (with_row(geometry=CASE.geometry._asdict()), "row 0: its geometry has not the fields"),
    ],
)
def test_a_wrong_table_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"wrong.json is no table of tuned plans: {reason}"):
        tuned.load(path)


@pytest.mark.parametrize("direction", tuned.DIRECTIONS)
def test_the_native_kernels_obey(direction: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan that reaches the launcher is the table's, and the result is right; without a table it is none."""
    kernels = native.NativeKernels(native.load("cuda" if device == "cuda" else "interpreter").module, device)
    asked: list[Any] = []
    launch = getattr(kernels.module, f"conv_{direction}")

    def noted(*arguments: Any) -> None:
        asked.append(arguments[(3 if direction == "backward_input" else 4) + 5])  # addresses, numbers, the stream
        launch(*arguments)

    class Module:
        def __getattr__(self, name: str) -> Any:
            return noted if name == f"conv_{direction}" else getattr(native.load("interpreter").module, name)

    data = integers(CASE)
    first, second = (
        t.to(device, torch.bfloat16).contiguous(memory_format=torch.channels_last) for t in data.operands(direction)
    )
    right = data.expected(direction, CASE)
    splits = 3 if direction == "backward_weight" else 1
    side = {"forward": "along_depth", "backward_input": "along_side", "backward_weight": "along_side"}[direction]
    first_side = "along_depth" if direction == "backward_input" else side
    fields = PLAN | {"a": first_side, "b": side, "splits": splits}
    plan = kernels.plan(fields, binding=False)
    key = tuned.key(direction, "bf16", Layout.NHWC, CASE.geometry)
    if device == "cpu":
        kernels.module = Module()  # type: ignore[assignment]
    for measured in ({}, {key: plan}):
        monkeypatch.setattr(kernels, "_measured", lambda device, measured=measured: measured)
        result = torch.empty_like(right.to(device, torch.bfloat16), memory_format=torch.channels_last)
        bias = (None,) if direction == "forward" else ()
        function = getattr(kernels, f"conv_{direction}")
        function(first, second, *bias, result, CASE.geometry, Layout.NHWC, False)
        assert torch.equal(result.cpu().double(), right)
    if device == "cpu":
        assert asked == [None, plan]


def test_fields_that_name_nothing_are_refused() -> None:
    kernels = native.load("interpreter")
    with pytest.raises(ValueError):
        kernels.plan(PLAN | {"tile": [96, 96]})
    with pytest.raises(KeyError):
        kernels.plan(PLAN | {"engine": "abacus"})
