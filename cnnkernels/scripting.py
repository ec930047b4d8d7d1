"""What torch.jit.script gets to hear."""

from __future__ import annotations

from typing import NoReturn


def refuse_scripting(name: str) -> NoReturn:
    """Raises, before TorchScript reads code that it can not compile.

    Handing it PyTorch's own layer instead would put that layer into the caller's model, where torch.jit.script leaves
    what it was handed.
    """
    raise NotImplementedError(
        f"torch.jit.script can not compile cnnkernels' {name}: use torch.jit.trace, torch.export or torch.compile, or "
        "script the model before replace_layers"
    )
