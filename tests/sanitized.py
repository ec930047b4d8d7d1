"""Does a sanitizer see the faults planted in tests/csrc/faults.cu, and nothing in kernels without one?

Started by tests/sanitize.sh inside the sanitizer: `python tests/sanitized.py thread | address`.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def load(sanitizer: str) -> ModuleType:
    path = ROOT / "build" / sanitizer / f"_interpreter_tests{sysconfig.get_config_var('EXT_SUFFIX')}"
    loader = importlib.machinery.ExtensionFileLoader("_interpreter_tests", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_interpreter_tests", loader))
    loader.exec_module(module)
    return module


def buffer(count: int) -> ctypes.Array:
    """Floats or ints of one, at least a page of them so that they come from malloc."""
    return (ctypes.c_int * max(count, 1024))(*[1] * max(count, 1024))


def launch(module: ModuleType, name: str, arguments: list) -> None:
    module.run(name, *(ctypes.addressof(a) if isinstance(a, ctypes.Array) else a for a in arguments))


def check_races(module: ModuleType, log: str) -> int:
    """Counts ThreadSanitizer's reports, which go to `log`.<pid>, around each launch."""
    ins, out, more = buffer(8192), buffer(8192), [buffer(1) for _ in range(5)]
    faulty = [
        ("update_test", [1, out]),
        ("same_address_test", [out]),
        ("unordered_test", [1, out]),
        ("missing_syncthreads_test", [1, ins, out]),
        ("missing_syncwarp_test", [1, ins, out]),
        ("stage_refilled_test", [1, ins, out, 4]),
    ]
    correct = [(name, [0, *arguments[1:]]) for name, arguments in faulty if arguments[0] == 1] + [
        ("block_sum_test", [ins, out, 32]),
        ("transpose_test", [ins, out, 24]),
        ("leave_one_by_one_test", [out, 100]),
        ("neighbours_test", [ins, out]),
        ("votes_test", [ins, out]),
        ("shuffles_test", [0, ins, out, 3, 8]),
        ("instances_test", [out]),
        ("counters_test", [*more, 16]),
    ]
    path = Path(f"{log}.{os.getpid()}")

    def reports() -> str:
        return path.read_text(errors="replace") if path.exists() else ""

    failures = 0
    module.set_threads(2)
    for expected, launches in ((False, correct), (True, faulty)):
        for order in ("ordered", "random"):
            module.set_schedule(order, 1)
            for name, arguments in launches:
                before = len(reports())
                launch(module, name, arguments)
                found = reports()[before:]
                seen = "data race" in found and (not expected or "tests/csrc/faults.cu:" in found)
                ok = seen if expected else not found
                failures += not ok
                print(f"{'ok' if ok else 'WRONG':5} {name} {order}: {'a race' if seen else 'no race'} reported")
                if not ok:
                    print(found)
    return failures


def check_bounds(module_name: str) -> int:
    """AddressSanitizer ends the process it finds a fault in: one process a launch."""
    launches = {
        "no fault": ("block_sum_test", "[buffer(8192), buffer(32), 32]", None),
        "static shared array, past its end": ("static_overrun_test", "[64]", "use-after-poison"),
        "static shared array, before its start": ("static_overrun_test", "[-1]", "use-after-poison"),
        "dynamic shared memory, past its end": ("dynamic_overrun_test", "[100, 50]", "use-after-poison"),
        "read past a tensor": ("copy_test", "[buffer(1024), buffer(1024), 961, 64]", "heap-buffer-overflow"),
    }
    failures = 0
    for what, (name, arguments, expected) in launches.items():
        code = f"from sanitized import *; launch(load({module_name!r}), {name!r}, {arguments})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, errors="replace", cwd=ROOT / "tests"
        )
        found = done.stderr
        ok = done.returncode == 0 if expected is None else expected in found and "tests/csrc/faults.cu:" in found
        failures += not ok
        print(f"{'ok' if ok else 'WRONG':5} {what}: {expected if ok else found}")
    return failures


if __name__ == "__main__":
    sanitizer = sys.argv[1]
    wrong = check_races(load(sanitizer), sys.argv[2]) if sanitizer == "thread" else check_bounds(sanitizer)
    sys.exit(1 if wrong else 0)
