"""Fused attention: scores never leave the chip, so products and exponentials add up.

Blocks of 128 queries go over the processors; each meets n keys:

    score   = 128 (4 d/(P/units eta) + cx/(16 clock))                     per key [s]
    compute = max(w (n score + pro) + tail (t score + pro), t score + pro)
    move    = 2 (bq (q + out) + (1 + cached bk)(k + v)) d/(0.85 B) + cached pt tokens/(units clock)
    t       = t0 + compute + move

w = blocks/units; n = kept t + block/2 keys where a mask hides some, t for the longest block: the last heavy
blocks run alone, which is the ``tail``. 16 exponentials per clock and processor; d is filled up to what the
kernels are built for. Backward runs five products for two at 0.85 of the rate.

Source: form fitted to measured forward kernels of two inference stacks; 2.5 x flop of the backward: Dao,
"FlashAttention-2", 2023, section 3.1.2; its rate from B200 and A100 training kernels (SimuMax, Apache-2.0).
"""

from dataclasses import dataclass

import numpy as np

from predictor.kernels.chip import ChipRates, shared
from predictor.kernels.tiles import Parts
from predictor.values import Array, Sourced

_BLOCK = 128
_EXP_PER_CLOCK = 16
_COPY_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Backend:
    """One library's kernels.

    rate              over ``ChipRates.attention``, by kernel family
    exponential       clocks of the exponential unit per score
    prologue_cycles   of a block
    block             keys computed beyond the mask's edge
    tail              of the longest block, left when the others have ended
    output, cache     passes over q and out; further ones over k and v where a cache is written
    token_cycles      clocks of one processor per token written to a cache
    wide              slow-down of heads over 256
    pad               heads are filled up to multiples of this, by generation
    t0_s              launch, with the cache write where there is one, by kernel family [s]
    """

    rate: dict[str, float]
    exponential: float
    prologue_cycles: float
    block: float
    tail: float
    output: float
    cache: float
    token_cycles: float
    wide: float
    pad: dict[str, int]
    t0_s: dict[str, float]


def backend(name: str) -> Backend:
    """Constants of "flash" (what training uses too) or "trtllm"."""
    return Backend(**shared()["attention"]["backends"][name])


def of_family(table: dict[str, float], chip: ChipRates) -> float:
    """The value of the chip's kernel family, else that of all."""
    return table.get(chip.family, table[""])


def backward_ratio() -> Sourced:
    """Backward over forward time of the same attention, once both fill the chip."""
    row = shared()["attention"]["backward"]
    return Sourced(row["value"], row["low"], row["high"], row["source"], row["as_of"], "derived")


def parts(
    batch_heads: Array,
    q_len: Array,
    kv_len: Array,
    d: Array,
    kept: Array | float,
    kv_share: Array | float,
    backward: Array | bool,
    peak_flop_per_s: Array | float,
    chip: ChipRates,
    factor: Array | float = 1.0,
    cached_tokens: Array | float = 0.0,
    table: Backend | None = None,
) -> Parts:
    """Fused attention of every row; products with the exponentials in ``compute_s``, copies in ``extra_s``.

    batch_heads    query heads of all samples
    kept           share of the scores that the mask keeps: 1 full, about 0.5 causal
    kv_share       key and value heads over query heads
    factor         rate of the software over the fitted one: below 1 is slower
    cached_tokens  tokens whose keys and values are also written to a cache (inference), else 0
    table          constants of the library, "flash" unless given
    """
    table = table or backend("flash")
    columns = np.broadcast_arrays(
        batch_heads, q_len, kv_len, d, kept, kv_share, backward, peak_flop_per_s, factor, cached_tokens
    )
    heads, q, kv, size, mask, share, back, peak, rate, tokens = (
        np.asarray(c, np.float64).ravel() for c in columns
    )
    speed = peak / chip.units * chip.attention.value * of_family(table.rate, chip)
    score = _BLOCK * (
        4 * _filled(size, table.pad.get(chip.generation, 16)) / speed
        + table.exponential / (_EXP_PER_CLOCK * chip.clock_hz)
    )
    score = score * np.where(size > 256, table.wide, 1.0) / rate
    waves = heads * np.ceil(q / _BLOCK) / chip.units
    keys = np.where(mask < 1, mask * kv + table.block / 2, kv)
    start = table.prologue_cycles / chip.clock_hz
    longest = kv * score + start
    compute = np.maximum(waves * (keys * score + start) + table.tail * longest, longest)
    times = np.where(back > 0, backward_ratio().value, 1.0)
    cached = tokens > 0
    streams = table.output * 2 * heads * q + 2 * heads * share * kv * (1 + table.cache * cached)
    move = 2 * size * streams / (_COPY_SHARE * chip.bandwidth_byte_per_s)
    write = table.token_cycles * tokens / (chip.units * chip.clock_hz)
    zero = np.zeros_like(compute)
    return Parts(compute * times, zero, zero, move * np.where(back > 0, 2.5, 1.0) + write, waves)


def _filled(size: Array, step: int) -> Array:
    """Head size that the kernel computes: at least 64, filled up to ``step``."""
    return np.where(size <= 64, 64.0, np.ceil(size / step) * step)
