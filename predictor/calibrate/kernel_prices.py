"""Predicted seconds of measured kernels, and how far they may be off: arrays, no loop over rows.

Every function takes rows and an accelerator and returns seconds [rows] and standard deviations of their
logarithms [rows]: what kernels of a kind share, what each has for itself, and the chip's rates by the share
of the time they decide. Tables of inference stacks are bursts: ``sustained`` is
left out unless a table says otherwise.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from predictor.accelerator import Accelerator
from predictor.calibrate.case import Bulk, Case, Outcome, Refused, RowError
from predictor.calibrate.hardware import find_accelerator
from predictor.calibrate.kernel_tables import Columns
from predictor.errors import UnsupportedError
from predictor.kernels import attention, chip, collectives, experts, tiles, vector
from predictor.kernels.chip import ChipRates
from predictor.kernels.tiles import Parts
from predictor.values import Array, Sourced

Priced = tuple[Array, Array]
Price = Callable[[Columns, Accelerator, dict[str, Any]], Priced]

_Z95 = 1.645
_LARGE = 512
_BIG_FLOP = 2e10
_SIXTEEN_BIT = ("bfloat16", "float16")
_UNIT = {"fp8": ("fp8", 1.0), "fp8_block": ("fp8", 1.0), "nvfp4": ("fp4", 0.5)}
# Beside the spread of plain 8 bit: block-scaled 8 bit and 4 bit, in products and in experts; stacks that run
# other kernels for them in one release than in the next; loads that one router skews more than another.
_BLOCK_SD = {"fp8_block": 0.12, "nvfp4": 0.15}
_BLOCK_EXPERTS_SD = {"fp8_block": 0.1, "nvfp4": 0.35}
_RELEASE_SD, _SKEW_SD, _TRACE_SD = 0.5, 0.25, 0.2
_CACHED = 3.0  # rate of a tensor that stays in the last cache, over the memory's
_CAST_S = 0.7e-6  # of a kernel that casts nothing, replayed
_CALL_S = {"linear": 60e-6, "bmm": 45e-6, "conv": 90e-6}
_STREAM_CALL_S, _STREAM_SD = 25e-6, 0.36
# Short FP32 products outrun the power limit that long ones run into.
_OUTRUN = 1.5
# Passes over fp32 tensors, and the share of the bandwidth large ones reach: NeuSight, eight chips.
_PASSES = {"add": 3, "mul": 3, "div": 3, "pow": 3, "ln": 2, "softmax": 2}
_REACHED = {"ln": 0.52, "softmax": 0.58}
_STREAM_SHARE = 0.78


def _sd(number: Sourced) -> float:
    """Standard deviation of the logarithm, from the range."""
    return float(np.log(number.high / number.low) / (2 * _Z95)) if number.low > 0 else 0.0


def of_parts(parts: Parts, chip_: ChipRates, t0_s: Array | float, kind: str, big: Any) -> Priced:
    """Seconds and their spread, from parts at middle rates."""
    core = parts.total_s(chip_.products.softness)
    total = np.asarray(t0_s + core)
    p = chip_.products.softness
    sum_p = parts.compute_s**p + parts.memory_s**p + parts.l2_s**p
    compute = core / total * parts.compute_s**p / np.maximum(sum_p, 1e-300)
    memory = core / total * parts.memory_s**p / np.maximum(sum_p, 1e-300)
    rate = {"attention": chip_.attention, "experts": chip_.experts, "vector": chip_.vector}.get(
        kind, chip_.eta
    )
    spread = chip_.spread[kind]
    own = np.where(big, spread.own, spread.small)
    variance = spread.common**2 + own**2 + (compute * _sd(rate)) ** 2 + (memory * _sd(chip_.em)) ** 2
    return total, np.sqrt(variance + (t0_s / total * _sd(chip_.t0_s)) ** 2)


def products(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """m, n, k of a matrix product; ``how``: dtype, stack, and out_byte and extra_byte where they differ."""
    rates = of_stack(_rates(accelerator, how), how.get("stack", ""))
    m, n, k = rows["m"], rows["n"], rows["k"]
    big = (m >= _LARGE) & (n >= _LARGE) & (k >= _LARGE)
    if how["dtype"] not in _SIXTEEN_BIT:
        return _quantized(rows, accelerator, rates, how["dtype"], big, bool(how.get("sustained")))
    g = rows.number.get("g", np.ones(rows.rows))
    out = rows.number.get("out_byte", np.full(rows.rows, 2.0))
    parts = tiles.parts(g, m, n, k, 2, out, chip.matrix_peak(accelerator), rates)
    more = rows.number.get("more_byte")
    if more is not None:
        parts = replace(parts, extra_s=parts.extra_s + more / (rates.em.value * rates.bandwidth_byte_per_s))
    seconds, sd = of_parts(parts, rates, rates.t0_s.value, "matmul", big)
    return seconds, np.hypot(sd, _TRACE_SD if how.get("traced") else 0.0)


def _rates(accelerator: Accelerator, how: dict[str, Any]) -> ChipRates:
    """The chip in burst, or at the clocks that long runs keep."""
    rates = chip.rates(accelerator)
    if not how.get("sustained"):
        return rates
    factor = rates.sustained.value
    sd = np.hypot(_sd(rates.eta), _sd(rates.sustained))
    eta = rates.eta.value * factor
    slow = replace(rates.eta, value=eta, low=eta * np.exp(-_Z95 * sd), high=eta * np.exp(_Z95 * sd))
    return replace(rates, eta=slow, throttle=_times(rates.throttle, 0.0))


def of_stack(rates: ChipRates, stack: str) -> ChipRates:
    """The rates with which this software's kernels run."""
    factor = chip.shared()["stacks"].get(stack.partition("-")[0])
    if factor is None:
        return rates
    return replace(
        rates, eta=_times(rates.eta, factor["eta"]), throttle=_times(rates.throttle, factor["throttle"])
    )


