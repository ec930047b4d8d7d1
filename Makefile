# Every command of the project. The first one that needs it makes .venv, installs the pinned dependencies into it and
# builds the extensions; later ones reuse all three. `make gpu` alone uses the machine's own python3 instead.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py $(shell find csrc -type f)
TEST_SOURCES := $(shell find tests/csrc -type f 2>/dev/null)
WORKERS ?= 2
STAGES ?= build conformance prove quick tune gpu tests

help:
	@echo "make demo      train on handwritten digits with every backend beside torch.nn, then in INT8; write demo*.png"
	@echo "make test      run the tests (in the interpreters where there is no GPU)"
	@echo "make test-ptx  the tests of kernels on what nvcc and Triton made of them, in the emulator"
	@echo "make test-removed  each barrier, wait and fence taken out of the kernels, one at a time: which the emulator misses"
	@echo "make test-cutlass  install CUTLASS's headers and run its kernels for Hopper in the emulator"
	@echo "make learn-page  the page of \`cnnkernels learn\` in a headless Chromium, which must be on the PATH"
	@echo "make site      install Sphinx and make build/site of docs/ and the docstrings, with every link checked"
	@echo "make wheels    dist/: a wheel for each Python found, of which auditwheel says the oldest glibc"
	@echo "make matrix    tests beside each version of PyTorch and Triton that is served (MATRIX=\"2.12:3.7 2.13:3.7:3.12\")"
	@echo "make hub       build/hub: the operators for the Hugging Face kernels hub"
	@echo "make examples  the programs of examples/, one after the other: training, pruning, INT8, several processes"
	@echo "make build     build the extensions in place"
	@echo "make gpu       on a machine with a GPU, torch and no network: build, prove, time, test (STAGES=\"$(STAGES)\")"
	@echo "make bench     a few telling cases of every operator beside PyTorch's own, on a GPU, in 4 minutes"
	@echo "make audit     registers, spills, shared memory and instruction mix of every kernel; fails where a main loop takes"
	@echo "               more instructions than benchmarks/instructions.json says (ACCEPT=1 writes what it takes now)"
	@echo "make peers     install CUTLASS's headers and compile its kernels, whose main loops stand beside ours in docs/performance.md"
	@echo "make sanitize  the kernels in the interpreter under ThreadSanitizer and AddressSanitizer"
	@echo "make lint      ruff, clang-format, mypy          make format    rewrite the sources' format"
	@echo "make clean     remove what was built             make distclean remove .venv too"
	@echo "PYTHON=python3.x picks the interpreter .venv is made from, WORKERS=n the tests' processes."

demo: $(VENV)/.built
	$(BIN)/cnnkernels demo
	$(BIN)/cnnkernels demo --int8

test: $(VENV)/.built-tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

KERNEL_TESTS = $(addprefix tests/,conv depthwise_conv depthwise_separable_conv int8_conv int8_gemm int8_pool \
  int8_weight_only_linear layers norm pool ptx quantize)

test-ptx: $(VENV)/.built-tests
	CNNKERNELS_INTERPRET=ptx $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  -k "not triton or test_every_triton_kernel" $(KERNEL_TESTS) tests/emulator/test_every_triton_kernel.py
	CNNKERNELS_INTERPRET=ptx TRITON_INTERPRET=0 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
	  --no-loadscope-reorder -k "triton and not interpret" $(KERNEL_TESTS)

test-removed: $(VENV)/.built-tests
	$(BIN)/python tests/removed_synchronisation.py

# What pyproject.toml calls `proof`, without what that depends on: its headers alone are compiled.
cutlass: $(VENV)/.built
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $$(sed -n 's/^proof = \["\(.*\)"\]/\1/p' pyproject.toml)

test-cutlass: cutlass
	CNNKERNELS_BUILD_TESTS=1 $(BIN)/python setup.py --quiet build_ext --inplace
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(wildcard tests/emulator/test_cutlass*.py)

learn-page: $(VENV)/.built
	$(BIN)/python tests/learn_page.py

