"""Fits of fused attention, of fused expert layers, of 8- and 4-bit products and of FP32 products.

Each takes chips whose products were fitted before, and finds what belongs to its own kernels: constants that
the chips share and one rate of each chip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from predictor.calibrate.fit_products import point
from predictor.calibrate.kernel_tables import Columns
from predictor.calibrate.least_squares import Fitted, fit
from predictor.kernels import attention, experts, tiles, vector
from predictor.kernels.attention import Backend
from predictor.kernels.chip import ChipRates
from predictor.kernels.experts import Fused
from predictor.kernels.vector import Plain
from predictor.values import Array

BACKEND = {
    "exponential": 0.85,
    "prologue_cycles": 1400.0,
    "block": 64.0,
    "tail": 0.3,
    "output": 1.0,
    "cache": 2.0,
    "token_cycles": 100.0,
    "wide": 1.7,
}
FUSED = {"prologue_cycles": 1900.0, "memory": 1.0, "permute": 5.0, "t0_s": 28e-6}
# The last wave of expert tiles is paid in full: fitted, it only trades against the prologue.
WHOLE_WAVES = 1.0
PLAIN = {"prologue_cycles": 800.0, "wave": 0.6, "edge": 0.3, "em": 0.6}
# Not told apart from the rate by these rows; 128 byte per clock is the width of the load units.
PLAIN_L2_BYTE = 60.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Measured kernels of one chip whose products are known."""

    chip: ChipRates
    peak_flop_per_s: float
    rows: Columns

    @property
    def measured_s(self) -> Array:
        """Measured seconds [rows]."""
        return self.rows["latency_ms"] * 1e-3


def attention_s(of: Rows, rate: float, table: Backend, t0_s: float) -> Array:
    """Seconds of the rows of an attention table, forward, keys and values cached where causal."""
    rows = of.rows
    causal = rows["causal"] > 0
    heads = rows["batch"] * rows["heads"]
    found = attention.parts(
        heads,
        rows["seq_len"],
        rows["seq_len"],
        rows["head_dim"],
        np.where(causal, 0.5, 1.0),
        rows["kv_heads"] / rows["heads"],
        False,
        of.peak_flop_per_s,
        replace(of.chip, attention=point(rate, of.chip.attention)),
        cached_tokens=np.where(causal, rows["batch"] * rows["seq_len"], 0.0),
        table=table,
    )
    return t0_s + found.compute_s + found.extra_s


def fit_attention(samples: Sequence[Rows], pad: dict[str, int]) -> Fitted:
    """Constants of one library, and of every chip its rate and launch."""

    def form(place: int, values: Mapping[str, float]) -> Array:
        table = Backend(rate={"": 1.0}, pad=pad, t0_s={}, **{name: values[name] for name in BACKEND})
        return attention_s(samples[place], values["rate"], table, values["t0_s"])

    own = [{"rate": 0.8, "t0_s": 8e-6}] * len(samples)
    return fit(form, [s.measured_s for s in samples], BACKEND, own, pull=0.3)


def experts_s(of: Rows, rate: float, own: Fused, size: float = 2.0) -> Array:
    """Seconds of the rows of an expert table with balanced loads."""
    rows = of.rows
    return experts.layer_s(
        rows["num_tokens"],
        rows["hidden_size"],
        rows["inter_size"] / rows["moe_tp_size"],
        rows["topk"],
        rows["num_experts"],
        rows["moe_ep_size"],
        size,
        of.peak_flop_per_s,
        replace(of.chip, experts=point(rate, of.chip.experts)),
        own,
    )


def fit_expert_rate(samples: Sequence[Rows], own: Fused, size: float) -> Fitted:
    """The share of the peak of every chip in another type, all else as in 16 bit."""

    def form(place: int, values: Mapping[str, float]) -> Array:
        return experts_s(samples[place], values["rate"], own, size)

    start = [{"rate": 0.8}] * len(samples)
    return fit(form, [s.measured_s for s in samples], {}, start, pull=0.3, width=0.15)


def fit_experts(samples: Sequence[Rows]) -> Fitted:
    """Constants of fused expert layers, and the share of the peak of every chip."""

    def form(place: int, values: Mapping[str, float]) -> Array:
        own = Fused(wave=WHOLE_WAVES, **{name: values[name] for name in FUSED})
        return experts_s(samples[place], values["rate"], own)

    own = [{"rate": 0.8}] * len(samples)
    return fit(form, [s.measured_s for s in samples], FUSED, own, pull=0.3, width=0.15)


def quantized_s(of: Rows, values: Mapping[str, float], size: float) -> Array:
    """Seconds of products in 8 or 4 bit with the quantiser of their input, as inference stacks run them."""
    rows = of.rows
    eta = of.chip.eta.value * values["rate"]
    chip = replace(of.chip, eta=point(eta, of.chip.eta), residual=None)
    ones = np.ones(rows.rows)
    found = tiles.parts(ones, rows["m"], rows["n"], rows["k"], size, 2, of.peak_flop_per_s, chip)
    quantize = tiles.quantize_s(rows["m"], rows["k"], values["passes"], values["cached"], chip)
    return values["base_s"] + quantize + found.total_s(chip.products.softness)


def fit_quantized(samples: Sequence[Rows], size: float) -> Fitted:
    """Launches and passes of the quantiser, shared, and the share of the peak of every chip."""

    def form(place: int, values: Mapping[str, float]) -> Array:
        return quantized_s(samples[place], values, size)

    shared = {"base_s": 1e-5, "passes": 1.0, "cached": 1.0}
    own = [{"rate": 0.9}] * len(samples)
    return fit(form, [s.measured_s for s in samples], shared, own, pull=0.05, width=0.12)


def plain_s(of: Rows, rate: float, own: Plain, t0_s: float) -> Array:
    """Seconds of FP32 products called one by one: launch and work overlap, (t0^2 + work^2)^(1/2)."""
    rows = of.rows
    chip = replace(of.chip, vector=point(rate, of.chip.vector))
    found = vector.parts(rows["g"], rows["m"], rows["n"], rows["k"], of.peak_flop_per_s, chip, own)
    return np.hypot(t0_s, found.total_s(chip.products.softness))


def fit_plain(linear: Sequence[Rows], batched: Sequence[Rows]) -> Fitted:
    """Constants of FP32 products, and of every chip the shares and launches of single and batched ones."""

    def form(place: int, values: Mapping[str, float]) -> Array:
        own = Plain(l2_byte=PLAIN_L2_BYTE, **{name: values[name] for name in PLAIN})
        return np.concatenate(
            [
                plain_s(linear[place], values["linear"], own, values["linear_t0_s"]),
                plain_s(batched[place], values["batched"], own, values["batched_t0_s"]),
            ]
        )

    start = {"linear": 0.8, "batched": 0.8, "linear_t0_s": 6e-5, "batched_t0_s": 4e-5}
    measured = [np.concatenate([a.measured_s, b.measured_s]) for a, b in zip(linear, batched, strict=True)]
    return fit(form, measured, PLAIN, [start] * len(linear), pull=0.1, width=0.15)
