#!/usr/bin/env bash
# `make gpu`: builds, tests and times everything on a machine with a GPU, with its own python3 and nothing fetched.
#
# STAGES names what to do, in order; a stage that fails does not keep the next from its turn (but nothing runs without
# a build). Logs and results go to $OUT, or to benchmarks/results. What matters most is printed last.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
STAGES=${STAGES:-build conformance gpu tests times}
WORKERS=${WORKERS:-4}
OUT=${OUT:-benchmarks/results}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export OUT
for stage in build conformance gpu tests times; do rm -f "$OUT/$stage.log"; done
# The package is laid out as an install would, then put on the path: nothing is installed, the checkout stays out of it.
TREE=$PWD/build/gpu
export PYTHONPATH=$TREE PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 CNNKERNELS_BUILD_TESTS=1

"$PYTHON" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' ||
  { echo "gpu.sh: $PYTHON has no torch, or torch sees no GPU" >&2; exit 2; }

build() { "$PYTHON" setup.py --quiet build --build-lib "$TREE" && "$PYTHON" -m cnnkernels info && echo "built $TREE"; }
pytest() { "$PYTHON" -m pytest -q "$@"; }
conformance() { pytest -m gpu tests/test_ptx_*.py; }
gpu() { pytest -m gpu --ignore-glob='tests/test_ptx_*.py'; }
tests() { pytest -n "$WORKERS" -m 'not gpu'; }
times() { "$PYTHON" benchmarks/quick.py; }

summary=()
failed=0
for stage in $STAGES; do
  case $stage in
    build | conformance | gpu | tests | times) ;;
    *) echo "gpu.sh: no stage $stage" >&2; exit 2 ;;
  esac
done
for stage in $STAGES; do
  printf '\n== %s\n' "$stage"
  started=$SECONDS
  "$stage" 2>&1 | tee "$OUT/$stage.log"
  status=${PIPESTATUS[0]}
  last=$(grep -v '^[[:space:]]*$' "$OUT/$stage.log" | tail -n 1 | cut -c 1-150)
  summary+=("$(printf '%-12s %-7s %4ds  %s' "$stage" "$([ "$status" = 0 ] && echo ok || echo "rc $status")" \
    $((SECONDS - started)) "$last")")
  [ "$status" = 0 ] || failed=1
  if [ "$stage" = build ] && [ "$status" != 0 ]; then break; fi
done

for stage in conformance gpu tests; do
  [ ! -f "$OUT/$stage.log" ] || grep -hE '^(FAILED|ERROR)' "$OUT/$stage.log" | cut -c 1-200 | head -n 15
done
printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit $failed
