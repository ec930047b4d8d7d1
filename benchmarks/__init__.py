"""Benchmarks of every operator and of whole networks: `cnnkernels bench`. They live in the checkout, not in the wheel.

cases       what is measured: layers of public networks, corners, matrix products, as data in workloads.json
families    one entry an operator: its inputs, operations and bytes, PyTorch's call and ours
providers   who computes a case: our CUDA and Triton, cuDNN, ATen, torch.compile, ...
verify      a provider's numbers against fp64, before it is timed
machine     which GPU, what versions, and its measured ceilings
measure     one case: verify, memory, reproducibility, time
prewarm     compiles Triton's kernels on all cores, before a quick run
results     JSON lines that a later run continues, and the comparison with an earlier run
summary     means, the worst shapes and remarks, in lines of text
report      CSV, pictures (plots) and one HTML page (report.html) of a result file
performance docs/performance.md, made of all results
networks    ResNet-50, MobileNetV2, ConvNeXt-T and U-Net in plain torch; network_bench trains and runs them
host        what can be known without a GPU: host time a call, imports, interpreters, the build
suite       the small suite, for pytest-benchmark
run         the command: which cases, in what order, until the time is up
"""
