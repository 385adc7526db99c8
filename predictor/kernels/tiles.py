"""Matrix products as tiles on processors: the best tile and split of a menu, counted waves, three bounds.

For every tile (bm, bn) and every split s of the sum:

    tiles   = g ceil(m/bm) ceil(n/bn) s,  w = tiles/units,  W = 1 if w <= 1 else w + q (ceil(w) - w)
    compute = W (2 bm bn ceil64(k/s) units/(P eta) (1 + a (64/bm + 64/bn - 3/4)) + prologue/clock)
    memory  = (bytes + max(0, reread - bytes) (1 - min(1, cache/bytes)))/(B em)
    l2      = tiles (bm + bn) k/s element_byte/(r min(units, tiles) clock)
    t       = t0 + (compute^p + memory^p + l2^p)^(1/p) + (s > 1)(sync + 8 s g m n/(2 B))

The least time wins. Two kernel families: *classic* counts whole waves; *asynchronous* (copies run beside the
products, from Hopper on) hides the last, partly filled wave. Kernels beyond 0.3 ms slow down by
``throttle`` per decade, in burst; ``sustained`` is another term, applied by the caller.

Arrays are [rows] outside; inside [tiles, splits, rows] in single precision and microseconds.
"""

from dataclasses import dataclass

import numpy as np

from predictor.kernels.chip import ChipRates, Products
from predictor.kernels.residual import correction
from predictor.values import Array

SPLITS = (1, 2, 3, 4, 6, 8, 16)
_SIDES = (16, 32, 64, 128, 256)
_LEAST_AREA, _MOST_AREA, _LEAST_LONG = 2048, 32768, 64
_LEAST_SUM = 128  # of one part of a split sum
_STEP = 64  # the sum runs in steps of this many
_CALM_S = 3e-4  # kernels up to this long keep their clock
_US = 1e6
_CACHE_BYTE_PER_CLOCK = 64.0
_CHUNK = 64  # rows at a time: arrays small enough to stay in the cache

