"""One table of element types, one list of operators: nobody else pairs their names, and what reads them reads all."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator

import pytest
import torch

from cnnkernels import backends, functional
from cnnkernels.cli import bench, info
from cnnkernels.dtypes import ELEMENTS, dtype_code, dtype_name
from cnnkernels.operators import OPERATORS
from cnnkernels.proof.check_int8 import int8_checks
from helpers.sources import ROOT

FOLDERS = ("cnnkernels", "triton_kernels", "benchmarks", "tests", "docs")
WORDS = {word for operator in OPERATORS.values() for word in (operator.name, *operator.functions)}


def literals(node: ast.AST) -> list[ast.expr]:
    """The elements of a tuple, list or set, or the keys of a dict, that is written out."""
    if isinstance(node, ast.Dict):
        return [key for key in node.keys if key is not None]
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else []


def is_dtype(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "torch"
        and isinstance(getattr(torch, node.attr, None), torch.dtype)
    )


def names_type(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ELEMENTS


def types_paired(tree: ast.Module) -> Iterator[ast.AST]:
    """Tables of types: three names beside dtypes, or a dtype beside whether it is TF32."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs: list[tuple[ast.AST | None, ast.AST]] = list(zip(node.keys, node.values, strict=True))
        else:
            pairs = [(e.elts[0], e.elts[1]) for e in literals(node) if isinstance(e, ast.Tuple) and len(e.elts) > 1]
        named = [p for p in pairs if any(names_type(n) for n in p if n) and any(is_dtype(n) for n in p if n)]
        if len(named) > 2 or any(
            is_dtype(dtype) and isinstance(tf32, ast.Constant) and tf32.value is True
            for dtype, tf32 in itertools.pairwise(literals(node))
        ):
            yield node


def operators_listed(tree: ast.Module) -> Iterator[ast.AST]:
    """Lists of three operators or more, but for what a module exports."""
    exported = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) or id(node) in exported:
            continue
        words = {e.value for e in literals(node) if isinstance(e, ast.Constant) and isinstance(e.value, str)}
        if 2 < len(words & WORDS) > len(words) / 2:
            yield node


def found(search: Callable[[ast.Module], Iterator[ast.AST]], hint: str, least: int) -> dict[str, str]:
    """What a search finds, by file, in the files that it may be in at all."""
    sources = {path: path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert len(sources) > 200
    return {
        ast.unparse(node): str(path.relative_to(ROOT))
        for path, source in sources.items()
        if len(re.findall(hint, source)) >= least
        for node in search(ast.parse(source))
    }


def test_one_table_of_types() -> None:
    tables = found(types_paired, r"['\"](?:fp|bf)16['\"]|torch\.float32, True", 1)
    assert tables == {}


def test_one_list_of_operators() -> None:
    lists = found(operators_listed, f"['\"](?:{'|'.join(WORDS)})['\"]", 3)
    assert set(lists.values()) == {"cnnkernels/operators.py"}, lists


@pytest.mark.parametrize(
    ("search", "source"),
    [
        (types_paired, '{"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}'),
        (types_paired, '(("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16))'),
        (types_paired, "[(torch.float32, False), (torch.float32, True)]"),
        (operators_listed, '("conv2d", "max_pool2d", "int8_gemm", "other")'),
        (operators_listed, 'x = ["int_mm", "conv2d", "dequantize"]'),
    ],
)
def test_a_second_table_would_be_found(search, source: str) -> None:
    assert list(search(ast.parse(source)))


def test_every_public_function_is_of_one_operator() -> None:
    functions = [name for operator in OPERATORS.values() for name in operator.functions]
    assert sorted(functions) == sorted(functional.__all__)
    for operator in OPERATORS.values():
        assert all(name.endswith(f"{rank}d") for name, rank in itertools.product((operator.name,), operator.ranks))


def test_an_operator_has_its_word_in_every_room() -> None:
    rooms = ("csrc/{}", "triton_kernels/{}", "cnnkernels/ops/{}.py", "cnnkernels/native/{}.py", "tests/{}")
    rooms += ("cnnkernels/functional/{}.py",)
    missing = [r.format(o.word) for o in OPERATORS.values() for r in rooms if not (ROOT / r.format(o.word)).exists()]
    assert missing == []


def test_info_and_backends_read_the_list() -> None:
    told = "\n".join(info._served())
    for name, operator in OPERATORS.items():
        assert re.search(rf"\b{name}\b", told)
        for backend in operator.backends:
            capable = backends.Problem(name, "cuda", operator.dtypes[-1], (9, 0))
            why = backends.why_not(backend, capable)
            assert why is None or "take" not in why
            unknown = capable._replace(dtype=torch.complex128)
            assert why is not None or "not complex128" in str(backends.why_not(backend, unknown))
    with pytest.raises(ValueError, match=r"op must be one of conv2d, .*, but got 'convolution'"):
        backends.choose(backends.Problem("convolution", "cpu", torch.float32), "cuda")


def test_bench_and_check_know_the_list() -> None:
    assert set(bench.MEASURED) <= set(functional.__all__)
    of_int8 = {name.removesuffix("2d") for name, operator in OPERATORS.items() if operator.int8}
    assert {each.kernel for each in int8_checks()} == of_int8


def test_every_type_has_one_name_and_one_number() -> None:
    for name, element in ELEMENTS.items():
        assert dtype_name(element.dtype, element.tf32) == name and dtype_code(element.dtype) == element.code
    assert len({element.dtype for element in ELEMENTS.values()}) == len(ELEMENTS) - 1  # TF32 is float32