def _times(number: Sourced, factor: float) -> Sourced:
    return replace(number, value=number.value * factor, low=number.low * factor, high=number.high * factor)


def _quantized(
    rows: Columns, accelerator: Accelerator, rates: ChipRates, dtype: str, big: Any, other: bool
) -> Priced:
    """Products in 8 and 4 bit with the quantiser of their input; ``other``: of another release."""
    unit, size = _UNIT[dtype]
    peak = accelerator.peak_flop_per_s.get(unit)
    if peak is None:
        raise RowError("precision", f"{accelerator.id} has no {unit} peak")
    table = chip.shared()["quantized"][dtype]
    known = _nearest(table["rate"], rates)
    share = rates.quantized.value if dtype == "fp8" else known
    family = rates.family if rates.family in table["base_s"] else next(iter(table["base_s"]))
    faster = replace(rates, eta=_times(rates.eta, share), residual=None)
    ones = np.ones(rows.rows)
    parts = tiles.parts(ones, rows["m"], rows["n"], rows["k"], size, 2, peak.value, faster)
    passes, cached = table["passes"][family], table["cached"][family]
    quantize = tiles.quantize_s(rows["m"], rows["k"], passes, cached, rates)
    seconds, sd = of_parts(parts, faster, table["base_s"][family] + quantize, "fp8", big)
    more = np.hypot(_BLOCK_SD.get(dtype, 0.0), _RELEASE_SD if dtype == "fp8_block" and other else 0.0)
    return seconds, np.sqrt(sd**2 + (_sd(rates.quantized)) ** 2 + more**2)


def _nearest(table: dict[str, Any], rates: ChipRates) -> Any:
    """The row of the chip's generation, else of the last one measured."""
    if not table:
        raise RowError("kernel", "no chip with kernels of this type was measured")
    return table[rates.generation] if rates.generation in table else list(table.values())[-1]


