"""Fit the coefficients of whole steps, check them on what the fit did not see, write both.

    PREDICTOR_DATA=... python calibration/steps.py [--write] [--folds N] [--workers N]

Reads the tables of recipes/steps.toml, counts every model once (kept recordings are used), fits, and
cross-validates by whole model families and by whole accelerators. With --write it replaces
predictor/data/kernels/steps.json, the "steps" of hardware_profiles/*.fit.json and the section of ACCURACY.md.
"""

import argparse
import os
import sys
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.case import Case
from predictor.calibrate.fit_steps import Fitted, Problem
from predictor.calibrate.steps_data import Sample, samples
from predictor.calibrate.tables import read_tables
from predictor.calibrate.validate import groups_of
from predictor.calibrate.write_steps import chips_of, form_of, merge_chip, write_json
from predictor.profile import find_profile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
START, END = "<!-- steps -->", "<!-- end of steps -->"


def chosen(folder: Path, recipe: dict[str, Any]) -> list[Case]:
    """The cases of the recipe's tables that pass its filters."""
    cases = []
    for table, keep in recipe["tables"].items():
        for case in read_tables([folder / table]):
            if isinstance(case, Case) and _passes(case, keep, recipe["leave_out"]["models"]):
                cases.append(case)
    return cases


def _passes(case: Case, keep: dict[str, Any], left_out: Sequence[str]) -> bool:
    job = case.job
    if (
        case.kind != "step"
        or job is None
        or not case.step_s
        or job.mode != "train"
        or job.count not in (None, 1)
    ):
        return False
    if keep.get("framework", "") not in str(case.detail.get("framework", "")):
        return False
    if "models" in keep and job.model not in keep["models"]:
        return False
    if "makers" in keep and find_profile(case.accelerator).vendor not in keep["makers"]:
        return False
    return not any(part in str(job.model) for part in left_out)


def counted(cases: Sequence[Case], workers: int) -> list[Sample]:
    """Every case as arrays of kernels, in the order of the models' names."""
    groups = groups_of(cases)
    with ProcessPoolExecutor(workers) as pool:
        return [sample for found in pool.map(_samples, groups) for sample in found]


def _samples(cases: list[Case]) -> list[Sample]:
    return list(samples(cases))


def by_family(problem: Problem, folds: int, seed: int) -> np.ndarray:
    """Residuals of every sample of the reference table, predicted by a fit without its family."""
    found = np.full(len(problem.samples), np.nan)
    names = sorted({s.case.family for s in problem.samples if s.case.source == "timm_train"})
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[place]: index % folds for index, place in enumerate(order)}
    for fold in range(folds):
        out = np.array(
            [s.case.source == "timm_train" and fold_of[s.case.family] == fold for s in problem.samples]
        )
        found[out] = problem.fit(~out).residuals[out]
    return found


def by_accelerator(problem: Problem, reference: str) -> np.ndarray:
    """Residuals of every sample, predicted by a fit without its accelerator; NaN on the reference."""
    ids = np.array([s.case.accelerator for s in problem.samples])
    found = np.full(len(ids), np.nan)
    for id_ in sorted(set(ids) - {reference}):
        out = ids == id_
        found[out] = problem.fit(~out).residuals[out]
    return found


def line(name: str, split: str, residuals: Iterable[float]) -> str:
    """One row of the table of errors, from ln(predicted / measured)."""
    r = np.asarray(list(residuals))
    error = np.abs(np.expm1(r))
    return (
        f"| {name} | {split} | {len(r)} | {np.median(error):.1%} | {error.mean():.1%} | "
        f"{np.percentile(error, 90):.1%} | {np.expm1(np.median(r)):+.1%} |"
    )


def table(problem: Problem, fitted: Fitted, recipe: dict[str, Any], folds: int) -> list[str]:
    """Errors in the fit, for unseen model families, and for unseen accelerators."""
    tested = problem.samples
    lines = ["| rows | split | number | median | mean | 90th percentile | bias |", "| --- " * 7 + "|"]
    family = by_family(problem, folds, seed=0)
    last = np.array([s.case.job is not None and s.case.job.memory_format == "channels-last" for s in tested])
    grouped = np.array([_is_grouped(s) for s in tested])
    timm = ~np.isnan(family)
    for name, rows in (
        ("timm, RTX 3090, amp", timm),
        ("- contiguous", timm & ~last),
        ("- channels-last", timm & last),
        ("- nets of grouped convolutions", timm & grouped),
        ("- all others", timm & ~grouped),
    ):
        lines.append(line(name, f"unseen model family, {folds} folds", family[rows]))
    chips = by_accelerator(problem, recipe["reference"])
    sources = np.array([s.case.source for s in tested])
    for source in sorted(set(sources)):
        rows = (sources == source) & ~np.isnan(chips)
        if rows.any():
            lines.append(line(source, "unseen accelerator", chips[rows]))
    for source in sorted(set(sources)):
        lines.append(line(source, "in the fit", fitted.residuals[sources == source]))
    return lines


def _is_grouped(sample: Sample) -> bool:
    """Whether grouped convolutions take over a twentieth of the time of all products."""
    seconds = np.exp(sample.table.compute) * sample.count
    product = np.array([not c.vector for c in sample.classes])
    grouped = np.array([c.family.startswith("grouped") for c in sample.classes])
    return bool(seconds[grouped].sum() > 0.05 * seconds[product].sum())


def main() -> None:
    """Fit, print the table, and with --write replace the shipped coefficients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder = os.environ.get("PREDICTOR_DATA")
    if not folder:
        sys.exit("set PREDICTOR_DATA to the folder of the measured tables")
    recipe = tomllib.loads((HERE / "recipes" / "steps.toml").read_text(encoding="utf-8"))
    problem = Problem(counted(chosen(Path(folder), recipe), options.workers))
    fitted = problem.fit()
    if options.write:
        write_json(ROOT / "predictor/data/kernels/steps.json", form_of(fitted, recipe))
        for id_, factors in chips_of(fitted, recipe["spread"]["known_chip"]).items():
            merge_chip(ROOT / "hardware_profiles" / f"{id_}.fit.json", id_, factors, recipe["as_of"])
    lines = table(problem, fitted, recipe, options.folds)
    print("\n".join(lines))
    if options.write:
        page = HERE / "ACCURACY.md"
        head, _, rest = page.read_text(encoding="utf-8").partition(START)
        tail = rest.partition(END)[2]
        page.write_text(f"{head}{START}\n\n" + "\n".join(lines) + f"\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
