"""Exchanges between devices, measured where torchrun started one process for each.

``torchrun --nproc-per-node 8 -m predictor calibrate measure -o links.csv``: the first process writes, the
time is that of the slowest.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from predictor.calibrate.measure_device import Device, find_device, summed_up
from predictor.calibrate.measure_power import find_sensor
from predictor.calibrate.measure_rows import now, origin_of, why_not
from predictor.calibrate.measurements import COLUMNS, Journal, kernel_cells
from predictor.errors import InputError
from predictor.ir import Work
from predictor.ops import Kernel

_BYTES = (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 27, 1 << 29)
_CPU_BYTES = 1 << 20
_BATCHES, _WARM, _BATCH_S = 9, 3, 0.05

Exchange = Callable[[torch.Tensor, torch.Tensor], object]


def _all_reduce(whole: torch.Tensor, _: torch.Tensor) -> object:
    return distributed.all_reduce(whole)


def _named(new: str, old: str) -> Any:
    """An exchange by its name since PyTorch 2.13, or by the one before."""
    return getattr(distributed, new, None) or getattr(distributed, old)


# Result and input of each have the bytes of the whole message over the group, except where said.
_EXCHANGES: dict[str, Exchange] = {
    "all_reduce": _all_reduce,
    "all_gather": _named("all_gather_single", "all_gather_into_tensor"),
    "reduce_scatter": lambda whole, part: _named("reduce_scatter_single", "reduce_scatter_tensor")(
        part, whole
    ),
    "all_to_all": lambda whole, _: distributed.all_to_all_single(torch.empty_like(whole), whole),
}


def between_devices() -> bool:
    """Whether torchrun started several processes."""
    return _from_torchrun("WORLD_SIZE", 1) > 1


def _from_torchrun(name: str, otherwise: int) -> int:
    text = os.environ.get(name, str(otherwise))
    if not text.isdigit():
        raise InputError(f"{name} is '{text}' in the environment; torchrun sets it to a whole number")
    return int(text)


@contextmanager
def _group(device: Device) -> Iterator[None]:
    if device.kind == "cuda":
        torch.cuda.set_device(device.index)
    distributed.init_process_group("nccl" if device.kind == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def measure_collectives(path: Path, tell: Callable[[str], None], kind: str | None = None) -> None:
    """Every exchange at every size, into ``path`` by the first process."""
    place = _from_torchrun("LOCAL_RANK", 0)
    chosen = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    device = find_device(f"{chosen}:{place}" if chosen == "cuda" else chosen)
    with _group(device):
        size, first = distributed.get_world_size(), distributed.get_rank() == 0
        journal = Journal(path, tuple(COLUMNS), device.name) if first else None
        shared = [sorted(journal.done) if journal else []]
        distributed.broadcast_object_list(shared, device=device.torch)
        sensor = find_sensor(device.kind, device.runtime, device.uuid, device.index)
        origin = origin_of(device, sensor)
        inside = _from_torchrun("LOCAL_WORLD_SIZE", size)
        for name, exchange in _EXCHANGES.items():
            for byte in _BYTES:
                key = f"collective/{name}/{size}x{inside}/{byte}"
                if key in shared[0] or (device.kind == "cpu" and byte > _CPU_BYTES):
                    continue
                cells = _cells(name, byte, size, inside)
                row = {"key": key, "taken_at": now(), **origin, **cells}
                try:
                    row |= _timed(exchange, device, byte, size)
                except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
                    row |= why_not(error)
                if journal:
                    journal.add({column: row.get(column, "") for column in COLUMNS})
                    tell(f"{key}  {row.get('time_s') or row['note']}")


def _cells(name: str, byte: int, size: int, inside: int) -> dict[str, object]:
    work = Work(read_byte=byte, write_byte=byte)
    kernel = Kernel("collective", work, "float32", dims=(size, inside, 0, 0))
    cells = {"kind": "collective", "op": name, "phase": "forward", "unit": "fp32", "cold": 0}
    return {**cells, **kernel_cells(kernel)}


def _timed(exchange: Exchange, device: Device, byte: int, size: int) -> dict[str, object]:
    """Seconds of one exchange of ``byte`` over the group, by the slowest process."""
    elements = -(-byte // (4 * size)) * size
    whole = torch.ones(elements, device=device.torch)
    part = torch.ones(elements // size, device=device.torch)

    def seconds(count: int) -> float:
        distributed.barrier()
        device.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            exchange(whole, part)
        device.synchronize()
        slowest = torch.tensor([time.perf_counter() - start], device=device.torch, dtype=torch.float64)
        distributed.all_reduce(slowest, op=distributed.ReduceOp.MAX)
        whole.fill_(1.0)  # sums would grow beyond all numbers
        return float(slowest.item())

    once_s = min(seconds(1) for _ in range(_WARM))
    count = min(max(1, round(_BATCH_S / max(once_s, 1e-6))), 100)
    return asdict(summed_up([seconds(count) for _ in range(_BATCHES)], count, "queue"))
