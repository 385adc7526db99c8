"""How far predicted peak memory is from measured peaks, and the constants fitted on them.

    PREDICTOR_DATA=... python calibration/memory_accuracy.py [--every N] [--replays FILE] [--write]

gpumemnet: peaks seen by nvidia-smi on one A100, float32, timm models at five batch sizes and generated MLPs.
Every model is recorded once, at a prime batch, and replayed at every measured batch. Constants are fitted
on random halves of the families and tested on the other halves. simumax: allocated peaks of Megatron on
B200, predicted with nothing fitted. With --replays the replays are kept in a file and read from it.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from memory_runs import Row, mlp_rows, read_rows, timm_rows, write_rows
from memory_simumax import simumax_layouts

HERE = Path(__file__).resolve().parent
SEEDS, FEW_CONVOLUTIONS = 10, 6
Array = np.ndarray


@dataclass(frozen=True)
class Constants:
    """MiB of context, of the convolution library at its first and at many convolutions; theta and k."""

    context: float
    first: float
    many: float
    theta: float
    workspace: float

    def predict(self, rows: list[Row]) -> Array:
        """Device bytes [MiB]."""
        factors = [1.0, self.theta, self.workspace, self.first, self.many, self.context]
        return columns(rows) @ np.array(factors)


def columns(rows: list[Row]) -> Array:
    """Per row: allocated, unused segments, largest convolution, has convolutions, has many, one."""
    return np.array(
        [(r.allocated, r.reserved - r.allocated, r.largest, r.convolutions > 0, many(r), 1) for r in rows],
        dtype=float,
    )


def many(row: Row) -> bool:
    """True for convolutional nets; fewer convolutions are patch embeddings."""
    return row.convolutions > FEW_CONVOLUTIONS


def fit(rows: list[Row], context: float) -> Constants:
    """Least relative error, near absolute: least squares repeated with weights 1 / sqrt(|residual|).

    The context is not fitted here, but taken from nets without convolutions; theta lies in 0..1.
    """
    values = columns(rows)
    measured = np.array([r.measured for r in rows])
    target = measured - values[:, 0] - context
    weight = 1 / measured
    answer = np.zeros(4)
    for _ in range(60):
        answer = np.linalg.lstsq(values[:, 1:5] * weight[:, None], target * weight, rcond=None)[0]
        answer[:2] = np.clip(answer[:2], 0, (1, 6))
        miss = np.abs(values[:, 1:5] @ answer - target) / measured
        weight = 1 / measured / np.sqrt(np.maximum(miss, 1e-3))
    return Constants(context, *(float(answer[i]) for i in (2, 3, 0, 1)))


def impossible(rows: list[Row], context: float) -> list[Row]:
    """Rows that cannot be true: 3 % below what must be alive, or of another model than the published one.

    The second shows in FakeTensor's own bytes after the forward pass, which our recording has within a
    quarter at the middle of a model's batch sizes.
    """
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row.model, []).append(row.forward_ratio)
    other = {model for model, found in ratios.items() if not 0.8 < np.median(found) < 1.25}
    return [r for r in rows if r.measured < 0.97 * (r.allocated + context) or r.model in other]


def halves(rows: list[Row], context: float) -> Iterator[tuple[Constants, list[Row]]]:
    """Constants fitted on one random half of the families, and the rows of the other half."""
    families = sorted({row.family for row in rows})
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(families)
        known = set(order[: len(order) // 2])
        yield (
            fit([r for r in rows if r.family in known], context),
            [r for r in rows if r.family not in known],
        )


def error_cells(predicted: Array, rows: list[Row]) -> list[float]:
    """Median, mean and 90th percentile of the absolute relative error, and the median error [%]."""
    error = 100 * (predicted / np.array([r.measured for r in rows]) - 1)
    size = np.abs(error)
    return [
        float(np.median(size)),
        float(size.mean()),
        float(np.percentile(size, 90)),
        float(np.median(error)),
    ]


def unseen(rows: list[Row], context: float, chosen: Callable[[Row], bool] = lambda _: True) -> list[float]:
    """Errors on unseen families, the mean over the random halves, of the rows that are ``chosen``."""
    cells = []
    for constants, held_out in halves(rows, context):
        picked = [row for row in held_out if chosen(row)]
        if picked:
            cells.append(error_cells(constants.predict(picked), picked))
    return [float(x) for x in np.mean(cells, axis=0)]


CLASSES: dict[str, Callable[[Row], bool]] = {
    "convolution": many,
    "attention": lambda r: not many(r) and bool(r.attention),
    "other": lambda r: not many(r) and not r.attention,
}


def residuals(rows: list[Row], context: float, name: str) -> Array:
    """Measured over predicted bytes beyond the context, pooled over the held-out halves."""
    pooled = []
    for constants, held_out in halves(rows, context):
        picked = [row for row in held_out if CLASSES[name](row)]
        if not picked:
            continue
        measured = np.array([row.measured for row in picked])
        pooled.append((measured - context) / (constants.predict(picked) - context))
    return np.concatenate(pooled)


def table(names: str, rows: list[tuple[str, int, list[float]]]) -> list[str]:
    """Errors as Markdown."""
    lines = [f"| {names} | rows | median % | mean % | 90th percentile % | bias % |", "| --- " * 6 + "|"]
    for name, count, cells in rows:
        median, mean, most, bias = cells
        lines.append(f"| {name} | {count:,} | {median:.2f} | {mean:.2f} | {most:.2f} | {bias:+.2f} |")
    return lines


def timm_page(rows: list[Row], context: float) -> list[str]:
    """Everything about the timm runs."""
    out = impossible(rows, context)
    kept = [row for row in rows if row not in out]
    fitted = fit(kept, context)
    held = replace(fitted, theta=1.0, workspace=0.0, first=0.0, many=0.0)
    alone = [r for r in kept if np.isfinite(r.published)]
    lines = table(
        "form, constants fitted on other families",
        [
            ("full form, screened", len(kept), unseen(kept, context)),
            ("full form, every row", len(rows), unseen(rows, context)),
            ("reserved + context, nothing fitted here", len(kept), error_cells(held.predict(kept), kept)),
            (
                "allocated + context, nothing fitted here",
                len(kept),
                error_cells(replace(held, theta=0.0).predict(kept), kept),
            ),
            (
                "FakeTensor as published",
                len(alone),
                error_cells(np.array([r.published for r in alone]), alone),
            ),
        ],
    )
    lines += ["", *table("screened rows", _parts_of(kept, context))]
    lines += ["", "| class | 2 % | 5 % | 50 % | 95 % | 98 % |", "| --- " * 6 + "|"]
    for name in CLASSES:
        cells = " | ".join(
            f"{q:.3f}" for q in np.percentile(residuals(kept, context, name), (2, 5, 50, 95, 98))
        )
        lines.append(f"| {name} | {cells} |")
    lines += ["", "| constant | fitted on all | over the halves |", "| --- | --- | --- |"]
    found = [constants for constants, _ in halves(kept, context)]
    for name, unit in (("theta", ""), ("workspace", ""), ("first", " MiB"), ("many", " MiB")):
        spread = [getattr(c, name) for c in found]
        value = getattr(fitted, name)
        lines.append(f"| {name} | {value:.3g}{unit} | {min(spread):.3g} to {max(spread):.3g} |")
    worst = sorted(kept, key=lambda r: -abs(fitted.predict([r])[0] / r.measured - 1))[:12]
    named = ", ".join(f"{r.model} b{r.batch} {fitted.predict([r])[0] / r.measured - 1:+.0%}" for r in worst)
    lines += ["", f"Largest errors: {named}.", "", "Screened out: "]
    lines[-1] += ", ".join(f"{r.model} b{r.batch}" for r in out) + "."
    return lines


def _parts_of(rows: list[Row], context: float) -> list[tuple[str, int, list[float]]]:
    parts = [(f"class {name}", chosen) for name, chosen in CLASSES.items()]
    for batch in (8, 16, 32, 64, 128):
        parts.append((f"batch {batch}", lambda r, b=batch: r.batch == b))
    return [(name, sum(map(chosen, rows)), unseen(rows, context, chosen)) for name, chosen in parts]


def page(folder: Path, every: int, mlps: int, replays: Path | None) -> list[str]:
    """The whole record."""
    small = mlp_rows(folder, mlps)
    context = float(np.median([r.measured - r.reserved for r in small]))
    if replays and replays.exists():
        rows, refused = read_rows(replays), []
    else:
        rows, refused = timm_rows(folder, every, "adam")
        if replays:
            write_rows(replays, rows)
    predicted = np.array([row.reserved + context for row in small])
    layouts = simumax_layouts(folder)
    errors = np.array([abs(layout.error) for layout in layouts])
    models, families = (len({getattr(r, k) for r in rows}) for k in ("model", "family"))
    lines = [
        f"## gpumemnet, MLPs: context {context:.0f} MiB",
        "",
        *table("form", [("reserved + context", len(small), error_cells(predicted, small))]),
        "",
        f"## gpumemnet, timm: {models} models, {families} families",
        "",
        *timm_page(rows, context),
        "",
        f"Models that no longer build: {', '.join(refused) or 'none'}.",
        "",
        f"## simumax: median {np.median(errors):.2%}, worst {errors.max():.2%}, nothing fitted",
        "",
        "| layout | rows | measured GiB | predicted GiB | error | largest terms, GiB |",
        "| --- " * 6 + "|",
    ]
    for x in layouts:
        terms = sorted(x.parts.items(), key=lambda term: -term[1])[:5]
        words = ", ".join(f"{name} {byte / 2**30:.1f}" for name, byte in terms)
        lines.append(
            f"| {x.name} | {x.rows} | {x.measured:.2f} | {x.predicted:.2f} | {x.error:+.1%} | {words} |"
        )
    return lines


def main() -> None:
    """Measure, print, and with --write put the tables into MEMORY.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--mlps", type=int, default=400)
    parser.add_argument("--replays", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = os.environ.get("PREDICTOR_DATA")
    if not folder:
        sys.exit("set PREDICTOR_DATA to the folder with kernels/gpumemnet and kernels/simumax")
    text = "\n".join(page(Path(folder), options.every, options.mlps, options.replays))
    print(text)
    if options.write:
        record = HERE / "MEMORY.md"
        head, _, _ = record.read_text().partition("<!-- results -->")
        record.write_text(f"{head}<!-- results -->\n\n{text}\n")


if __name__ == "__main__":
    main()
