"""Where gradients flow in an exported program, and its calls as operators with what their rules need."""

from collections import Counter
from collections.abc import Collection, Iterable

from predictor.errors import InputError
from predictor.frontends.exported_calls import Call
from predictor.ir import Op, TensorSpec
from predictor.ops import FORMULAS, by_bytes, gradient_of
from predictor.ops.movement import moves_nothing

_STOPS = {"aten.detach", "aten.argmax", "aten.argmin"}


def is_view(name: str) -> bool:
    """True for operators that hand on the memory of their first input."""
    return FORMULAS.get(name) is moves_nothing and "empty" not in name


def share_storage(calls: Iterable[Call], specs: dict[str, TensorSpec]) -> None:
    """Views and operators that work in place get the storage of what they see or change."""
    for call in calls:
        in_place = call.name.endswith("_") and not call.name.endswith("__")
        if call.inputs and (in_place or is_view(call.name)):
            source = specs[call.inputs[0]].storage
            for name in call.outputs:
                old = specs[name]
                specs[name] = TensorSpec(old.shape, old.dtype, old.stride, source)


def needing(calls: Iterable[Call], specs: dict[str, TensorSpec], trained: Collection[str]) -> set[str]:
    """Tensors a gradient flows to: everything floating that follows from a trained weight.

    What is written in place into a tensor flows on through all its views.
    """
    found = set(trained)
    changed: set[int] = set()
    for call in calls:
        flows = any(name in found or specs[name].storage in changed for name in call.inputs)
        if not flows or not call.grad or call.name in _STOPS:
            continue
        found.update(
            n for n in (*call.inputs, *call.outputs) if specs[n].storage in changed and _floats(n, specs)
        )
        found.update(name for name in call.outputs if _floats(name, specs))
        if call.name.endswith("_") and call.inputs[0] not in trained:
            changed.add(specs[call.inputs[0]].storage)
    return found


def _floats(name: str, specs: dict[str, TensorSpec]) -> bool:
    return "float" in specs[name].dtype or "complex" in specs[name].dtype


def operators(
    calls: list[Call], specs: dict[str, TensorSpec], trained: Collection[str], outputs: Collection[str]
) -> tuple[Op, ...]:
    """Calls as operators.

    needs_grad  per input, whether a gradient flows to it; backward  whether any does
    grad_sums   per result, how many gradients beyond the first meet there
    """
    share_storage(calls, specs)
    flows_to = needing(calls, specs, trained)
    flowing = [
        flows_to.intersection(c.inputs)
        and flows_to.intersection(c.outputs)
        and c.grad
        and c.name not in _STOPS
        for c in calls
    ]
    readers: Counter[str] = Counter(outputs)
    for call, flows in zip(calls, flowing, strict=True):
        if flows:
            readers.update(name for name in call.inputs if name in flows_to)
    return tuple(
        Op(
            call.name,
            tuple(specs[name] for name in call.inputs),
            tuple(specs[name] for name in call.outputs),
            {
                **call.attrs,
                "needs_grad": tuple(name in flows_to for name in call.inputs),
                "backward": bool(flows),
                "grad_sums": tuple(max(readers[name] - 1, 0) for name in call.outputs),
            },
            scope=call.scope,
        )
        for call, flows in zip(calls, flowing, strict=True)
        if call.outputs
    )


def check_fit(ops: Iterable[Op]) -> None:
    """Refuse operators whose shapes contradict each other, as those of a damaged file."""
    for op in ops:
        try:
            FORMULAS.get(op.name, by_bytes)(op)
            gradient_of(op)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
            shapes = ", ".join(str(list(t.shape)) for t in (*op.inputs, *op.outputs))
            raise InputError(f"{op.name}: its tensors do not fit together: {shapes}") from None
