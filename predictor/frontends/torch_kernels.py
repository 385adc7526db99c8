"""Record on the CPU the operators an accelerator would run.

PyTorch picks other kernels on a CPU: attention has its own names, dropout keeps a float mask, autocast
has other lists. While ``accelerator_kernels`` is active, the dispatcher's CPU entries for these are
replaced, and put back afterwards; nothing is executed either way, since all tensors are fake.

The CUDA autocast lists: https://docs.pytorch.org/docs/stable/amp.html (read November 2026).
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.library import Library

from predictor.errors import UnsupportedError
from predictor.frontends.torch_flex import one_kernel
from predictor.frontends.torch_masks import Pattern, pattern_of
from predictor.frontends.torch_recurrent import implement as implement_recurrent
from predictor.frontends.torch_scans import implement as implement_scans

_OWN = Library("predictor", "DEF")
_OWN.define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? bias, bool is_causal, int window, int pairs) "
    "-> (Tensor, Tensor)"
)
_OWN.define(
    "attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor out, "
    "Tensor lse, bool is_causal, int window, int pairs, bool bias_grad) -> (Tensor, Tensor, Tensor, Tensor)"
)
_OWN.define("grouped_mm(Tensor a, Tensor b, Tensor ends) -> Tensor")
_OWN.define("grouped_mm_weight(Tensor a, Tensor grad, Tensor ends) -> Tensor")
_OWN.define("rms_norm(Tensor x, Tensor? weight, int axes) -> (Tensor, Tensor)")
_OWN.define("rms_norm_backward(Tensor grad, Tensor x, Tensor rstd, Tensor? weight) -> (Tensor, Tensor)")

# Operators that CUDA's autocast runs in float32, by the name and overload that the dispatcher sees.
_FLOAT32 = (
    "__rpow__ acos asin cosh exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan "
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm group_norm "
    "cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss "
    "kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss "
    "soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist "
    "cdist renorm logsumexp softmax.int log_softmax.int softmin.int prod prod.dim_int cumprod cumsum "
    "norm.Scalar norm.ScalarOpt_dim linalg_vector_norm sum sum.dim_IntList rms_norm"
).split()


@torch.library.register_fake("predictor::attention", lib=_OWN)
def _attention_shape(q: Any, k: Any, v: Any, bias: Any, *_: Any) -> tuple[Any, Any]:
    b, h, s, _ = q.shape
    out = q.new_empty(b, s, h, v.shape[-1]).transpose(1, 2)
    return out, q.new_empty((b, h, s), dtype=torch.float32)


@torch.library.register_fake("predictor::attention_backward", lib=_OWN)
def _attention_backward_shape(
    grad: Any, q: Any, k: Any, v: Any, bias: Any, out: Any, lse: Any, *pattern_and_bias_grad: Any
) -> tuple[Any, Any, Any, Any]:
    bias_gradient = torch.empty_like(bias) if pattern_and_bias_grad[-1] else q.new_empty(0)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), bias_gradient


class _Attention(torch.autograd.Function):
    """A fused kernel: saves q, k, v, bias, the result and one number per row, never the scores."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, bias: Any, pattern: Pattern) -> Any:
        kept = (pattern.causal, pattern.window, pattern.pairs)
        out, lse = torch.ops.predictor.attention(q, k, v, bias, *kept)
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.kept = kept
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, bias, out, lse = ctx.saved_tensors
        wants_bias = bias is not None and ctx.needs_input_grad[3]
        dq, dk, dv, dbias = torch.ops.predictor.attention_backward(
            grads[0], q, k, v, bias, out, lse, *ctx.kept, wants_bias
        )
        return dq, dk, dv, dbias if wants_bias else None, None


def fused_attention(query: Any, key: Any, value: Any, bias: Any, pattern: Pattern) -> Any:
    """softmax(q k^T + bias) v over the scores that ``pattern`` keeps, in one kernel."""
    return _Attention.apply(query, key, value, bias, pattern)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    pattern = pattern_of(attn_mask) or Pattern(causal=is_causal, bias=True)
    bias = attn_mask if pattern.bias else None
    lead = query.shape[:-3]
    if len(lead) != 1:  # bring [s, d], [h, s, d] and [..., h, s, d] to four axes and back
        q, k, v = (t.reshape(-1, *((1,) * (3 - t.dim())), *t.shape[-3:]) for t in (query, key, value))
        out = fused_attention(q, k, v, bias, pattern)
        return out.reshape(*query.shape[:-1], value.shape[-1])
    return fused_attention(query, key, value, bias, pattern)


@torch.library.register_fake("predictor::grouped_mm", lib=_OWN)
def _grouped_shape(a: Any, b: Any, ends: Any) -> Any:
    return a.new_empty(a.shape[0], b.shape[-1])


@torch.library.register_fake("predictor::grouped_mm_weight", lib=_OWN)
def _grouped_weight_shape(a: Any, grad: Any, ends: Any) -> Any:
    return a.new_empty(ends.shape[0], a.shape[1], grad.shape[1])