def fused_attention(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """Forward, or backward where ``how`` says so; keys and values are cached where causal and serving."""
    rates = chip.rates(accelerator)
    name = "trtllm" if how.get("stack", "").startswith("trtllm") else "flash"
    table = attention.backend(name)
    causal = rows["causal"] > 0
    heads, length = rows["batch"] * rows["heads"], rows["seq_len"]
    backward = bool(how.get("backward"))
    parts = attention.parts(
        heads,
        length,
        rows.number.get("kv_len", length),
        rows["head_dim"],
        np.where(causal, 0.5, 1.0),
        rows["kv_heads"] / rows["heads"],
        backward,
        chip.matrix_peak(accelerator),
        rates,
        cached_tokens=np.where(causal, rows["batch"] * length, 0.0) * how.get("cached", 1.0),
        table=table,
    )
    flop = 4 * heads * length**2 * rows["head_dim"] * np.where(causal, 0.5, 1.0)
    kind = "attention-backward" if backward else "attention"
    t0_s = attention.of_family(table.t0_s, rates) if how.get("cached", 1.0) else rates.t0_s.value
    return of_parts(parts, rates, t0_s, kind, (flop > _BIG_FLOP) & (length >= _LARGE))


def expert_layers(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """Fused gated expert layers; a skewed router's fullest rank decides."""
    rates = chip.rates(accelerator)
    dtype, data = how["dtype"], chip.shared()["experts"]
    size, peak = 2.0, chip.matrix_peak(accelerator)
    table = data["fused"].get("trtllm" if how["stack"].startswith("trtllm") else "sglang")
    if dtype not in _SIXTEEN_BIT:
        unit, size = _UNIT[dtype]
        if unit not in accelerator.peak_flop_per_s:
            raise RowError("precision", f"{accelerator.id} has no {unit} peak")
        peak = accelerator.peak_flop_per_s[unit].value
        table = _nearest(data["types"][dtype], rates)
    if table and "rate" in table:
        rates = replace(rates, experts=_times(rates.experts, table["rate"] / rates.experts.value))
    seconds = experts.layer_s(
        rows["num_tokens"],
        rows["hidden_size"],
        rows["inter_size"] / rows["moe_tp_size"],
        rows["topk"],
        rows["num_experts"],
        rows["moe_ep_size"],
        size,
        peak,
        rates,
        experts.fused(table),
    )
    if how["distribution"] != "balanced":
        seconds = seconds * experts.skew(rows["moe_ep_size"], rows["num_tokens"])
    spread = rates.spread["experts"]
    own = np.where(rows["num_tokens"] >= 2048, spread.own, spread.small)
    more = _BLOCK_EXPERTS_SD.get(dtype, 0.0)
    skewed = 0.0 if how["distribution"] == "balanced" else _SKEW_SD
    return seconds, np.sqrt(spread.common**2 + own**2 + _sd(rates.experts) ** 2 + more**2 + skewed**2)


def grouped_products(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """Products of experts in training: g products [m, k] @ [k, n], sustained."""
    rates = _rates(accelerator, how)
    share = experts.training_share()
    slower = replace(rates, experts=_times(rates.experts, share.value * rates.sustained.value))
    peak = chip.matrix_peak(accelerator)
    parts = experts.parts(rows["g"], rows["m"], rows["n"], rows["k"], 2, rows["out_byte"], peak, slower)
    seconds, sd = of_parts(parts, slower, rates.t0_s.value, "experts", rows["m"] >= _LARGE)
    return seconds, np.hypot(sd, _sd(share))


def casts(rows: Columns, accelerator: Accelerator, _how: dict[str, Any]) -> Priced:
    """Quantising a 16-bit [m, k] to 8 bit, alone."""
    rates = chip.rates(accelerator)
    byte = 3 * rows["m"] * rows["k"]
    cached = np.where(byte < rates.cache_byte / 2, _CACHED, 1.0)
    seconds = _CAST_S + tiles.quantize_s(rows["m"], rows["k"], 1.0 / rates.em.value, 0.0, rates) / cached
    return seconds, np.full(rows.rows, 0.65)


def plain_products(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """FP32 products called one by one: the host's launch overlaps the work."""
    rates = chip.rates(accelerator)
    peak = accelerator.peak_flop_per_s["fp32"].value
    if how["op"] == "bmm":
        faster = min(_OUTRUN, 1.0 / rates.vector.value)
        rates = replace(rates, vector=_times(rates.vector, max(faster, 1.0)))
    parts = vector.parts(rows["g"], rows["m"], rows["n"], rows["k"], peak, rates)
    _, sd = of_parts(parts, rates, 0.0, "vector", parts.compute_s > 1e-3)
    total = np.hypot(_CALL_S[how["op"]], parts.total_s(rates.products.softness))
    return total, sd


def convolutions(rows: Columns, accelerator: Accelerator, _how: dict[str, Any]) -> Priced:
    """FP32 3 x 3 convolutions by Winograd: 4 x 4 output tiles, twice the peak counted directly, transforms.

    Transforms move 16 times the weights and 3.5 times the activations (fitted to six chips).
    """
    rates = chip.rates(accelerator)
    peak = accelerator.peak_flop_per_s["fp32"].value
    out = np.floor((rows["in_size"] + 2 * rows["padding"] - rows["ksize"]) / rows["stride"]) + 1
    tiled = 4 * np.ceil(out / 4)
    weights = rows["in_ch"] * rows["out_ch"] * rows["ksize"] ** 2
    flop = 2 * rows["b"] * tiled**2 * weights
    activations = rows["b"] * (rows["in_ch"] * rows["in_size"] ** 2 + rows["out_ch"] * out**2)
    byte = 4 * (16 * weights + 3.5 * activations)
    work = np.cbrt(
        (flop / (2 * peak * rates.vector.value)) ** 3
        + (byte / (_STREAM_SHARE * rates.bandwidth_byte_per_s)) ** 3
    )
    return np.hypot(_CALL_S["conv"], work), np.full(rows.rows, 0.35)


def streams(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """FP32 elementwise kernels and norms [b, h] called one by one, by their passes over the tensor."""
    rates = chip.rates(accelerator)
    op = how["op"]
    byte = 4 * _PASSES.get(op, 2) * rows["b"] * rows["h"]
    move = byte / (_REACHED.get(op, _STREAM_SHARE) * rates.bandwidth_byte_per_s)
    small = byte < 2 * rates.cache_byte
    return np.hypot(_STREAM_CALL_S, move), np.where(small, 2 * _STREAM_SD, _STREAM_SD * 0.6)


def exchanges(rows: Columns, accelerator: Accelerator, how: dict[str, Any]) -> Priced:
    """Collectives inside a node."""
    op, link = how["op"], how["link"]
    rate = accelerator.intranode_byte_per_s
    if op not in collectives.SWITCHED or rate is None:
        raise RowError("links", f"{op} on {accelerator.id}: no rate of its links")
    if link == "mesh":
        return collectives.mesh_s(rows["byte"], rows["ranks"]), np.full(rows.rows, 0.08)
    ring = (collectives.PCIE if link == "pcie" else collectives.SWITCHED)[op]
    summed = op == "all_reduce" and link == "switch" and chip.family_of(accelerator) == "asynchronous"
    faster = np.where(summed & (rows["ranks"] >= 8), collectives.IN_SWITCH, 1.0)
    seconds = collectives.exchange_s(ring, rows["byte"], rows["ranks"], rate.value * faster)
    return seconds, np.where(rows["byte"] >= 2**22, 0.13, 0.3)


PRICES: dict[str, Price] = {
    "products": products,
    "attention": fused_attention,
    "experts": expert_layers,
    "grouped-products": grouped_products,
    "casts": casts,
    "plain-products": plain_products,
    "convolutions": convolutions,
    "streams": streams,
    "collectives": exchanges,
}


def price(cases: Sequence[Case]) -> Iterator[Outcome]:
    """Groups of kernels priced in one go each; a group whose accelerator lacks a figure is refused."""
    for case in cases:
        accelerator = find_accelerator(case.accelerator)
        rows: Columns = case.detail["columns"]
        try:
            seconds, sd = PRICES[case.detail["form"]](rows, accelerator, case.detail["how"])
        except RowError as error:
            yield Refused(case.source, case.row, error.code, error.detail, case.rows, case.accelerator)
        except UnsupportedError as error:
            yield Refused(case.source, case.row, "accelerator", str(error), case.rows, case.accelerator)
        else:
            wide = np.exp(_Z95 * sd)
            yield Bulk(case, seconds / wide, seconds, seconds * wide, rows["latency_ms"] * 1e-3)
