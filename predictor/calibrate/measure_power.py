"""Board power, clocks and temperature: NVML where its library loads, else what nvidia-smi or rocm-smi print.

Nothing here changes a setting of the device. A board that counts its energy is read by that counter: the
mean between two readings, whatever the sampling rate.
"""

import ctypes
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, ClassVar, Protocol

_TOOL_S = 10.0  # a tool that takes longer than this hangs
_NVML_EVERY_S, _TOOL_EVERY_S = 0.05, 0.5
_NVML_FILES = {"win32": "nvml.dll"}
_PROCESSORS, _MEMORY = 1, 2  # clocks as nvml.h numbers them
_CORE = 0  # temperature sensor


@dataclass(frozen=True, slots=True)
class Reading:
    """What a board says at one moment; None for what it does not say.

    joule  energy since the driver was loaded [J]
    """

    watt: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    celsius: float | None = None
    joule: float | None = None


class Sensor(Protocol):
    """A way to read one board."""

    source: str
    every_s: float

    def read(self) -> Reading:
        """All it knows now."""

    def limit_w(self) -> float | None:
        """Power limit that is set [W]."""

    def driver(self) -> str:
        """Version of the driver."""


class Nvml:
    """NVIDIA's management library, called directly."""

    source, every_s = "nvml", _NVML_EVERY_S

    def __init__(self, library: Any, board: Any) -> None:
        self._library, self._board = library, board

    @classmethod
    def open(cls, uuid: str, index: int) -> "Nvml | None":
        """The board with this uuid, else at this place among all boards; None without library or board."""
        try:
            library = ctypes.CDLL(_NVML_FILES.get(sys.platform, "libnvidia-ml.so.1"))
            if library.nvmlInit_v2():
                return None
        except (OSError, AttributeError):
            return None
        board = ctypes.c_void_p()
        name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        if uuid and not library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(board)):
            return cls(library, board)
        if not library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(board)):
            return cls(library, board)
        return None

    def _number(self, function: str, kind: Any, *arguments: int) -> float | None:
        value = kind()
        try:
            failed = getattr(self._library, function)(self._board, *arguments, ctypes.byref(value))
        except AttributeError:
            return None
        return None if failed else float(value.value)

    def read(self) -> Reading:
        """All five."""
        milliwatt = self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        millijoule = self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return Reading(
            watt=None if milliwatt is None else milliwatt / 1e3,
            clock_mhz=self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, _PROCESSORS),
            memory_clock_mhz=self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, _MEMORY),
            celsius=self._number("nvmlDeviceGetTemperature", ctypes.c_uint, _CORE),
            joule=None if millijoule is None else millijoule / 1e3,
        )

    def limit_w(self) -> float | None:
        """The enforced limit."""
        milliwatt = self._number("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint)
        return None if milliwatt is None else milliwatt / 1e3

    def driver(self) -> str:
        """As nvidia-smi prints it."""
        text = ctypes.create_string_buffer(96)
        failed = self._library.nvmlSystemGetDriverVersion(text, 96)
        return "" if failed else text.value.decode("ascii", "replace")


class NvidiaSmi:
    """The tool, where the library does not load."""

    source, every_s = "nvidia-smi", _TOOL_EVERY_S
    _ASKED = "power.draw,clocks.sm,clocks.mem,temperature.gpu,power.limit,driver_version"

    def __init__(self, board: str) -> None:
        self._board = board

    def _cells(self) -> list[str]:
        text = _printed(
            ["nvidia-smi", "-i", self._board, f"--query-gpu={self._ASKED}", "--format=csv,noheader,nounits"]
        )
        return [cell.strip() for cell in text.strip().split("\n")[0].split(",")] if text else []

    def read(self) -> Reading:
        """Power, clocks and temperature."""
        numbers = [_plain_number(cell) for cell in self._cells()[:4]]
        return Reading(*numbers) if len(numbers) == 4 else Reading()

    def limit_w(self) -> float | None:
        """The limit that is set."""
        cells = self._cells()
        return _plain_number(cells[4]) if len(cells) == 6 else None

    def driver(self) -> str:
        """Its version."""
        cells = self._cells()
        return cells[5] if len(cells) == 6 else ""


class RocmSmi:
    """AMD's tool; its keys differ between releases, so they are found by their words."""

    source, every_s = "rocm-smi", _TOOL_EVERY_S
    _KEYS: ClassVar[dict[str, str]] = {
        "watt": r"power.*\(w\)(?!.*max)",
        "clock_mhz": r"^sclk clock speed",
        "memory_clock_mhz": r"^mclk clock speed",
        "celsius": r"temperature \(sensor (junction|edge)\)",
    }

    def __init__(self, index: int) -> None:
        self._index = str(index)

    def _card(self, *options: str) -> dict[str, str]:
        text = _printed(["rocm-smi", "-d", self._index, *options, "--json"])
        try:
            found = json.loads(text[text.find("{") :]) if "{" in text else {}
        except json.JSONDecodeError:
            return {}
        cards = [value for value in found.values() if isinstance(value, dict)]
        return {str(k).lower(): str(v) for k, v in cards[0].items()} if cards else {}

    def read(self) -> Reading:
        """Power, clocks and temperature."""
        card = self._card("--showpower", "--showclocks", "--showtemp")
        return Reading(**{name: _first(card, pattern) for name, pattern in self._KEYS.items()})

    def limit_w(self) -> float | None:
        """The largest power that is allowed."""
        return _first(self._card("--showmaxpower"), r"max.*power.*\(w\)")

    def driver(self) -> str:
        """Version of the kernel driver."""
        return self._card("--showdriverversion").get("driver version", "")


def _first(card: dict[str, str], pattern: str) -> float | None:
    """The first number under a key that matches."""
    for key, cell in card.items():
        if re.search(pattern, key) and (number := _plain_number(cell)) is not None:
            return number
    return None


def _plain_number(text: str) -> float | None:
    """The first number in a cell such as "(1700Mhz)" or "301.5"; None in "[N/A]"."""
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else None


def _printed(command: list[str]) -> str:
    """What a tool prints; nothing when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def find_sensor(kind: str, runtime: str, uuid: str, index: int) -> Sensor | None:
    """The best sensor of a device; None where power cannot be read: a CPU, an Apple GPU, no tool."""
    if kind != "cuda":
        return None
    if runtime.startswith("ROCm"):
        return RocmSmi(index) if shutil.which("rocm-smi") else None
    found = Nvml.open(uuid, index)
    if found is not None:
        return found
    board = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}" if uuid else str(index)
    return NvidiaSmi(board) if shutil.which("nvidia-smi") else None


class Monitor:
    """Reads a sensor beside a run: ``with Monitor(sensor) as found: ...; found.cells()``."""

    def __init__(self, sensor: Sensor | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._sensor, self._clock = sensor, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.readings: list[tuple[float, Reading]] = []

    def __enter__(self) -> "Monitor":
        if self._sensor is not None:
            self._note()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sensor is not None:
            self._stop.set()
            self._thread.join()
            self._note()

    def _note(self) -> None:
        assert self._sensor is not None
        self.readings.append((self._clock(), self._sensor.read()))

    def _watch(self) -> None:
        assert self._sensor is not None
        while not self._stop.wait(self._sensor.every_s):
            self._note()

    def cells(self) -> dict[str, float]:
        """Mean power and clocks and the highest temperature as cells of a row; unknown ones are left out."""
        each = {
            field.name: [v for _, r in self.readings if (v := getattr(r, field.name)) is not None]
            for field in fields(Reading)
        }
        found = {
            name: sum(each[name]) / len(each[name])
            for name in ("clock_mhz", "memory_clock_mhz")
            if each[name]
        }
        watts = _mean_w(self.readings)
        if watts is not None:
            found["watts"] = watts
        if each["celsius"]:
            found["celsius"] = max(each["celsius"])
        return {name: round(value, 3) for name, value in found.items()}


def _mean_w(readings: list[tuple[float, Reading]]) -> float | None:
    """Mean power by the energy counter, which steps every 20 to 100 ms, else over the samples [W]."""
    counted = [(at, r.joule) for at, r in readings if r.joule is not None]
    if len(counted) > 1:
        seconds, joule = counted[-1][0] - counted[0][0], counted[-1][1] - counted[0][1]
        if seconds > 1.0 and joule > 0:
            return joule / seconds
    sampled = [r.watt for _, r in readings if r.watt is not None]
    return sum(sampled) / len(sampled) if sampled else None
