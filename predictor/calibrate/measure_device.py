"""One device through PyTorch: what it is, and how long a call takes on it.

CUDA and ROCm replay captured calls from a graph between two events, so that the host's launches are left out;
Apple GPUs and CPUs are timed by the clock between synchronisations.
"""

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from predictor.errors import InputError

Call = Callable[[], Any]
KINDS = ("cuda", "mps", "cpu")
_BATCH_S = 2e-3  # of one timed batch: the events' own microseconds vanish in it
_MOST_CALLS = 256
_LEAST_REPEATS, _MOST_REPEATS = 5, 30
_CPU_CACHE = 32e6  # bytes; only decides how many copies of the inputs take turns


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: median, 10th and 90th percentile of ``repeats`` batches of ``calls``."""

    time_s: float
    low_s: float
    high_s: float
    repeats: int
    calls: int
    method: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device as PyTorch sees it.

    kind        cuda (also ROCm), mps or cpu
    index       place among those of its kind
    uuid        as the driver spells it, "" where there is none
    cache_byte  last cache on the chip
    """

    kind: str
    index: int
    name: str
    uuid: str
    driver: str
    runtime: str
    memory_byte: float
    cache_byte: float

    @property
    def torch(self) -> torch.device:
        """As PyTorch takes it."""
        return torch.device(self.kind, self.index) if self.kind == "cuda" else torch.device(self.kind)

    def synchronize(self) -> None:
        """Wait until all that was launched has ended."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.index)
        elif self.kind == "mps":
            torch.mps.synchronize()

    def used_byte(self) -> float | None:
        """Memory in use as the driver counts it, of all programs on the device; None where nobody counts."""
        if self.kind == "cuda":
            free, total = torch.cuda.mem_get_info(self.index)
            return float(total - free)
        return float(torch.mps.driver_allocated_memory()) if self.kind == "mps" else None

    def forget(self) -> None:
        """Give cached memory back to the driver."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif self.kind == "mps":
            torch.mps.empty_cache()


def find_device(text: str | None) -> Device:
    """The device named ``cuda``, ``cuda:1``, ``mps`` or ``cpu``; with no name an accelerator, if any.

    Raises InputError for another name, and for a device that this PyTorch cannot use.
    """
    if text is None:
        text = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, place = text.partition(":")
    if kind not in KINDS or not (place.isdigit() or not place):
        raise InputError(f"--device is '{text}', accepted: cuda, cuda:N (also for ROCm), mps, cpu")
    index = int(place or 0)
    if kind == "cuda":
        return _cuda(index)
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("--device mps: this PyTorch finds no Apple GPU; accepted here: cpu")
        total = float(torch.mps.recommended_max_memory())
        return Device("mps", 0, _cpu_name(), "", platform.mac_ver()[0], "Metal", total, 8e6)
    return Device("cpu", 0, _cpu_name(), "", platform.release(), "none", _host_memory_byte(), _CPU_CACHE)


def _cuda(index: int) -> Device:
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise InputError(
            f"--device cuda:{index}: PyTorch {torch.__version__} finds {count} such devices; "
            "install a PyTorch built for it, see pytorch.org, or give --device cpu"
        )
    found = torch.cuda.get_device_properties(index)
    rocm = getattr(torch.version, "hip", None)
    runtime = f"ROCm {rocm}" if rocm else f"CUDA {torch.version.cuda}"
    uuid = str(getattr(found, "uuid", "") or "")
    cache = float(getattr(found, "L2_cache_size", 0) or 32e6)
    return Device("cuda", index, found.name, uuid, "", runtime, float(found.total_memory), cache)


def _cpu_name() -> str:
    """The processor as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "cpu"


def _host_memory_byte() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable"):
                return float(line.split()[1]) * 1024
    return 8e9


@contextlib.contextmanager
def arithmetic(unit: str) -> Iterator[None]:
    """Run float32 products as ``unit`` says: tf32 on the matrix units, else in full."""
    before = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    convolutions = cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if unit == "tf32" else "highest")
        cudnn.allow_tf32 = unit == "tf32"
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = convolutions


def timed(device: Device, calls: Sequence[Call], budget_s: float, graph: bool = True) -> Timing:
    """Time of one of ``calls``, which take turns.

    graph  whether the calls may be captured: plain kernels may, autograd may not
    """
    for call in calls:
        call()  # libraries choose kernels, allocate
    device.synchronize()
    start = time.perf_counter()
    calls[0]()
    device.synchronize()
    once_s = max(time.perf_counter() - start, 1e-7)
    count = min(max(round(_BATCH_S / once_s), 1), _MOST_CALLS)
    if device.kind == "cuda":
        # The first guess holds a launch and a synchronisation: many calls are never too few.
        count = max(count, min(_MOST_CALLS, max(len(calls), 4)) if once_s < 0.05 else 1)
    order = [calls[i % len(calls)] for i in range(count)]
    if device.kind == "cuda":
        return _timed_by_events(device, order, budget_s, graph)
    batch_s: list[float] = []
    begun = time.perf_counter()
    while len(batch_s) < _LEAST_REPEATS or (
        len(batch_s) < _MOST_REPEATS and time.perf_counter() - begun < budget_s
    ):
        start = time.perf_counter()
        for call in order:
            call()
        device.synchronize()
        batch_s.append(time.perf_counter() - start)
        if time.perf_counter() - begun > 4 * budget_s:
            break
    return summed_up(batch_s, count, "single" if count == 1 else "queue")


def _timed_by_events(device: Device, order: Sequence[Call], budget_s: float, graph: bool) -> Timing:
    """Batches between two events; the batch is replayed from a graph where it can be captured."""
    run, method = _captured(order) if graph else (None, "queue")
    if run is None:
        run, method = _all_of(order), "queue"
    begin, end = event(), event()
    batch_s: list[float] = []
    begun = time.perf_counter()
    run()
    while len(batch_s) < _LEAST_REPEATS or (
        len(batch_s) < _MOST_REPEATS and time.perf_counter() - begun < budget_s
    ):
        begin.record()
        run()
        end.record()
        end.synchronize()
        batch_s.append(begin.elapsed_time(end) * 1e-3)
        if time.perf_counter() - begun > 4 * budget_s:
            break
    return summed_up(batch_s, len(order), method)


def event() -> Any:
    """A mark on the current CUDA stream that knows its time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _all_of(order: Sequence[Call]) -> Call:
    def run() -> None:
        for call in order:
            call()

    return run


def _captured(order: Sequence[Call]) -> tuple[Call | None, str]:
    """The calls as one graph; None where a call cannot be captured."""
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured):
            for call in order:
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None, ""
    return captured.replay, "graph"


def summed_up(batch_s: Sequence[float], calls: int, method: str) -> Timing:
    """Median and percentiles of batches as seconds of one call.

    >>> summed_up([2.0, 4.0, 3.0], 2, "queue").time_s
    1.5
    """
    each = sorted(s / calls for s in batch_s)
    last = len(each) - 1
    return Timing(
        statistics.median(each), each[round(0.1 * last)], each[round(0.9 * last)], len(each), calls, method
    )
