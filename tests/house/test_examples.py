"""The examples: each is listed, says how it is started, and has something that must show; `make examples` runs them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
SHARED = {"all.py", "common.py", "networks.py"}


def test_every_example_is_listed_and_can_fail() -> None:
    programs = {path.name: path.read_text() for path in EXAMPLES.glob("*.py") if path.name not in SHARED}
    listed = re.findall(r"^\| `(\w+\.py)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(programs) and len(listed) > 12
    for name, text in programs.items():
        tree = ast.parse(text)
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "require" in calls and "arguments" in calls, name
        assert f"examples/{name}" in (ast.get_docstring(tree) or ""), name
