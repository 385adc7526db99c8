"""A traced JAX function as operators: nested calls inlined, scans multiplied out, dead code left out.

The name stack that JAX keeps on every equation says what it belongs to: "transpose(...)" is the backward
pass, "rematted_computation" is the forward computed again under ``jax.checkpoint``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from predictor.errors import UnsupportedError
from predictor.ir import BACKWARD, DTYPE_BYTE, FORWARD, Op, TensorSpec

_MOST_OPS = 5_000_000
# Parameters under which a primitive keeps the function it calls once.
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_KERNELS = {"pallas_call", "reduce", "reduce_window"}  # theirs is what they do to one element or tile
_MESHES = {
    "shard_map": "it runs on several devices; give the function of one device and --dp, --tp or --pp",
    "xla_pmap": "it runs on several devices; give the function of one device and --dp, --tp or --pp",
}


@dataclass(frozen=True, slots=True)
class Equation:
    """One operator and the tensors it reads and makes, by number; ``steps`` holds the body of a scan."""

    op: Op | None
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    steps: tuple[Op, ...] = ()
    length: int = 1


@dataclass(slots=True)
class Flattener:
    """Numbers every tensor; ``branches`` collects the notes about conditions."""

    branches: list[str] = field(default_factory=list)
    _next: int = 0
    _broadcasts: dict[int, TensorSpec] = field(default_factory=dict)

    def operators(self, jaxpr: Any) -> list[Op]:
        """All operators in order."""
        inside = self._bound(jaxpr, [])
        equations = list(self._walk(jaxpr, inside, ""))
        ops: list[Op] = []
        for equation in _live(equations, {inside[v] for v in jaxpr.outvars if _is_variable(v)}):
            ops.extend(equation.steps * equation.length if equation.op is None else (equation.op,))
            if len(ops) > _MOST_OPS:
                raise UnsupportedError(
                    f"scans multiplied out give more than {_MOST_OPS} operators; shorten a scan and scale"
                )
        return ops

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _bound(self, jaxpr: Any, given: Sequence[int | None]) -> dict[Any, int]:
        """Numbers of the inputs of a function: those it is called with, new ones for the rest."""
        numbers = dict(zip(jaxpr.invars, given, strict=False))
        inputs = (*jaxpr.invars, *jaxpr.constvars)
        return {v: self._number() if (n := numbers.get(v)) is None else n for v in inputs}

    def _walk(self, jaxpr: Any, numbers: dict[Any, int], outer: str) -> Iterator[Equation]:
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            stack = f"{outer}/{equation.source_info.name_stack}"
            if name in _MESHES:
                raise UnsupportedError(f"the JAX function uses {name}: {_MESHES[name]}")
            if name == "while":
                raise UnsupportedError(
                    "the JAX function uses a while loop: how often it runs depends on data; use"
                    " jax.lax.scan, or fori_loop with fixed bounds"
                )
            body = next((equation.params[key] for key in _BODIES if key in equation.params), None)
            if name == "scan":
                yield self._scan(equation, numbers, stack)
            elif name == "cond":
                yield from self._inline(self._branch(equation), equation, equation.invars[1:], numbers, stack)
            elif body is not None and name not in _KERNELS:
                yield from self._inline(body, equation, equation.invars, numbers, stack)
            else:
                yield self._equation(equation, name, numbers, stack)

    def _inline(
        self, body: Any, equation: Any, invars: Sequence[Any], numbers: dict[Any, int], stack: str
    ) -> Iterator[Equation]:
        """The equations of a function that is called once; its results get the caller's names."""
        inner = getattr(body, "jaxpr", body)
        given = [numbers.get(v) if _is_variable(v) else None for v in invars]
        inside = self._bound(inner, given)
        yield from self._walk(inner, inside, stack)
        for outer, result in zip(equation.outvars, inner.outvars, strict=True):
            known = inside.get(result) if _is_variable(result) else None
            numbers[outer] = self._number() if known is None else known

    def _scan(self, equation: Any, numbers: dict[Any, int], stack: str) -> Equation:
        """The body as many times as it runs; slices in and out are made where they are used."""
        inner, length = equation.params["jaxpr"].jaxpr, int(equation.params["length"])
        inside = self._bound(inner, [])
        body = list(self._walk(inner, inside, stack))
        wanted = {inside[v] for v in inner.outvars if _is_variable(v)}
        steps: list[Op] = []
        for part in _live(body, wanted):
            steps.extend(part.steps * part.length if part.op is None else (part.op,))
            if len(steps) * length > _MOST_OPS:
                raise UnsupportedError(
                    f"scans multiplied out give more than {_MOST_OPS} operators; shorten a scan and scale"
                )
        reads, makes = self._variables(equation, numbers)
        return Equation(None, reads, makes, tuple(steps), length)

    def _branch(self, equation: Any) -> Any:
        """Of a condition's branches the one with the most equations."""
        branches = equation.params["branches"]
        self.branches.append(f"{len(branches)} branches")
        return max(branches, key=lambda branch: _size(branch.jaxpr))

    def _variables(self, equation: Any, numbers: dict[Any, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        reads = tuple(numbers[v] for v in equation.invars if _is_variable(v) and v in numbers)
        for v in equation.outvars:
            numbers[v] = self._number()
        return reads, tuple(numbers[v] for v in equation.outvars)

    def _equation(self, equation: Any, name: str, numbers: dict[Any, int], stack: str) -> Equation:
        reads, makes = self._variables(equation, numbers)
        if name == "broadcast_in_dim":
            self._broadcasts[makes[0]] = _repeated(equation, makes[0])
        inputs, outputs = (
            tuple(self._spec(v, numbers.get(v, 0) if _is_variable(v) else 0) for v in side if _is_tensor(v))
            for side in (equation.invars, equation.outvars)
        )
        attrs = _attributes(name, equation.params)
        if "rematted_computation" in stack:
            attrs["recompute"] = True
        phase = BACKWARD if "transpose(" in stack else FORWARD
        return Equation(Op(f"jax.{name}", inputs, outputs, attrs, phase, _scope(stack)), reads, makes)

    def _spec(self, v: Any, number: int) -> TensorSpec:
        return self._broadcasts.get(number) or spec_of(v.aval, number)


def _repeated(equation: Any, number: int) -> TensorSpec:
    """The result of a broadcast: repeated axes have step 0 and are read once."""
    spec, given = spec_of(equation.outvars[0].aval, number), equation.invars[0].aval.shape
    from_axis = dict(zip(equation.params["broadcast_dimensions"], given, strict=True))
    steps = (int(from_axis.get(axis) == n) for axis, n in enumerate(spec.shape))
    return replace(spec, stride=tuple(steps))


def _attributes(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Which axes a product or convolution joins, and its groups, as plain numbers."""
    if name not in {"dot_general", "conv_general_dilated"}:
        return {}
    attrs = {key: int(params[key]) for key in ("feature_group_count", "batch_group_count") if key in params}
    return attrs | {"dimension_numbers": _numbers(params["dimension_numbers"])}


def _numbers(value: Any) -> Any:
    return tuple(map(_numbers, value)) if isinstance(value, tuple | list) else int(value)


def _is_variable(v: Any) -> bool:
    return not hasattr(v, "val")  # a literal holds its value


def _is_tensor(v: Any) -> bool:
    dtype = getattr(v.aval, "dtype", None)
    return dtype is not None and str(dtype) != "float0"


def spec_of(aval: Any, number: int = -1) -> TensorSpec:
    """Shape and type of a traced value."""
    return TensorSpec(tuple(int(n) for n in aval.shape), dtype_of(str(aval.dtype)), (), number)


def dtype_of(name: str) -> str:
    """Our name of a JAX type: keys are two words, types below a byte are stored as bytes."""
    if name in DTYPE_BYTE:
        return name
    if name.startswith("key<"):
        return "uint64"
    if name.startswith(("float8", "float4")):
        return "float8"
    if name.startswith(("int", "uint")):
        return "int8"
    raise UnsupportedError(f"values of type {name} cannot be counted; use one of {', '.join(DTYPE_BYTE)}")


def _live(equations: Sequence[Equation], wanted: set[int]) -> list[Equation]:
    """Equations that some result needs; a compiler drops the others."""
    needed = set(wanted)
    kept = []
    for equation in reversed(equations):
        if needed.intersection(equation.makes):
            needed.update(equation.reads)
            kept.append(equation)
    return kept[::-1]


def _size(jaxpr: Any) -> int:
    """Equations of a function and of those it calls."""
    total = 0
    for equation in jaxpr.eqns:
        bodies = (getattr(v, "jaxpr", v) for v in equation.params.values())
        total += 1 + sum(_size(body) for body in bodies if hasattr(body, "eqns"))
    return total


def _scope(stack: str) -> str:
    """Names that the user gave (``jax.named_scope``), without those of transformations."""
    parts = (part for part in stack.split("/") if part and "(" not in part and part not in _MACHINE)
    return ".".join(parts)


_MACHINE = {"rematted_computation", "checkpoint", "while", "body", "closed_call"}
