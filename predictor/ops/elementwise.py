"""Operators that meet each element once: one table from name to flop per element.

The flop counts are those of the arithmetic; special functions count as the few flop their polynomial
takes. They matter little: these kernels run at the speed of memory.
"""

from predictor.ir import Op
from predictor.ops import Formula, Kernel, compute_dtype, formula, streamed

_FLOP_PER_ELEMENT = {
    0: "where masked_fill eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or "
    "bitwise_not isnan isinf isfinite sign abs floor ceil round trunc threshold_backward "
    "real imag conj_physical clamp_backward isin",
    1: "add sub rsub mul neg maximum minimum relu relu6 clamp clamp_min clamp_max square fmod remainder "
    "masked_fill_backward hardtanh hardtanh_backward leaky_relu leaky_relu_backward threshold lerp "
    "native_dropout_backward floor_divide bitwise_xor complex polar",
    2: "addcmul addcdiv mse_loss hardsigmoid hardsigmoid_backward hardswish prelu l1_loss",
    4: "div reciprocal sqrt rsqrt hardswish_backward _prelu_kernel _prelu_kernel_backward "
    "mse_loss_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward "
    "native_dropout bernoulli rand_like randn_like uniform normal random",
    10: "exp log log2 log10 log1p expm1 sin cos tan tanh tanh_backward sigmoid sigmoid_backward pow erf "
    "softplus softplus_backward silu elu elu_backward atan atan2 log_sigmoid_forward mish xlogy "
    "log_sigmoid_backward binary_cross_entropy binary_cross_entropy_backward glu sinh cosh asin acos erfinv "
    "binary_cross_entropy_with_logits logit",
    15: "gelu gelu_backward silu_backward mish_backward glu_backward",
}

_ONNX = {
    0: "Where Equal Less Greater LessOrEqual GreaterOrEqual And Or Not Xor Abs Sign Floor Ceil Round IsNaN "
    "IsInf BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitShift",
    1: "Add Sub Mul Neg Relu Clip Max Min LeakyRelu PRelu ThresholdedRelu Dropout Sum Mean Mod Shrink "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear",
    4: "Div Reciprocal Sqrt HardSwish HardSigmoid Bernoulli",
    10: "Exp Log Sin Cos Tan Sinh Cosh Tanh Asin Acos Atan Asinh Acosh Atanh Sigmoid Pow Erf Softplus Elu "
    "Mish Selu Celu Softsign Swish",
    15: "Gelu",
}
_MICROSOFT = ("Gelu", "FastGelu", "BiasGelu", "QuickGelu")
ONNX_FLOP_PER_ELEMENT = {f"onnx.{name}": flop for flop, names in _ONNX.items() for name in names.split()} | {
    f"com.microsoft.{name}": 15 for name in _MICROSOFT
}


def _per_element(flop: int) -> Formula:
    def elementwise(op: Op) -> tuple[Kernel, ...]:
        return (Kernel("elementwise", streamed(op, flop), compute_dtype(op)),)

    return elementwise


for _flop, _names in _FLOP_PER_ELEMENT.items():
    _formula = _per_element(_flop)
    for _name in _names.split():
        formula(f"aten.{_name}", f"aten.{_name}_")(_formula)
for _name, _flop in ONNX_FLOP_PER_ELEMENT.items():
    formula(_name)(_per_element(_flop))
