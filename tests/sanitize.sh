#!/usr/bin/env bash
# The kernels in the interpreter under ThreadSanitizer, where each CUDA thread is a thread of its own, and under
# AddressSanitizer. First that planted faults are seen and correct kernels are not blamed, then the exact tests on
# small shapes: any report fails them. `tests/sanitize.sh thread` or `address` runs one of the two.
set -euo pipefail
cd "$(dirname "$0")/.."

# Small shapes that take every kernel's way; "several tiles" under ThreadSanitizer takes minutes.
SMALL="cuda and (fp32-nhwc or fp16-nhwc or fp32-nchw) and not several and not long and not depthwise
  or cuda and (mobilenet or multiplier or whole-vectors)"
TESTS=(tests/conv/test_conv_exact.py tests/depthwise_conv/test_depthwise_conv_exact.py tests/pool/test_max_pool_exact.py)
INT8=(tests/int8_gemm/test_int8_gemm_epilogue.py tests/int8_gemm/test_int8_gemm_kernels.py tests/int8_conv/test_int8_conv_kernels.py
  tests/int8_weight_only_linear/test_int8_weight_only_linear.py tests/quantize/test_quantize_kernels.py tests/int8_pool/test_int8_pool.py)
BYTES="every_shape or every_stride or copied or nobody and not triton or cuda"
PAIRS="(fp32-nhwc or fp16-nhwc or fp32-nchw) and not several and not more-taps"

for sanitizer in ${1:-thread address}; do
  echo "== $sanitizer"
  CNNKERNELS_SANITIZE=$sanitizer CNNKERNELS_BUILD_TESTS=1 python setup.py --quiet build_ext --inplace
  logs=$(mktemp -d)
  preload=$(${CXX:-c++} -print-file-name="lib${sanitizer:0:1}san.so")
  if [ "$sanitizer" = address ]; then
    preload="$preload $(${CXX:-c++} -print-file-name=libstdc++.so)"  # so that it finds __cxa_throw
  fi
  # PyTorch is not instrumented and its OpenMP is unknown to ThreadSanitizer; Python does not free all at exit.
  under() {
    env LD_PRELOAD="$preload" OMP_NUM_THREADS=1 CNNKERNELS_INTERPRET=1 CNNKERNELS_NATIVE_DIR="build/$sanitizer" \
      TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=0 log_path=$logs/report \
        suppress_equal_stacks=0 suppress_equal_addresses=0" \
      ASAN_OPTIONS="detect_leaks=0" "$@"
  }
  under python tests/sanitized.py "$sanitizer" "$logs/report"
  rm -f "$logs"/report.*
  under python -m pytest -q -x -p no:cacheprovider "${TESTS[@]}" -k "$SMALL"
  under python -m pytest -q -x -p no:cacheprovider tests/depthwise_separable_conv/test_depthwise_separable_conv_exact.py -k "$PAIRS"
  under python -m pytest -q -x -p no:cacheprovider "${INT8[@]}" -k "$BYTES"
  if compgen -G "$logs/report.*" > /dev/null; then
    cat "$logs"/report.*
    echo "$sanitizer: reports in the kernels' tests"
    exit 1
  fi
  rm -rf "$logs"
  echo "== $sanitizer: no report in the kernels' tests"
done
