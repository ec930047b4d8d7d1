"""The operators `torch.ops.cnnkernels.*`: schema, fake kernel, derivative, batching rule, autocast; one file each."""
