"""Sphinx's settings for the site; `make site` runs docs/site/build.py, which stages what Sphinx reads."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

project = "cnnkernels"
copyright = "the authors of cnnkernels"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
root_doc = "docs/site/index"
myst_heading_anchors = 6  # those that forges give headings
default_role = "code"  # docstrings write `names` as Markdown does
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Modes", "params_style")]


def formulas_are_literal(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A block that is indented after an empty line is literal, as in Markdown."""
    made: list[str] = []
    for line in lines:
        first = line.startswith("    ") and (not made or not made[-1].strip())
        if first and not any(text.startswith("    ") for text in made[-2:]):
            made += ["::", ""]
        made.append(line)
    lines[:] = made


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", formulas_are_literal, priority=400)  # before napoleon reads it