class _GroupedProduct(torch.autograd.Function):
    """Rows of a [t, k], sorted by expert, times that expert's b [e, k, n]; ``ends`` their last rows."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, ends: Any) -> Any:
        ctx.save_for_backward(a, b, ends)
        return torch.ops.predictor.grouped_mm(a, b, ends)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        a, b, ends = ctx.saved_tensors
        da = torch.ops.predictor.grouped_mm(grads[0], b.transpose(-2, -1), ends)
        return da, torch.ops.predictor.grouped_mm_weight(a, grads[0], ends), None


def _grouped_mm(a: Any, b: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
    if a.dim() != 2 or b.dim() != 3 or offs is None:
        raise UnsupportedError(
            "grouped products other than [t, k] x [e, k, n] with offsets cannot be counted"
        )
    out = _GroupedProduct.apply(a, b, offs)
    return out if out_dtype is None else out.to(out_dtype)


@torch.library.register_fake("predictor::rms_norm", lib=_OWN)
def _rms_norm_shape(x: Any, weight: Any, axes: int) -> tuple[Any, Any]:
    rows = (*x.shape[: x.dim() - axes], *((1,) * axes))
    return torch.empty_like(x), x.new_empty(rows, dtype=torch.float32)


@torch.library.register_fake("predictor::rms_norm_backward", lib=_OWN)
def _rms_norm_backward_shape(grad: Any, x: Any, rstd: Any, weight: Any) -> tuple[Any, Any]:
    return torch.empty_like(x), x.new_empty(0) if weight is None else torch.empty_like(weight)


class _RmsNorm(torch.autograd.Function):
    """One kernel each way; saves its input and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, axes: int) -> Any:
        out, rstd = torch.ops.predictor.rms_norm(x, weight, axes)
        ctx.save_for_backward(x, rstd, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, rstd, weight = ctx.saved_tensors
        dx, dweight = torch.ops.predictor.rms_norm_backward(grads[0], x, rstd, weight)
        return dx, None if weight is None else dweight, None


def _rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    return _RmsNorm.apply(x, weight, len(normalized_shape))


def _dropout(x: Any, p: float, train: bool) -> Any:
    if not train or p == 0:
        return x
    return torch.ops.aten.native_dropout(x, p, train)[0]


def _sparse_rows(grad: Any, indices: Any, num_weights: int, *_: Any) -> Any:
    """The sparse gradient of a table: PyTorch keeps the rows of ``grad`` and their indices; nothing moves.

    The recording has no sparse tensors: the rows' memory stands for the gradient in the shape of the table.
    """
    width = grad.shape[-1]
    return grad.reshape(-1, width).as_strided((num_weights, width), (width, 1))


def _bag_backward(
    grad: Any,
    indices: Any,
    offsets: Any,
    bag_of: Any,
    bag_size: Any,
    maxima: Any,
    num_weights: int,
    by_frequency: bool,
    mode: int,
    sparse: bool,
    *rest: Any,
) -> Any:
    """The gradient of an embedding bag's table; sparse, it is one row of its bag's gradient per index."""
    if sparse:
        return _sparse_rows(grad.index_select(0, indices), indices, num_weights)
    return torch.ops.aten._embedding_bag_dense_backward(
        grad, indices, bag_of, bag_size, maxima, num_weights, by_frequency, mode, *rest
    )


def _in_float32(overload: Any) -> Callable[..., Any]:
    no_autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_widened(a) for a in args)
        with torch._C._ExcludeDispatchKeyGuard(no_autocast):
            return overload(*args, **kwargs)

    return kernel


def _widened(value: Any) -> Any:
    half = isinstance(value, torch.Tensor) and value.dtype in {torch.float16, torch.bfloat16}
    return value.float() if half else value


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)


@contextmanager
def accelerator_kernels(autocast: torch.dtype | None) -> Iterator[None]:
    """Dispatch as an accelerator does, under autocast to ``autocast`` when it is given."""
    library = Library("aten", "IMPL")
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # replacing an entry of the dispatcher warns
            library.impl("scaled_dot_product_attention", _attention, "AutogradCPU")
            library.impl("dropout", _dropout, "AutogradCPU")
            library.impl("rms_norm", _rms_norm, "AutogradCPU")
            library.impl("_grouped_mm", _grouped_mm, "AutogradCPU")
            library.impl("embedding_sparse_backward", _sparse_rows, "AutogradCPU")
            library.impl("_embedding_bag_backward", _bag_backward, "AutogradCPU")
            implement_recurrent(library)
            implement_scans(library)
            for name in _FLOAT32:  # also for a model that enters autocast by itself
                overload = _overload(name)
                if overload is not None:
                    library.impl(name, _in_float32(overload), "AutocastCPU", allow_override=True)
        torch.backends.mha.set_fastpath_enabled(False)
        cast = torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None)
        with cast, one_kernel(fused_attention):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        library._destroy()
