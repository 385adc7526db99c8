"""Cells that every measured row has: where, when and with what it was taken, or why it could not be."""

from datetime import UTC, datetime

import torch

from predictor.calibrate.measure_device import Device
from predictor.calibrate.measure_power import Sensor
from predictor.calibrate.measurements import SCHEMA

_LONGEST = 160


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def origin_of(device: Device, sensor: Sensor | None) -> dict[str, object]:
    """Device, versions and power limit."""
    limit = sensor.limit_w() if sensor else None
    return {
        "schema": SCHEMA,
        "device": device.name,
        "driver": (sensor.driver() if sensor else "") or device.driver,
        "torch": torch.__version__,
        "runtime": device.runtime,
        "limit_w": "" if limit is None else limit,
        "note": "",
    }


def why_not(error: BaseException) -> dict[str, object]:
    """The first line of what a library said."""
    first = (str(error).strip().splitlines() or [""])[0]
    return {"note": f"{type(error).__name__}: {first}"[:_LONGEST]}
