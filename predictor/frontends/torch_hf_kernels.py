"""While a transformers model is recorded: masks that know their pattern, kernels instead of loops.

transformers asks tensor values whether a mask hides anything, which fake tensors lack, and falls back to
loops in Python where no accelerator kernel is installed. Inside ``accelerator_paths`` its functions for
both are replaced, and put back afterwards. Nothing is padded and nothing is packed: sequences are taken
to be as long as their tensors say, as in pre-training, so an attention_mask of ones changes no count.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import ModuleType
from typing import Any
from unittest.mock import patch

from torch import nn

from predictor.frontends import torch_hf_experts, torch_scans
from predictor.frontends.torch_kernels import fused_attention
from predictor.frontends.torch_masks import Pattern, marked, mask, pattern_of
from predictor.ops.sequence import pairs_in_chunks

_MARK = "_predictor_pattern"
# Accelerator kernel, as transformers names it beside its fallback -> the operator that stands for it.
# The whole-block kernels (mamba_inner_fn and such) stay with their fallback: the same steps, one by one.
_KERNELS: dict[str, Callable[..., Any]] = {
    "causal_conv1d_fn": torch_scans.causal_conv1d,
    "selective_scan_fn": torch_scans.selective_scan,
    "mamba_chunk_scan_combined": torch_scans.chunk_scan,
    "chunk_gated_delta_rule": torch_scans.delta_rule,
    "chunk_kda": torch_scans.delta_rule,
}


def _griffin_scan(self: Any, hidden_states: Any, recurrent_gate: Any, reset: Any, **_: Any) -> Any:
    out = torch_scans.linear_scan(recurrent_gate * ~reset, hidden_states)
    return out, hidden_states[:, -1].float()


# Loops of models that name no kernel: function, or class and method, -> its replacement.
_LOOPS: dict[str, Callable[..., Any]] = {
    "rwkv_linear_attention": torch_scans.wkv,
    "RecurrentGemmaRglru._rnn_scan": _griffin_scan,
    "JetMoeTopKGating.forward": torch_hf_experts.jetmoe_router,
    "JetMoeParallelExperts.forward": torch_hf_experts.jetmoe_experts,
    "DbrxExperts.forward": torch_hf_experts.dbrx_experts,
    "LongcatFlashExperts.forward": torch_hf_experts.longcat_experts,
    "SwitchTransformersSparseMLP.forward": torch_hf_experts.switch_mlp,
    "NllbMoeTop2Router._cast_classifier": torch_hf_experts.cast_router,
    "NllbMoeExperts.forward": torch_hf_experts.nllb_experts,
    "XmodOutput.lang_adapter": torch_hf_experts.xmod_adapter,
}


@contextmanager
def accelerator_paths(module: nn.Module, transformers: Any, fused: bool = False) -> Iterator[None]:
    """Record ``module`` as its accelerator kernels would run it.

    ``fused`` puts one attention kernel in the place of whatever attention the class would choose, as a
    configuration that names flash attention asks for.
    """
    with ExitStack() as stack:
        _patch_masks(stack, getattr(transformers, "masking_utils", None), fused)
        _patch_attention(stack, sys.modules.get("transformers.integrations.sdpa_attention"))
        if fused:
            table = transformers.modeling_utils.AttentionInterface._global_mapping
            stack.enter_context(patch.dict(table, {"eager": _one_kernel, "sdpa": _one_kernel}))
        # Checks that as many places wait for an image as it has patches: taken to be so.
        stack.enter_context(patch.dict(os.environ, {"TRANSFORMERS_DISABLE_TORCH_CHECK": "1"}))
        for name in sorted({type(part).__module__ for part in module.modules() if _is_theirs(part)}):
            _patch_loops(stack, sys.modules[name])
        yield


def paths_of(module: nn.Module) -> AbstractContextManager[None]:
    """The same for a module from anywhere: nothing changes where no part of it is transformers' own."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not any(_is_theirs(part) for part in module.modules()):
        return nullcontext()
    return accelerator_paths(module, transformers)


def _is_theirs(part: nn.Module) -> bool:
    return type(part).__module__.startswith("transformers.")


