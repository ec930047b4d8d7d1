"""The page of `cnnkernels learn`: what its views show is what the library computes, to the last number.

Its JavaScript runs in QuickJS, without a browser; the library's kernels run in the interpreter. The whole page in a
browser is tests/learn_page.py.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from cnnkernels import functional, learn, use_backend
from cnnkernels.cli import main as cli
from cnnkernels.geometry import Layout
from cnnkernels.ops.checks import pool_geometry
from oracles import swizzle_wgmma

quickjs = pytest.importorskip("quickjs", reason="constraints.txt has quickjs-ng")


@pytest.fixture(scope="module")
def script() -> Any:
    """All of the page's scripts but the one that draws, which needs a document."""
    context = quickjs.Context()
    for name in learn.SCRIPTS:
        if name != "page.js":
            context.eval(learn.script(name))
    return lambda code: json.loads(context.eval(f"JSON.stringify({code})"))


def problem_of(rng: random.Random) -> dict[str, int]:
    sizes = {name: rng.randint(1, 3) for name in ("C", "K", "R", "S", "dilation")}
    return {**sizes, "H": rng.randint(1, 7), "W": rng.randint(1, 7), "stride": rng.randint(1, 4),
            "padding": rng.randint(0, 3), "seed": rng.randint(0, 9999)}  # fmt: skip


def problems(script: Any, count: int, refusal: str = "refusal") -> Iterator[dict[str, int]]:
    """Random ones that there are."""
    rng = random.Random(0)
    while count:
        problem = problem_of(rng)
        if not script(f"{refusal}({json.dumps(problem)})"):
            count -= 1
            yield problem


def shown(script: Any, view: str, problem: dict[str, int]) -> Iterator[dict[str, Any]]:
    """What each step of a view shows."""
    given = json.dumps(problem)
    numbers = "null" if "span" in problem else f"numbers({given})"
    yield from script(f"Array.from({{length: {view}.steps({given})}}, (_, i) => {view}.show({given}, {numbers}, i))")


def numbers_of(grid: dict[str, Any]) -> Tensor:
    return torch.tensor([[float(cell["text"]) for cell in row] for row in grid["rows"]])


def titled(step: dict[str, Any], *titles: str) -> Tensor:
    """The numbers of the grids whose titles begin so, one behind the other."""
    grids = [grid for grid in step["grids"] if grid["title"].startswith(titles)]
    return torch.stack([numbers_of(grid) for grid in grids])


def holds(sentence: str) -> bool:
    """Whether what is left of a sentence's last sign of equality is what is right of it."""
    *_, products, total = sentence.rsplit(" = ", 2)
    return eval(products.replace("·", "*")) == int(total)


def tensors(script: Any, problem: dict[str, int]) -> dict[str, Tensor]:
    return {name: torch.tensor(value).float() for name, value in script(f"numbers({json.dumps(problem)})").items()}


def options(problem: dict[str, int]) -> dict[str, int]:
    return {name: problem[name] for name in ("stride", "padding", "dilation")}


class Example(NamedTuple):
    problem: dict[str, int]
    given: dict[str, Tensor]
    y: Tensor
    dx: Tensor
    dw: Tensor


@pytest.fixture(scope="module")
def examples(script: Any) -> list[Example]:
    """Convolutions and their gradients by the library's kernels."""
    found = []
    for problem in problems(script, 10):
        given = tensors(script, problem)
        x, w = given["x"][None].clone().requires_grad_(), given["w"].clone().requires_grad_()
        with use_backend("cuda"):
            y = functional.conv2d(x, w, **options(problem))
            y.backward(given["dy"][None])
        found.append(Example(problem, given, y[0].detach(), x.grad[0], w.grad))
    return found


def test_a_convolution_and_its_gradients_are_the_librarys(script: Any, examples: list[Example]) -> None:
    for problem, _, y, dx, dw in examples:
        for view, titles, expected in (
            ("convolutionView", "y[", y),
            ("inputGradientView", "dx[", dx),
            ("filterGradientView", "dw[", dw.flatten(0, 1)),
            ("phasesView", "dx[", dx),
        ):
            *_, last = steps = list(shown(script, view, problem))
            assert torch.equal(titled(last, titles), expected), (view, problem)
            for number, step in enumerate(steps):
                said = step["sentences"][-1]
                assert "nothing reaches it" in said or holds(said), said
                if view != "phasesView":
                    (now,) = [int(c["text"]) for g in step["grids"] for r in g["rows"] for c in r if "now" in c["mark"]]
                    assert now == int(expected.flatten()[number]), (view, problem, number)
                    assert f" = {now}" in said


