"""`cnnkernels learn`: writes the page that steps through a convolution, and opens it."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from .. import learn


def run(output: str | None) -> int:
    """Writes the page to `output`, or to a file of its own that it opens; 1 where there is no browser."""
    if output is not None:
        Path(output).write_text(learn.page(), encoding="utf-8")
        print(f"wrote {output}")
        return 0
    with tempfile.NamedTemporaryFile("w", prefix="cnnkernels-", suffix=".html", delete=False, encoding="utf-8") as file:
        file.write(learn.page())
    opened = webbrowser.open(Path(file.name).as_uri())
    print(f"{'opened' if opened else 'no browser found; open'} {file.name}")
    return 0 if opened else 1