def _one_kernel(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, is_causal: Any = None, **_: Any
) -> tuple[Any, None]:
    """transformers' attention function on [b, h, s, d], as flash attention runs it."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    pattern = pattern_of(attention_mask) or Pattern(causal=bool(causal) and attention_mask is None, bias=True)
    out = fused_attention(query, key, value, attention_mask if pattern.bias else None, pattern)
    return out.transpose(1, 2), None


def _patch_masks(stack: ExitStack, masking: Any, fused: bool) -> None:
    if masking is None:
        return
    patterns: dict[str, Callable[..., Any]] = {
        "sliding_window_causal_mask_function": lambda w: Pattern(causal=True, window=w),
        # Both ends of a two-sided window are inclusive.
        "sliding_window_bidirectional_mask_function": lambda w: Pattern(window=w + 1),
        "chunked_causal_mask_function": lambda chunk, _: _Chunks(chunk),
    }
    for name, pattern in patterns.items():
        if hasattr(masking, name):
            stack.enter_context(patch.object(masking, name, _marking(getattr(masking, name), pattern)))
    if hasattr(masking, "find_packed_sequence_indices"):
        stack.enter_context(patch.object(masking, "find_packed_sequence_indices", lambda *_, **__: None))
    table = masking.AttentionMaskInterface._global_mapping
    maker = _mask_maker(masking)
    stack.enter_context(patch.dict(table, {"sdpa": maker, "eager": maker} if fused else {"sdpa": maker}))


class _Chunks(int):
    """Length of the chunks within which a causal mask sees."""


def _marking(make: Callable[..., Any], pattern: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, **kwargs: Any) -> Any:
        function = make(*args, **kwargs)
        setattr(function, _MARK, pattern(*args, **kwargs))
        return function

    return made


def _mask_maker(masking: Any) -> Callable[..., Any]:
    """transformers' maker of masks: none where a flag says all, a marked one where a pattern does."""
    original = masking.sdpa_mask
    plain = {
        masking.causal_mask_function: Pattern(causal=True),
        masking.bidirectional_mask_function: Pattern(),
    }

    def make(
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: Any = 0,
        kv_offset: Any = 0,
        mask_function: Any = masking.causal_mask_function,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> Any:
        pattern = plain.get(mask_function) or getattr(mask_function, _MARK, None)
        shifted = not (isinstance(q_offset, int) and q_offset == kv_offset == 0)
        lopsided = pattern is not None and pattern != Pattern() and q_length != kv_length
        if pattern is None or shifted or lopsided:
            sizes = (batch_size, q_length, kv_length, q_offset, kv_offset, mask_function)
            return original(*sizes, attention_mask=None, **kwargs)
        if isinstance(pattern, _Chunks):
            inside = Pattern(causal=True, pairs=pairs_in_chunks(q_length, pattern))
            pattern = inside if pattern < kv_length else Pattern(causal=True)
        if pattern.window >= kv_length:
            pattern = Pattern(causal=pattern.causal)
        skip = "allow_is_causal_skip" if pattern.causal else "allow_is_bidirectional_skip"
        if not pattern.window and not pattern.pairs and kwargs.get(skip, pattern.causal):
            return None
        return mask(pattern, batch_size, q_length, kv_length)

    return make


def _patch_attention(stack: ExitStack, sdpa: ModuleType | None) -> None:
    """A marked mask neither stops grouped heads nor hides its pattern under a position bias."""
    if sdpa is None:
        return
    grouped: Any = getattr(sdpa, "use_gqa_in_sdpa", None)
    biased: Any = getattr(sdpa, "create_position_bias_mask", None)

    def use_grouped(attention_mask: Any, *args: Any, **kwargs: Any) -> Any:
        return grouped(None if pattern_of(attention_mask) else attention_mask, *args, **kwargs)

    def with_bias(position_bias: Any, attention_mask: Any, is_causal: bool, *args: Any) -> Any:
        out = biased(position_bias, attention_mask, is_causal, *args)
        pattern = pattern_of(attention_mask)
        if attention_mask is not None and pattern is None:
            return out
        known = pattern or Pattern(causal=is_causal)
        return marked(out, Pattern(known.causal, known.window, known.pairs, bias=True))

    if grouped is not None:
        stack.enter_context(patch.object(sdpa, "use_gqa_in_sdpa", use_grouped))
    if biased is not None:
        stack.enter_context(patch.object(sdpa, "create_position_bias_mask", with_bias))


def _patch_loops(stack: ExitStack, source: ModuleType) -> None:
    for name, function in list(vars(source).items()):
        if inspect.isfunction(function):
            kernel = _KERNELS.get(_kernel_of(function)) or _LOOPS.get(name)
            if kernel is not None:
                stack.enter_context(patch.object(source, name, kernel))
    for name, replacement in _LOOPS.items():
        owner, _, method = name.partition(".")
        if method and hasattr(source, owner):
            stack.enter_context(patch.object(getattr(source, owner), method, replacement))


def _kernel_of(function: Any) -> str:
    """The kernel for which ``use_kernel_func_from_hub_with_fallback`` wrapped this fallback, or ''."""
    if function.__closure__ is None or "func_name" not in function.__code__.co_freevars:
        return ""
    place = function.__code__.co_freevars.index("func_name")
    return str(function.__closure__[place].cell_contents)