def test_a_step_shows_what_it_multiplies(script: Any) -> None:
    """The marked cells of the grids are the factors of the sentence's products, in order."""
    for problem in problems(script, 5):
        for step in shown(script, "convolutionView", {**problem, "C": 1}):
            padded, filters = step["grids"][:2]
            pixels, taps = (
                [c["text"] for row in g["rows"] for c in row if "seen" in c["mark"]] for g in (padded, filters)
            )
            products = re.findall(r"\(?(-?\d+)\)?·\(?(-?\d+)\)?", step["sentences"][0])
            assert products == list(zip(pixels, taps, strict=True))


def test_a_pool_and_its_routing_are_the_librarys(script: Any) -> None:
    for problem in problems(script, 12, "poolRefusal"):
        given, window = tensors(script, problem), (problem["R"], problem["S"])
        x = given["x"][None, :1].requires_grad_()
        with use_backend("cuda"):
            y, places = functional.max_pool2d_with_indices(x, window, **options(problem))
            y.backward(given["dpool"][None, None])
        steps = list(shown(script, "poolView", problem))
        forward, backward = steps[y.numel() - 1], steps[-1]
        assert torch.equal(titled(forward, "y"), y[0]), problem
        assert torch.equal(titled(backward, "dx"), x.grad[0]), problem
        h, v = (int(part) for part in re.search(r"pixel \((\d+), (\d+)\)", forward["sentences"][0]).groups())
        assert h * problem["W"] + v == places.flatten()[-1]
        assert torch.equal(titled(forward, "place"), titled(backward, "place"))
        for step, expected in zip(steps[y.numel() :], x.grad.flatten(), strict=True):
            said, *answers = step["sentences"]
            added = sum(int(number) for answer in answers for number in re.findall(r"adds (-?\d+)", answer))
            assert added == int(expected) == int(said.rpartition(" = ")[2])


def test_the_place_of_a_winner_is_the_byte_that_the_kernels_store(script: Any, kernels: Any) -> None:
    for problem in problems(script, 3, "poolRefusal"):
        x = tensors(script, problem)["x"][None, :1]
        pairs = [(value, value) for value in options(problem).values()]
        geometry = pool_geometry(x.shape, (problem["R"], problem["S"]), *pairs, ceil_mode=False)
        y = torch.empty(1, 1, geometry.p, geometry.q)
        places = torch.empty(y.shape, dtype=torch.uint8)
        kernels.max_pool_forward(x, y, places, geometry, Layout.NCHW)
        step = list(shown(script, "poolView", problem))[y.numel() - 1]
        assert torch.equal(titled(step, "place")[None], places.float()), problem


def test_an_implicit_gemm_reads_the_image_where_it_lies(script: Any, examples: list[Example]) -> None:
    for problem, given, y, _, _ in examples:
        memory = [int(number) for number in given["x"].permute(1, 2, 0).flatten()]  # H W C
        *_, last = shown(script, "gemmView", problem)
        (a,), (b,), (c,) = (titled(last, title) for title in ("A:", "B:", "C:"))
        assert torch.equal(a @ b.T, c) and torch.equal(c.T.view(y.shape), y), problem
        (offsets,) = [grid["rows"] for grid in last["grids"] if grid["title"].startswith("where")]
        read = [[0 if cell["text"] == "-" else memory[int(cell["text"])] for cell in row] for row in offsets]
        assert torch.equal(torch.tensor(read).float(), a), problem
        assert torch.equal(b, given["w"].permute(0, 2, 3, 1).flatten(1)), problem


def test_a_tiles_partial_sums(script: Any) -> None:
    for problem in problems(script, 5):
        rows: set[int] = set()
        for step in shown(script, "gemmView", problem):
            (a,), (b,) = (titled(step, title) for title in ("A:", "B:"))
            summed = int(re.search(r"(\d+) of", step["sentences"][0])[1])
            (c,) = [grid["rows"] for grid in step["grids"] if grid["title"].startswith("C:")]
            now = [i for i, row in enumerate(c) if "now" in row[0]["mark"]]
            part = torch.tensor([[float(cell["text"]) for cell in c[i]] for i in now])
            assert torch.equal(part, (a[:, :summed] @ b[:, :summed].T)[now])
            marked = step["grids"][0]["rows"][now[0]]
            assert summed == 1 + max(d for d, cell in enumerate(marked) if "seen" in cell["mark"])
            rows |= set(now)
        assert len(rows) == len(a)


