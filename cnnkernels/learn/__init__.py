"""The page that `cnnkernels learn` opens: a convolution, its gradients, a pool and tiles, step by step, with one's own
sizes. Plain JavaScript: `rules` computes, `views` says what a step shows, `page.js` draws it."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

# In the order in which they are read: later ones use what earlier ones declare.
SCRIPTS = (
    "rules/geometry.js", "rules/numbers.js", "rules/convolution.js", "rules/pool.js", "rules/gemm.js",
    "rules/phases.js", "rules/swizzle.js", "views/grids.js", "views/convolution.js", "views/pool.js",
    "views/gemm.js", "views/phases.js", "views/swizzle.js", "views/all.js", "page.js",
)  # fmt: skip


def script(name: str) -> str:
    """One of SCRIPTS, as it stands in its file."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def page() -> str:
    """The whole page as one HTML file, which needs no other."""
    html = (_FOLDER / "page.html").read_text(encoding="utf-8")
    html = html.replace("<!-- style -->", (_FOLDER / "style.css").read_text(encoding="utf-8").rstrip())
    return html.replace("<!-- scripts -->", "\n".join(script(name) for name in SCRIPTS).rstrip())
