"""Published training speeds, the one schema of ``throughput/*.csv``."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from predictor.calibrate.case import Case, Read, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.models import Choice
from predictor.calibrate.readers.format import Format
from predictor.calibrate.readers.sources import SOURCES, Source
from predictor.calibrate.rows import Row, number, parameter_count, whole
from predictor.calibrate.software import (
    optimizer_of,
    precision_of,
    recompute_of,
    sharding_of,
    single_precision,
    stack_of,
)
from predictor.errors import InputError
from predictor.job import Job

COLUMNS = frozenset(
    "source model framework exec_mode phase precision accelerator n_accel global_batch micro_batch "
    "throughput throughput_unit step_time_s peak_mem_gb avg_power_w notes".split()
)


def read(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """Cases of a table of this schema; repeats of one job are one case where its source says so."""
    found = [_outcome(row, f"{path.name}:{index + 2}") for index, row in enumerate(rows)]
    merged = {row["source"] for row in rows if SOURCES.get(row["source"], Source()).repeats}
    yield from _merged(found) if merged else found


def _outcome(row: Row, place: str) -> Read:
    """One row as a case, or why not."""
    count = int(row["n_accel"]) if row["n_accel"].isdigit() else 0
    try:
        return _case(row, place)
    except RowError as error:
        return Refused(row["source"], place, error.code, error.detail, 1, row["accelerator"], count)
    except InputError as error:
        return Refused(row["source"], place, "plan", str(error), 1, row["accelerator"], count)


def _case(row: Row, place: str) -> Case:
    source = SOURCES.get(row["source"], Source())
    source.check(row)
    accelerator = accelerator_id(source.accelerator(row))
    count = whole(row, "n_accel")
    if count is None:
        raise RowError("plan", "the number of accelerators is not published")
    train = not row["phase"].startswith("infer")
    if row["phase"].startswith("finetune-lora"):
        raise RowError("method", row["phase"])
    choice = source.choose(row)
    micro, batch = _batches(row, source, count)
    job = Job(
        model=choice.model,
        hardware=accelerator,
        count=count,
        precision=_precision(row, source, accelerator),
        stack=_stack(row, source, choice),
        memory_format="channels-last" if source.channels_last(row) else "contiguous",
        batch_size=batch,
        micro_batch=micro,
        seq_len=_sequence(row, choice),
        image_size=_image(row, choice),
        optimizer=_optimizer(row, source, choice) if train else "none",
        mode="train" if train else "infer",
        **_plan(row, source),
    )
    parameters, slack = parameter_count(row["n_params"]) if source.pinned else (None, 0.0)
    step_s = source.step_s(row, choice, batch) or _step_s(row, choice, batch)
    peak_gb, watt = number(row, "peak_mem_gb"), source.watt(row, count)
    if step_s is None and peak_gb is None and watt is None:
        raise RowError("measurement", "no step time, throughput, memory or power")
    return Case(
        source=row["source"],
        row=place,
        kind="step",
        job=job,
        family=choice.family,
        accelerator=accelerator,
        samples=batch,
        step_s=step_s,
        peak_byte=None if peak_gb is None else peak_gb * source.memory_unit,
        bytes=source.bytes,
        watt=watt,
        parameters=parameters,
        slack=slack,
        limit_w=source.limit_w(row),
        detail={"framework": row["framework"]},
    )


def _stack(row: Row, source: Source, choice: Choice) -> str | None:
    """The software's stack; code of before fused attention runs like PyTorch 1 under PyTorch 2 too."""
    stack = stack_of(source.software(row), row["exec_mode"], "eager-2")
    return "eager-1" if choice.plain and stack == "eager-2" else stack


def _batches(row: Row, source: Source, count: int) -> tuple[int, int]:
    """Samples of one rank's micro-batch and of one optimizer step."""
    micro, batch, repeats = source.batches(row)
    ranks = whole(row, "dp")
    if ranks is None:
        split = [whole(row, column) or 1 for column in ("tp", "pp", "cp")]
        ranks = max(count // (split[0] * split[1] * split[2]), 1)
    if micro is None and batch is None:
        raise RowError("batch", "neither global nor micro-batch is published")
    if micro is None:
        assert batch is not None
        micro = batch // (ranks * (repeats or 1))
        if not micro or micro * ranks * (repeats or 1) != batch:
            raise RowError("plan", f"batch {batch} does not divide over {ranks} ranks")
    if batch is None:
        batch = micro * ranks * (repeats or 1)
    return micro, batch


def _precision(row: Row, source: Source, accelerator: str) -> str:
    named = precision_of(source.arithmetic(row))
    if named == "fp32":
        return single_precision(accelerator, source.automatic_tf32(row))
    return named


def _optimizer(row: Row, source: Source, choice: Choice) -> str:
    if "fwd+bwd" in row["phase"]:
        return "none"
    return optimizer_of(source.optimizer(row) or choice.optimizer)


def _sequence(row: Row, choice: Choice) -> int | None:
    return whole(row, "seq_len") or choice.sequence


def _image(row: Row, choice: Choice) -> int | None:
    if "x" in row["image_size"]:  # a volume: its definition fixes the sides
        return choice.image
    return whole(row, "image_size") or choice.image


def _plan(row: Row, source: Source) -> dict[str, object]:
    """Sizes of the parallel plan that the row gives."""
    sizes: dict[str, object] = {n: whole(row, n) for n in ("tp", "pp", "cp", "ep", "dp") if row[n]}
    sizes["zero"] = sharding_of(row["zero_or_shard"]) if row["zero_or_shard"] else source.zero
    recompute = recompute_of(row["recompute"])
    return sizes if recompute == "none" else {**sizes, "recompute": recompute}


def _step_s(row: Row, choice: Choice, batch: int) -> float | None:
    """Seconds of one optimizer step: as published, else from the throughput of all accelerators."""
    step_s = number(row, "step_time_s")
    speed = number(row, "throughput")
    if step_s is not None or speed is None:
        return step_s
    unit = row["throughput_unit"].casefold()
    if unit.startswith("epoch"):
        return None
    if "/accel" in unit:
        speed *= int(row["n_accel"])
    units = choice.units
    if "tok" in unit and units == 1.0:
        tokens = _sequence(row, choice)
        if tokens is None:
            raise RowError("shapes", "throughput in tokens, and no sequence length")
        units = tokens
    return batch * units / speed


def _merged(found: list[Read]) -> list[Read]:
    """Repeats of one job on one kind of accelerator as one case with their median."""
    groups: dict[str, list[Case]] = {}
    others: list[Read] = []
    for item in found:
        if isinstance(item, Case):
            assert item.job is not None
            groups.setdefault(f"{item.job!r} {item.detail}", []).append(item)
        else:
            others.append(item)
    return [*(_median(group) for group in groups.values()), *others]


def _median(cases: list[Case]) -> Case:
    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    return replace(
        cases[0],
        rows=len(cases),
        step_s=middle([case.step_s for case in cases]),
        peak_byte=middle([case.peak_byte for case in cases]),
        watt=middle([case.watt for case in cases]),
    )


FORMATS = (Format("throughput", COLUMNS, read),)
