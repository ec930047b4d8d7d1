"""torch.export without what it says, and without what it leaves behind."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def _one_precision() -> Iterator[None]:
    """torch.export reads the one TF32 switch of older versions for all of cuDNN. Where convolutions were set apart from
    that by themselves it gives up, and leaves oneDNN and NNPACK switched off."""
    cudnn: Any = torch.backends.cudnn
    conv, rnn = cudnn.conv, cudnn.rnn
    before = conv.fp32_precision, rnn.fp32_precision
    for precision in ("", "tf32", "ieee"):
        if precision:
            conv.fp32_precision = rnn.fp32_precision = precision
        with contextlib.suppress(RuntimeError):
            cudnn.allow_tf32  # noqa: B018 - raises where the three differ
            break
    try:
        yield
    finally:
        if precision:
            conv.fp32_precision, rnn.fp32_precision = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch.export says of sizes that it fixes and graphs that it gives up, and with attention's own code,
    not its shortcut."""
    fast = torch.backends.mha.get_fastpath_enabled()
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            with _one_precision():
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logger.setLevel(level)
