"""Two optimizer steps as one stream of requests, replayed through the allocator.

The first step makes the optimizer's state; the second runs beside it, with the gradients of the first
given back by ``zero_grad`` after the new input has arrived. More steps change nothing.
"""

from dataclasses import dataclass, field
from itertools import count
from math import inf

from predictor.memory.allocator import replay
from predictor.memory.lifetimes import Life, Tape

STATE, INPUTS, ROUNDING = "optimizer state", "inputs", "allocator rounding"
OPTIMIZER_TEMPORARIES = "optimizer temporaries"


@dataclass(frozen=True, slots=True)
class Held:
    """What surrounds the micro-batches of one rank, as sizes of tensors [byte].

    standing      name -> tensors that exist before the first step and stay
    inputs        one micro-batch
    state         made by the first update
    temporaries   exist together during every update
    micro_batches per step
    """

    standing: dict[str, list[int]] = field(default_factory=dict)
    inputs: int = 0
    state: list[int] = field(default_factory=list)
    temporaries: list[int] = field(default_factory=list)
    micro_batches: int = 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """Peaks of the replay, and what the allocated peak consisted of by name [byte]."""

    allocated: int
    reserved: int
    parts: dict[str, int]


class _Stream:
    """Requests in order, and the name each tensor goes under."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []
        self.names: dict[int, str] = {}
        self._numbers = count()

    def take(self, byte: int, name: str) -> int:
        number = next(self._numbers)
        self.requests.append((number, byte))
        self.names[number] = name
        return number

    def give_back(self, tensors: list[int]) -> None:
        self.requests.extend((number, 0) for number in tensors)


def run_steps(tape: Tape, held: Held, steps: int = 2) -> Replayed:
    """Replay ``steps`` steps; gradients that stay are those whose life does not end."""
    stream = _Stream()
    for name, sizes in held.standing.items():
        for byte in sizes:
            if byte:
                stream.take(byte, name)
    order = _ordered(tape.lives)
    old_input: list[int] = []
    gradients: list[int] = []
    for step in range(steps):
        new_input = [stream.take(held.inputs, INPUTS)] if held.inputs else []
        stream.give_back(old_input)
        old_input = new_input
        stream.give_back(gradients)
        gradients = _micro_batch(stream, tape.lives, order, keep=True)
        if held.micro_batches > 1:
            _micro_batch(stream, tape.lives, order, keep=False)
        if step == 0:
            for byte in held.state:
                stream.take(byte, STATE)
        stream.give_back([stream.take(byte, OPTIMIZER_TEMPORARIES) for byte in held.temporaries])
    peaks = replay(stream.requests)
    return Replayed(peaks.allocated, peaks.reserved, _parts(stream, peaks.at, peaks.allocated))


def _ordered(lives: tuple[Life, ...]) -> list[tuple[float, int, int]]:
    """(time, taken, life) in order of time; what ends goes before what begins at the same moment."""
    real = [(i, x) for i, x in enumerate(lives) if x.byte and x.end > x.start]
    moments = [(x.start, 1, i) for i, x in real]
    moments += [(x.end, 0, i) for i, x in real if x.end < inf]
    return sorted(moments)


def _micro_batch(
    stream: _Stream, lives: tuple[Life, ...], order: list[tuple[float, int, int]], keep: bool
) -> list[int]:
    """One micro-batch; gradients without an end stay, or are added to those there are and go at once."""
    numbers: dict[int, int] = {}
    passing: list[int] = []
    for _, taken, i in order:
        if not taken:
            stream.requests.append((numbers.pop(i), 0))
            continue
        stream.give_back(passing)
        passing = []
        life = lives[i]
        number = stream.take(life.byte, life.kind)
        if life.end < inf or keep:
            numbers[i] = number
        else:
            passing.append(number)
    stream.give_back(passing)
    return list(numbers.values())


def _parts(stream: _Stream, at: int, allocated: int) -> dict[str, int]:
    """Bytes alive at request ``at`` by name; what rounding to blocks adds is a part of its own."""
    alive: dict[int, int] = {}
    for number, byte in stream.requests[: at + 1]:
        if byte:
            alive[number] = byte
        else:
            del alive[number]
    parts: dict[str, int] = {}
    for number, byte in alive.items():
        name = stream.names[number]
        parts[name] = parts.get(name, 0) + byte
    return parts | {ROUNDING: allocated - sum(parts.values())}
