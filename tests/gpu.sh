#!/usr/bin/env bash
# `make gpu`: builds, tests and times everything on a machine with a GPU, with its own python3 and nothing fetched.
#
# STAGES names what to do, in order:
#   build        both native modules and the test kernels, laid out as an install would
#   conformance  each PTX primitive on its own, those first that no emulator could be sure of: TF32 and TMA
#   prove        `cnnkernels prove`: which kernels are certified on this GPU, which all that follows goes by
#   quick        `cnnkernels bench --quick`, its tables and plots
#   tune         `cnnkernels tune` of the workloads' convolutions, as far as the time reaches
#   gpu          the other tests that only a GPU can run
#   tests        all tests that run anywhere: here their kernels run on the GPU
#   networks     `cnnkernels bench --whole`, and                full: every case; both as far as the time reaches
# A stage that fails does not keep the next from its turn (but nothing runs without a build), and none takes the shares of
# LIMIT seconds that those behind it have; what one leaves is the next one's. Tests have TESTS_LIMIT for themselves, and
# come last. gpu.log, certificates and results go to $OUT, or to benchmarks/results, as they come. What matters is printed
# last.
# Where there is no GPU, CNNKERNELS_INTERPRET=1 runs the stages in the interpreters, to try this script.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
STAGES=${STAGES:-build conformance prove quick tune gpu tests}
LIMIT=${LIMIT:-540} TESTS_LIMIT=${TESTS_LIMIT:-600}
OUT=${OUT:-benchmarks/results}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
TREE=$PWD/build/gpu # on the path instead of the checkout: nothing is installed
export CNNKERNELS_CACHE=$OUT/certificates
export OUT PYTHONPATH=$TREE PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 CNNKERNELS_BUILD_TESTS=1
LOGS=$(mktemp -d)
trap 'rm -rf "$LOGS"' EXIT

# Hundredths of LIMIT; tests have a limit of their own, and the last two take what is left.
declare -A SHARE=([build]=28 [conformance]=8 [prove]=18 [quick]=26 [tune]=12 [gpu]=8 [tests]=0 [networks]=0 [full]=0)
for stage in $STAGES; do
  [ -n "${SHARE[$stage]:-}" ] || { echo "gpu.sh: no stage $stage: there are ${!SHARE[*]}" >&2; exit 2; }
done
case ${CNNKERNELS_INTERPRET:-0} in # any other word than these is on, or cnnkernels/environment.py refuses it
  0 | [Ff][Aa][Ll][Ss][Ee] | [Nn][Oo] | [Oo][Ff][Ff]) interpreting=0 ;;
  *) interpreting=1 ;;
esac
if [ "$interpreting" = 0 ]; then
  "$PYTHON" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' ||
    { echo "gpu.sh: $PYTHON has no torch, or torch sees no GPU" >&2; exit 2; }
fi

# The shares of the stages that come after one.
behind() {
  local of=0 sum=0 stage
  for stage in $STAGES; do
    [ "$of" = 0 ] || sum=$((sum + SHARE[$stage]))
    [ "$stage" != "$1" ] || of=1
  done
  echo "$sum"
}
# INT first, so that pytest still says what it has seen
limited() { timeout --signal=INT --kill-after=15 "$seconds" "$@"; }
pytest() { limited "$PYTHON" -m pytest -q -p no:cacheprovider "$@"; }
workers() { "$PYTHON" -c 'import xdist' 2>/dev/null && echo "-n ${WORKERS:-$(($(nproc) / 2))}"; }
bench() { limited "$PYTHON" -m cnnkernels bench --seconds $((seconds > 60 ? seconds - 30 : 30)) "$@"; }

build() {
  limited "$PYTHON" setup.py --quiet build --build-lib "$TREE" && "$PYTHON" -m cnnkernels info && echo "built $TREE"
}
conformance() {
  local failed=0
  pytest -m gpu tests/ptx -k "tf32 or tma" || failed=$?
  pytest -m gpu tests/ptx -k "not tf32 and not tma" || failed=$?
  return $failed
}
prove() {
  if [ "$interpreting" = 0 ]; then limited "$PYTHON" -m cnnkernels prove --again
  else limited "$PYTHON" -m cnnkernels prove --only cuda pool fp32; fi
}
tune() {
  if [ "$interpreting" = 0 ]; then
    limited "$PYTHON" -m cnnkernels tune conv2d --shapes benchmarks/workloads.json --output "$OUT/tuned.json"
  else echo "nothing is timed in the interpreters"; fi
}
gpu() { pytest -m gpu --ignore=tests/ptx; }
# shellcheck disable=SC2046
tests() { pytest $(workers) -m 'not gpu'; }
quick() { if [ "$interpreting" = 0 ]; then bench --quick; else bench --tiny --op max_pool2d; fi; }
networks() { bench --whole; }
full() { bench; }

: >"$OUT/gpu.log"
summary=()
failed=0
for stage in $STAGES; do
  printf '\n== %s\n' "$stage" | tee -a "$OUT/gpu.log"
  started=$SECONDS
  seconds=$((LIMIT - started - LIMIT * $(behind "$stage") / 100))
  [ "$stage" != tests ] || seconds=$TESTS_LIMIT
  if [ "$seconds" -lt "${LEAST:-10}" ]; then
    echo "no time left of the $LIMIT seconds"
    status=124
  else
    "$stage"
    status=$?
  fi > >(tee -a "$OUT/gpu.log" "$LOGS/$stage") 2>&1
  wait $! # for tee
  [ "$status" != 124 ] || echo "stopped: its time was up" | tee -a "$LOGS/$stage"
  last=$(grep -v '^[[:space:]]*$' "$LOGS/$stage" | tail -n 1 | cut -c 1-150)
  summary+=("$(printf '%-12s %-7s %4ds  %s' "$stage" "$([ "$status" = 0 ] && echo ok || echo "rc $status")" \
    $((SECONDS - started)) "$last")")
  [ "$status" = 0 ] || failed=1
  if [ "$stage" = build ] && [ "$status" != 0 ]; then break; fi
done

{
  printf '\n== what matters\n'
  for stage in $STAGES; do
    [ -f "$LOGS/$stage" ] || continue
    case $stage in
      prove) grep -E 'certified|^  not ' "$LOGS/$stage" | cut -c 1-200 | head -n 40 ;;
      quick | networks | full) sed -n '/times as fast as/,$p' "$LOGS/$stage" | cut -c 1-220 | head -n 60 ;;
      *) grep -E '^(FAILED|ERROR)|error:' "$LOGS/$stage" | cut -c 1-200 | head -n 15 ;;
    esac
  done
  printf '\n== summary\n'
  printf '%s\n' "${summary[@]}"
} | tee -a "$OUT/gpu.log"
exit $failed