TILES = tuple(
    (bm, bn)
    for bm in _SIDES
    for bn in _SIDES
    if max(bm, bn) >= _LEAST_LONG and _LEAST_AREA <= bm * bn <= _MOST_AREA
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the time of each product is made of, at the chip's middle rates [rows, s].

    compute_s  on the matrix units, with the slow-down of long kernels
    memory_s   through device memory
    l2_s       from the last cache to the processors
    extra_s    joining the parts of a split sum
    waves      tiles over processors of the chosen tile [-]
    """

    compute_s: Array
    memory_s: Array
    l2_s: Array
    extra_s: Array
    waves: Array

    def total_s(self, softness: float) -> Array:
        """The three bounds under a smooth maximum, and the joining [s]; without the launch."""
        return smooth_max(softness, self.compute_s, self.memory_s, self.l2_s) + self.extra_s


def smooth_max(softness: float, *bounds: Array) -> Array:
    """(sum of bounds^p)^(1/p), whatever their size.

    >>> float(smooth_max(3.0, np.array(2.0), np.array(0.0)))
    2.0
    """
    largest = np.maximum.reduce(bounds)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(largest * sum((b / scale) ** softness for b in bounds) ** (1 / softness))


def parts(
    g: Array,
    m: Array,
    n: Array,
    k: Array,
    element_byte: Array | float,
    out_byte: Array | float,
    peak_flop_per_s: Array | float,
    chip: ChipRates,
) -> Parts:
    """``g`` products [m, k] @ [k, n] per row, on one chip, each by the best tile and split.

    element_byte     of both inputs, out_byte of the result [byte]
    peak_flop_per_s  dense peak of the units the products run on [flop/s]
    """
    given = np.broadcast_arrays(g, m, n, k, element_byte, out_byte, peak_flop_per_s)
    sides = [np.maximum(np.asarray(c, np.float64).ravel(), 1.0) for c in given]
    with np.errstate(over="ignore"):  # absurdly long choices become infinite and lose
        found = [
            _best([s[i : i + _CHUNK] for s in sides], chip, chip.products)
            for i in range(0, max(len(sides[0]), 1), _CHUNK)
        ]
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return _corrected(columns, sides, chip)


def _corrected(columns: list[Array], sides: list[Array], chip: ChipRates) -> Parts:
    """The parts times what this generation's chips showed beside the form, for single products of 16 bit."""
    compute, memory, l2, extra, waves = columns
    if chip.residual is not None:
        g, m, n, k, size = sides[:5]
        plain = (g == 1) & (size == 2)
        seen = np.where(plain, correction(chip.residual, m, n, k, chip.units), 0.0)
        compute, memory, l2, extra = (part * np.exp(seen) for part in (compute, memory, l2, extra))
    return Parts(compute, memory, l2, extra, waves)


def seconds(p: Parts, chip: ChipRates) -> Array:
    """Launch to end of every product at the chip's middle rates [s]."""
    return chip.t0_s.value + p.total_s(chip.products.softness)


def quantize_s(m: Array, k: Array, passes: float, cached: float, chip: ChipRates) -> Array:
    """Casting a 16-bit [m, k] to 8 bit before a product, 3 byte per element and pass [s].

    passes  through device memory
    cached  through the last cache, at 64 byte per clock and processor
    """
    through_cache = chip.units * chip.clock_hz * _CACHE_BYTE_PER_CLOCK
    return np.asarray(3 * m * k * (passes / chip.bandwidth_byte_per_s + cached / through_cache))


def _best(rows: list[Array], chip: ChipRates, form: Products) -> tuple[Array, ...]:
    """compute, memory, l2, extra [s] and waves of the fastest choice of every row."""
    g, m, n, k, size, out, peak = (r.astype(np.float32) for r in rows)
    bm, bn = (np.array(side, np.float32)[:, None, None] for side in zip(*TILES, strict=True))
    split = np.array(SPLITS, np.float32)[None, :, None]
    units, clock = chip.units, chip.clock_hz
    down, across = np.ceil(m / bm), np.ceil(n / bn)  # [tiles, 1, rows]
    part = k / split  # [1, splits, rows]
    tiles = (g * down * across) * split
    busy = np.minimum(tiles, units)
    waves = tiles / units
    whole = np.where(waves <= 1, 1, waves + form.wave * (np.ceil(waves) - waves))
    edge = 1 + form.edge * (64 / bm + 64 / bn - 0.75)
    per_sum = (2 * _US * units / chip.eta.value) * bm * bn * edge / peak
    compute = whole * (per_sum * (np.ceil(part / _STEP) * _STEP) + _US * form.prologue_cycles / clock)
    result = out * m * n * g
    once = g * size * (m * k + k * n) + result
    tall = np.sqrt(busy * (bn / bm))
    tall = np.minimum(np.maximum(tall, busy / across), down)
    wide = np.minimum(busy / tall, across)
    again = (waves * units / busy) * (tall * bm + wide * bn) * (part * size) + result
    missed = 1 - np.minimum(1, chip.cache_byte / once)
    rate = chip.bandwidth_byte_per_s
    memory = (once + np.maximum(0, again - once) * missed) * np.float32(_US / (rate * chip.em.value))
    l2 = (tiles / busy) * (bm + bn) * (part * size) * np.float32(_US / (form.l2_byte * clock))
    joins = np.where(split > 1, form.sync_s * _US + split * (8 * m * n * g * (_US / (2 * rate))), 0)
    time = np.exp(np.log(_powers(form.softness, compute, memory, l2)) / np.float32(form.softness)) + joins
    time = np.where((split > 1) & (part < _LEAST_SUM), np.inf, time).reshape(-1, len(m))
    best = time.argmin(axis=0), np.arange(len(m))
    chosen = (
        np.broadcast_to(x, (len(TILES), len(SPLITS), len(m))).reshape(time.shape)[best].astype(np.float64)
        for x in (compute, memory, l2, joins, waves)
    )
    compute_us, memory_us, l2_us, joins_us, waves_ = chosen
    return (
        slowed_s(compute_us / _US, chip.throttle.value),
        memory_us / _US,
        l2_us / _US,
        joins_us / _US,
        waves_,
    )


def _powers(softness: float, a: Array, b: Array, c: Array) -> Array:
    """Sum of the bounds to the power p."""
    if softness == 3.0:
        return a * a * a + b * b * b + c * c * c
    p = np.float32(softness)
    return np.asarray(np.exp(p * np.log(a)) + np.exp(p * np.log(b)) + np.exp(p * np.log(c)))


def slowed_s(compute_s: Array, throttle: float) -> Array:
    """Computing time with the clock that long kernels lose, ``throttle`` per decade over 0.3 ms [s].

    >>> float(slowed_s(np.array(3e-3), 0.1))
    0.0033
    """
    return np.asarray(
        compute_s * (1 + throttle * np.maximum(0, np.log10(np.maximum(compute_s, 1e-12) / _CALM_S)))
    )