def test_a_phase_takes_the_taps_that_its_pixels_met(script: Any) -> None:
    """Every pixel is in one phase, whose taps are those of all terms of its pixels, were the image without an end."""
    for problem in problems(script, 25):
        stride, dilation, padding = (options(problem)[name] for name in ("stride", "dilation", "padding"))
        covered = []
        for phase in script(f"phases({json.dumps(problem)})"):
            for axis, taps in ((phase["rows"], problem["R"]), (phase["columns"], problem["S"])):
                taken = [axis["firstTap"] + j * axis["tapStep"] for j in range(axis["taps"])]
                assert taken == [r for r in range(taps) if (axis["first"] + padding - r * dilation) % stride == 0]
                for i in range(axis["pixels"]):
                    for j, r in enumerate(taken):
                        p = axis["origin"] + i + j * axis["step"]
                        assert p * stride == axis["first"] + i * stride + padding - r * dilation
            sides = [[a["first"] + i * stride for i in range(a["pixels"])] for a in (phase["rows"], phase["columns"])]
            covered += [(h, v) for h in sides[0] for v in sides[1]]
        assert sorted(covered) == [(h, v) for h in range(problem["H"]) for v in range(problem["W"])]


@pytest.mark.parametrize("span", [128, 64, 32])
def test_a_swizzle_is_tmas(script: Any, span: int) -> None:
    """tests/ptx holds that oracle to what TMA writes and wgmma reads."""
    addresses = range(0, 8 * span, 16)
    expected = [swizzle_wgmma.swizzled(address, span) for address in addresses]
    assert script(f"{[*addresses]}.map((address) => swizzled(address, {span}))") == expected
    for chunk, step in enumerate(shown(script, "swizzleView", {"span": span})):
        *_, memory = step["grids"]
        for row in range(8):
            line, bytes_in = divmod(swizzle_wgmma.swizzled(row * span + 16 * chunk, span), 128)
            cell = memory["rows"][line][bytes_in // 16]
            assert cell == {"text": f"row {row}, {chunk}", "mark": "seen"}
        assert step["sentences"][0].endswith(f"{span // 16} turns as rows lie, 1 swizzled")


def test_what_the_page_refuses_the_library_refuses(script: Any) -> None:
    rng, refused = random.Random(1), 0
    for _ in range(200):
        problem = problem_of(rng)
        given = json.dumps(problem)
        x, w = torch.zeros(1, 1, problem["H"], problem["W"]), torch.zeros(1, 1, problem["R"], problem["S"])
        for rule, call in (
            ("refusal", lambda x=x, w=w, p=problem: functional.conv2d(x, w, **options(p))),
            ("poolRefusal", lambda x=x, p=problem: functional.max_pool2d(x, (p["R"], p["S"]), **options(p))),
        ):
            try:
                call()
                served = True
            except RuntimeError:
                served = False
            why = script(f"{rule}({given})")
            if not why.startswith("a window has no pixel"):  # whose maximum is -inf: no number to show
                assert served == (why == ""), (rule, problem)
            refused += not served
    assert refused > 40
    for name, value in (("H", 0), ("stride", 1.5), ("padding", -1), ("seed", 10**6)):
        assert name in script(f"refusal({json.dumps({**problem, name: value})})")


def test_the_command_writes_one_file_that_needs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    assert cli.main(["learn", "--output", str(file)]) == 0 and f"wrote {file}" in capsys.readouterr().out
    text = file.read_text()
    assert text == learn.page() and "<!-- s" not in text
    for name in learn.SCRIPTS:
        assert learn.script(name).rstrip() in text
    assert not re.search(r"https?:|<link|\bsrc=|@import|url\(|\bimport\b", text)
    files = {str(path.relative_to(Path(learn.__file__).parent)) for path in Path(learn.__file__).parent.rglob("*.js")}
    assert files == set(learn.SCRIPTS)


def test_without_a_browser_the_command_says_where_the_page_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for there, code in ((True, 0), (False, 1)):
        monkeypatch.setattr("webbrowser.open", lambda address, there=there: (opened.append(address), there)[1])
        assert cli.main(["learn"]) == code
        said = capsys.readouterr().out
        assert opened[-1].removeprefix("file://") in said and ("no browser" in said) != there
        assert Path(opened[-1].removeprefix("file://")).read_text() == learn.page()
