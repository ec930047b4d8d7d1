"""From a float model to an INT8 one: after training (`quantize`) or in training (`prepare_qat`, `convert_qat`)."""

from .errors import Errors, LayerError
from .formulas import affine_code, fake_quantize, fake_quantize_weight, symmetric_scale
from .lowering import Code, Value
from .observers import MSE, Entropy, MinMax, Percentile
from .post_training import quantize
from .report import Noise, Quantization
from .saved import load_quantized, save_quantized
from .training import FakeQuantize, convert_qat, prepare_qat

__all__ = [
    "MSE",
    "Code",
    "Entropy",
    "Errors",
    "FakeQuantize",
    "LayerError",
    "MinMax",
    "Noise",
    "Percentile",
    "Quantization",
    "Value",
    "affine_code",
    "convert_qat",
    "fake_quantize",
    "fake_quantize_weight",
    "load_quantized",
    "prepare_qat",
    "quantize",
    "save_quantized",
    "symmetric_scale",
]
