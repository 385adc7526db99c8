"""Operators that meet each element once: one table from name to flop per element.

The flop counts are those of the arithmetic; special functions count as the few flop their polynomial
takes. They matter little: these kernels run at the speed of memory.
"""

from predictor.ir import Op
from predictor.ops import Formula, Kernel, compute_dtype, formula, images_last, streamed

_FLOP_PER_ELEMENT = {
    0: "where masked_fill eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or "
    "bitwise_not isnan isinf isfinite sign abs floor ceil round trunc threshold_backward "
    "real imag conj_physical clamp_backward isin sgn signbit isposinf isneginf isreal logical_xor copysign "
    "bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ __and__ __or__ __xor__ nan_to_num "
    "heaviside hardshrink hardshrink_backward",
    1: "add sub rsub mul neg maximum minimum relu relu6 clamp clamp_min clamp_max square fmod remainder "
    "masked_fill_backward hardtanh hardtanh_backward leaky_relu leaky_relu_backward threshold lerp "
    "native_dropout_backward floor_divide bitwise_xor complex polar fmax fmin frac deg2rad rad2deg positive "
    "softshrink softshrink_backward relu6_backward _masked_scale soft_margin_loss",
    2: "addcmul addcdiv mse_loss hardsigmoid hardsigmoid_backward hardswish prelu l1_loss",
    4: "div reciprocal sqrt rsqrt hardswish_backward _prelu_kernel _prelu_kernel_backward "
    "mse_loss_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward "
    "native_dropout bernoulli uniform normal random angle hypot rrelu_with_noise "
    "rrelu_with_noise_functional rrelu_with_noise_backward poisson cross linalg_cross linalg_cross_backward "
    "soft_margin_loss_backward nextafter fake_quantize_per_tensor_affine_cachemask "
    "fake_quantize_per_channel_affine_cachemask _fake_quantize_learnable_per_tensor_affine",
    10: "exp log log2 log10 log1p expm1 sin cos tan tanh tanh_backward sigmoid sigmoid_backward pow erf "
    "softplus softplus_backward silu elu elu_backward atan atan2 log_sigmoid_forward mish xlogy "
    "log_sigmoid_backward binary_cross_entropy binary_cross_entropy_backward glu sinh cosh asin acos "
    "erfinv binary_cross_entropy_with_logits logit logit_backward exp2 erfc tan_backward asinh acosh "
    "atanh logaddexp logaddexp2 sinc selu celu special_expit special_entr special_erfcx "
    "special_log_ndtr special_ndtr special_ndtri special_i0 special_i0e special_i1 special_i1e "
    "special_xlog1py special_zeta i0 digamma lgamma mvlgamma polygamma float_power ldexp kl_div "
    "multilabel_margin_loss_forward multi_margin_loss multi_margin_loss_backward "
    "multilabel_margin_loss_backward _thnn_fused_lstm_cell _thnn_fused_gru_cell "
    "_thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell_backward",
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
        work = streamed(op, flop)
        return (Kernel("elementwise", work, compute_dtype(op), family=_style(op), last=images_last(op)),)

    return elementwise


def _style(op: Op) -> str:
    """How its tensors meet: alike, of several types, or a small one spread over a large one."""
    largest = max((t.elements for t in (*op.inputs, *op.outputs)), default=0)
    if any(1 < t.elements < largest for t in op.inputs):
        return "broadcast"
    types = {t.dtype for t in (*op.inputs, *op.outputs) if t.elements == largest and "float" in t.dtype}
    return "mixed" if len(types) > 1 else "elementwise"


for _flop, _names in _FLOP_PER_ELEMENT.items():
    _formula = _per_element(_flop)
    for _name in _names.split():
        formula(f"aten.{_name}", f"aten.{_name}_")(_formula)
for _name, _flop in ONNX_FLOP_PER_ELEMENT.items():
    formula(_name)(_per_element(_flop))
