"""What code prints in processes of its own: for what is decided when cnnkernels is imported."""

from __future__ import annotations

import json
import subprocess
import sys


def child(code: str, **environment: str) -> str:
    """What `code` prints in a process of its own, where the environment is as given."""
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environment}
    result = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


FORKED = """
import json, os, sys, torch
for environment in json.loads(sys.argv[2]):
    if os.fork() == 0:
        os.environ.update(environment)
        try:
            exec(sys.argv[1])
        except Exception as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def children(code: str, *environments: dict[str, str]) -> list[str]:
    """The line that `code` prints, or its error, in a process for each environment. PyTorch is imported once."""
    command = [sys.executable, "-c", FORKED, code, json.dumps(environments)]
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    lines = subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(environments)
    return lines
