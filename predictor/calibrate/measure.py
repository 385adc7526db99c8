"""``calibrate measure``: kernels, whole steps and sustained loops of one device, a row each, as they come.

Rows that the file holds already are skipped, so a run that was cut short goes on where it stopped. Every row
is written at once; what cannot run (no such type, too little memory) is a row with a note and without a time.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from predictor.calibrate import measure_steps
from predictor.calibrate.measure_device import Device, arithmetic, timed
from predictor.calibrate.measure_kernels import elementwise, product
from predictor.calibrate.measure_menu import menu
from predictor.calibrate.measure_power import Monitor, Sensor, find_sensor
from predictor.calibrate.measure_rows import now, origin_of, why_not
from predictor.calibrate.measure_task import Task, merged, moved_byte
from predictor.calibrate.measurements import COLUMNS, Journal, kernel_cells, steps_path
from predictor.errors import PredictorError

# Shares of the time that is given: kernels first, then steps; loops that warm the board up come last.
_KERNELS_UNTIL, _STEPS_UNTIL = 0.45, 0.85
_KERNEL_S, _STEP_S, _LOOP_S = 0.06, 6.0, 20.0
_MOST_COPIES = 16
_QUICK_S = 0.1
_MEMORY_SHARE = 0.25  # of the device's memory, for all copies of the inputs of one call

Tell = Callable[[str], None]
Job = Callable[[], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does.

    minutes  after which no further measurement starts
    flush    let copies of the inputs take turns, so that the last cache does not hold them
    quick    a tenth of the menu
    steps    whether whole training steps are run too
    """

    minutes: float
    flush: bool = True
    quick: bool = False
    steps: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """Rows written by this run, rows without a time among them, and what is left for the next run."""

    written: int
    failed: int
    left: int


class _Session:
    """Runs jobs until the time is up, and counts."""

    def __init__(self, device: Device, origin: Mapping[str, object], minutes: float, tell: Tell) -> None:
        self.device, self.origin, self.tell = device, origin, tell
        self.begun, self.most_s = time.perf_counter(), 60 * minutes
        self.written = self.failed = self.left = 0

    def run(self, journal: Journal, jobs: Mapping[str, Job], until: float) -> None:
        """Do what the journal does not hold; no job starts after the share ``until`` of the time."""
        for place, (key, job) in enumerate(jobs.items(), 1):
            if key in journal.done:
                continue
            if time.perf_counter() - self.begun > until * self.most_s:
                self.left += 1
                continue
            row = {"key": key, "taken_at": now(), **self.origin, **_tried(job, self.device)}
            journal.add({name: row.get(name, "") for name in journal.columns})
            self.written += 1
            self.failed += bool(row["note"])
            self.tell(f"{place}/{len(jobs)} {key}  {_seconds(row)}")


def measure(device: Device, path: Path, hardware: str, plan: Plan, tell: Tell) -> Done:
    """Measure ``device`` into ``path`` and ``steps_path(path)``.

    hardware  the name that predictions know the device by
    tell      gets a line of progress for each row
    """
    if device.kind == "cuda":
        torch.cuda.set_device(device.index)
    sensor = find_sensor(device.kind, device.runtime, device.uuid, device.index)
    session = _Session(device, origin_of(device, sensor), plan.minutes, tell)
    kernels = Journal(path, tuple(COLUMNS), device.name)
    tasks = {t.key: _kernel_job(t, device, plan, sensor) for t in menu(device, plan.quick)}
    session.run(kernels, tasks, _KERNELS_UNTIL if plan.steps else _STEPS_UNTIL)
    if plan.steps:
        journal = Journal(steps_path(path), tuple(measure_steps.COLUMNS), device.name)
        found = measure_steps.step_menu(device, plan.quick)
        steps = {s.key: _step_job(s, device, sensor, hardware, plan) for s in found}
        session.run(journal, steps, _STEPS_UNTIL)
    loops = loops_of(device, plan.quick)
    loop_s = min(_LOOP_S, (1 - _STEPS_UNTIL) * session.most_s / len(loops))
    session.run(kernels, {t.key: _loop_job(t, device, sensor, loop_s) for t in loops}, 1.0)
    return Done(session.written, session.failed, session.left)


def _seconds(row: Mapping[str, object]) -> str:
    value = row.get("time_s", row.get("step_s"))
    return f"{value:.3g} s" if isinstance(value, float) else str(row["note"])


def _tried(job: Job, device: Device) -> dict[str, object]:
    """The cells of a measurement, or why there are none.

    A call may fail in any way that a library has: the reason is kept in the row, the others go on.
    """
    try:
        return job()
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, OSError) as error:
        _check_alive(device)
        return why_not(error)


