"""The budget of a cold build, which .ci/run holds it to: CPU-seconds are counted, those of children's children too."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUDGET = ROOT / ".ci/budget"
WORKS = "import time\nwhile time.process_time() < 0.2: pass"
WAITS = "import time; time.sleep(0.4)"


def within(seconds: float, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BUDGET, str(seconds), *command], capture_output=True, text=True)


@pytest.mark.parametrize("shell", [(), ("sh", "-c", '"$@"; exit $?', "sh")], ids=["child", "grandchild"])
def test_work_counts(shell: tuple[str, ...]) -> None:
    done = within(0.1, *shell, sys.executable, "-S", "-c", WORKS)
    assert done.returncode == 1 and "over the budget" in done.stdout
    assert within(60, *shell, sys.executable, "-S", "-c", WORKS).returncode == 0


def test_waiting_does_not_count() -> None:
    """As a build waits for a core on a machine that does other work."""
    assert within(0.3, sys.executable, "-S", "-c", WAITS).returncode == 0


def test_a_build_that_fails_fails() -> None:
    assert within(60, "sh", "-c", "exit 3").returncode == 3


def test_the_sources_that_took_longest() -> None:
    loader = SourceFileLoader("budget", str(BUDGET))
    spec = spec_from_loader("budget", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode  # not beside the script
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    log = "# ninja log v7\n0\t9000\t1\ta.o\tx\n0\t2500\t1\tb.o\tx\n100\t1600\t2\ta.o\tx\n0\t1000\t1\tc.o\tx\n"
    assert module.longest(log, 2) == ["    2.5 s  b.o", "    1.5 s  a.o"]


def test_the_clean_clone_is_held_to_it() -> None:
    """With the virtual environment made before. Of CPU-seconds a slower machine has more for the same sources."""
    steps = re.findall(r"^step \w+ (.*?)(?:  #.*)?$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert steps[:2] == ["make .venv/.dependencies", f".ci/budget {2 * 7 * 60} make build"]
