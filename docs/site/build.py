"""Makes the site: the pages of docs/ and of the top, the public names' docstrings, and the sources that pages link to.

    python docs/site/build.py            # writes build/site/html, index.html first
    python docs/site/build.py --links    # also asks every address outside whether it is there

Any warning fails: a link that leads nowhere, a docstring that is not what it should be.
"""

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGED = ROOT / "build/site/pages"
MADE = ROOT / "build/site/html"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(?=[)#])")
LANGUAGES = {".py": "python", ".cu": "cuda", ".cuh": "cuda", ".h": "cpp", ".cpp": "cpp", ".json": "json", ".sh": "bash"}


def pages() -> list[str]:
    """What the site shows as pages, by their paths in the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def source_page(path: str) -> str:
    """The page that shows a file of the repository, or lists a folder."""
    there = ROOT / path
    if there.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in there.iterdir() if entry.name[0] not in "._")
        return f"---\norphan: true\n---\n# {path}/\n\n" + "".join(f"- `{name}`\n" for name in names)
    text = f"````{LANGUAGES.get(there.suffix, 'text')}\n{there.read_text()}\n````\n"
    return f"---\norphan: true\n---\n# {path}\n\n{text}"


def stage() -> None:
    """Copies the pages; a link to what is no page leads to a page that shows it."""
    shutil.rmtree(STAGED, ignore_errors=True)
    pictures = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(ROOT / "docs/figures", STAGED / "docs/figures", ignore=pictures)
    shown = pages()
    for page in shown:

        def lead(match: re.Match[str], here: str = posixpath.dirname(page)) -> str:
            path = posixpath.normpath(posixpath.join(here, match[1]))
            if path in shown or path.startswith("docs/figures/") or not (ROOT / path).exists():
                return match[1]
            made = STAGED / f"{path}.md"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(source_page(path))
            return f"{match[1].rstrip('/')}.md"

        to = STAGED / page
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(LINK.sub(lead, (ROOT / page).read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", action="store_true", help="also ask every address outside whether it is there")
    stage()
    for builder in ["html"] + ["linkcheck"] * parser.parse_args().links:
        made = MADE if builder == "html" else MADE.with_name(builder)
        options = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", str(ROOT / "docs/site")]
        done = subprocess.run([sys.executable, "-m", "sphinx", "-b", builder, *options, str(STAGED), str(made)])
        if done.returncode:
            sys.exit(done.returncode)
    print(f"the site begins at {(MADE / 'docs/site/index.html').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