def _check_alive(device: Device) -> None:
    """Stop where a failed call took the device with it: every later row would fail for the same reason."""
    try:
        device.forget()
        device.synchronize()
    except RuntimeError as error:
        raise PredictorError(
            f"{device.name} answers no more: {why_not(error)['note']}; rows so far are kept, "
            "start again to go on"
        ) from None


def _kernel_job(task: Task, device: Device, plan: Plan, sensor: Sensor | None) -> Job:
    def job() -> dict[str, object]:
        with arithmetic(task.unit), _turns(task, device, plan.flush) as (calls, cells):
            # A tool that is started for every reading would take longer than the kernel.
            quick = sensor if sensor is not None and sensor.every_s < _QUICK_S else None
            with Monitor(quick) as monitor:
                timing = timed(device, calls, _KERNEL_S, task.graph)
            found = {k: v for k, v in monitor.cells().items() if k != "watts"}  # too short to mean anything
            return {**cells, **asdict(timing), **found}

    return job


@contextmanager
def _turns(
    task: Task, device: Device, flush: bool
) -> Iterator[tuple[list[Callable[[], object]], dict[str, object]]]:
    """Copies of a call, together larger than twice the last cache where memory allows, and its cells."""
    call, kernels = task.build(device.torch)
    byte = max(moved_byte(kernels), 1)
    fitting = int(_MEMORY_SHARE * device.memory_byte / byte)
    wanted = -(-int(2 * device.cache_byte) // byte) + 1 if byte < 2 * device.cache_byte else 1
    copies = max(1, min(wanted, fitting, _MOST_COPIES)) if flush else 1
    calls = [call, *(task.build(device.torch)[0] for _ in range(copies - 1))]
    cold = copies * byte >= 2 * device.cache_byte
    cells: dict[str, object] = {"kind": task.kind, "op": task.op, "phase": task.phase, "unit": task.unit}
    try:
        yield calls, {**cells, **kernel_cells(merged(kernels)), "cold": int(cold)}
    finally:
        calls.clear()
        device.forget()


def _step_job(
    step: measure_steps.Step, device: Device, sensor: Sensor | None, hardware: str, plan: Plan
) -> Job:
    def job() -> dict[str, object]:
        budget_s = _STEP_S / 6 if plan.quick else _STEP_S
        return {
            **measure_steps.cells_of(step, hardware),
            **measure_steps.run_step(step, device, sensor, budget_s),
        }

    return job


def loops_of(device: Device, quick: bool) -> list[Task]:
    """What runs for many seconds, until clocks and temperature have settled."""
    if device.kind != "cuda":
        tasks = [product("fp32", 512, 512, 512)]
    else:
        half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        shapes = [(half, 8192), (half, 4096), ("tf32", 8192), ("fp32", 4096)]
        tasks = [product(unit, side, side, side) for unit, side in (shapes[:1] if quick else shapes)]
        tasks.append(elementwise("clone", half, 1 << 28))
    return [replace(task, key=f"sustained/{task.key}", kind="sustained") for task in tasks]


def _loop_job(task: Task, device: Device, sensor: Sensor | None, loop_s: float) -> Job:
    """The call again and again for ``loop_s``; the second half counts."""

    def job() -> dict[str, object]:
        with arithmetic(task.unit), _turns(task, device, flush=False) as (calls, cells):
            _repeat(calls[0], device, loop_s / 2)
            with Monitor(sensor) as monitor:
                each_s, count = _repeat(calls[0], device, loop_s / 2)
        each_s.sort()
        last = len(each_s) - 1
        return {
            **cells,
            "time_s": each_s[last // 2],
            "low_s": each_s[round(0.1 * last)],
            "high_s": each_s[round(0.9 * last)],
            "repeats": len(each_s),
            "calls": count,
            "method": "queue",
            **monitor.cells(),
        }

    return job


def _repeat(call: Callable[[], object], device: Device, seconds: float) -> tuple[list[float], int]:
    """Seconds of a call in batches of about 50 ms, one after the other for ``seconds``; calls of a batch."""
    call()
    device.synchronize()
    start = time.perf_counter()
    call()
    device.synchronize()
    count = min(max(1, round(0.05 / max(time.perf_counter() - start, 1e-6))), 10_000)
    each_s: list[float] = []
    begun = time.perf_counter()
    while not each_s or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        for _ in range(count):
            call()
        device.synchronize()
        each_s.append((time.perf_counter() - start) / count)
    return each_s, count