site: $(VENV)/.built
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/site/requirements.txt
	$(BIN)/python docs/site/build.py

# Everything but the bindings is compiled once, by the build that these begin with.
wheels: $(VENV)/.built
	$(BIN)/python release/wheels.py

matrix: $(VENV)/.built-tests
	$(BIN)/python release/matrix.py --workers $(WORKERS) $(MATRIX)

hub: $(VENV)/.dependencies
	$(BIN)/python release/hub.py

examples: $(VENV)/.built
	$(BIN)/python examples/all.py

build: $(VENV)/.built

bench: $(VENV)/.built
	$(BIN)/cnnkernels bench --quick

gpu:
	STAGES="$(STAGES)" bash tests/gpu.sh

audit: $(VENV)/.built
	$(BIN)/python benchmarks/audit.py $(if $(ACCEPT),--accept)

peers: cutlass
	$(BIN)/python benchmarks/machine_code_peers.py
	$(BIN)/cnnkernels bench --report

sanitize: $(VENV)/.built
	PATH="$(abspath $(BIN)):$$PATH" bash tests/sanitize.sh

CXX_FILES = $(shell find csrc tests/csrc benchmarks/peers -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

lint: $(VENV)/.dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy

format: $(VENV)/.dependencies
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf build dist *.egg-info cnnkernels/*.so cnnkernels/*.zip demo.png demo_int8.png $(VENV)/.built $(VENV)/.built-tests

distclean: clean
	rm -rf $(VENV)

# --- set-up: the stamps live in .venv, so that they vanish with it ---------------------------------------------------

# Says why a Python cannot be used: the pins are for 3.11 to 3.13 on Linux, and it must make a virtual environment and
# compile an extension.
define USABLE
import pathlib, sys, sysconfig
def refuse(why): sys.exit("make: %s %s; cnnkernels needs Python 3.11 to 3.13 on Linux with venv and headers" % (sys.executable, why))
if sys.platform != "linux": refuse("runs on " + sys.platform)
if not (3, 11) <= sys.version_info[:2] <= (3, 13): refuse("is Python %d.%d" % tuple(sys.version_info[:2]))
try: import ensurepip, venv
except ImportError: refuse("has no venv (Debian, Ubuntu: apt install python3-venv)")
headers = pathlib.Path(sysconfig.get_path("include"))
if not (headers / "Python.h").exists(): refuse("has no headers in %s (python3-dev, python3-devel)" % headers)
endef
export USABLE

$(VENV)/.dependencies: constraints.txt
	@python="$(PYTHON)"; \
	for candidate in python3.13 python3.12 python3.11 python3; do \
	  [ -n "$$python" ] || ! "$$candidate" -c "$$USABLE" 2>/dev/null || python=$$candidate; \
	done; \
	[ -n "$$python" ] || { echo "make: no Python 3.11 to 3.13 with venv and headers found; give one: make PYTHON=..." >&2; exit 1; }; \
	"$$python" -c "" || { echo "make: PYTHON=$$python does not start" >&2; exit 1; }; \
	"$$python" -c "$$USABLE" || exit 1; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "making $(VENV) with $$python ($$("$$python" --version))"; \
	  "$$python" -m venv $(VENV) || exit 1; \
	fi; \
	$(BIN)/python -c "$$USABLE" || { echo "make: make distclean removes $(VENV)" >&2; exit 1; }
	@echo "installing what constraints.txt names into $(VENV): PyTorch among it, so it takes minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints.txt
	@touch $@

# Built before it is installed, so that ninja's progress is seen; the install then finds nothing to compile.
$(VENV)/.built: $(VENV)/.dependencies pyproject.toml $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.built-tests: $(VENV)/.built $(TEST_SOURCES)
	CNNKERNELS_BUILD_TESTS=1 $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

.PHONY: help demo test test-ptx test-removed cutlass test-cutlass learn-page site wheels matrix hub examples build bench gpu audit peers sanitize lint format clean distclean
.DELETE_ON_ERROR:
