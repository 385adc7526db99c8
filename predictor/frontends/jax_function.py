"""A JAX loss function as a Graph: traced with ``jax.make_jaxpr``, never run, nothing allocated.

The function is ``loss(params, *batch) -> scalar`` (or ``(scalar, anything)``). It is named
``jax:net.py:loss`` or ``jax:package.module:loss``, with ``example_inputs`` beside it, a function that
returns ``(params, *batch)`` as pytrees of ``jax.ShapeDtypeStruct`` (``jax.eval_shape`` makes them) and takes
any of ``batch_size``, ``seq_len``, ``image_size``. From Python: ``Job(model=loss, inputs=(params, *batch))``.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from predictor.errors import InputError, PredictorError, UnsupportedError, did_you_mean
from predictor.frontends.jax_jaxpr import Flattener, dtype_of
from predictor.frontends.python_source import import_source, line_of
from predictor.ir import BACKWARD, Graph, Parameter

PREFIX = "jax:"


def is_jax(source: Any, inputs: Any) -> bool:
    """True for a "jax:" name, and for a function whose inputs hold arrays or shapes of JAX."""
    if isinstance(source, str):
        return source.startswith(PREFIX)
    return inspect.isroutine(source) and _holds_jax(inputs)


def _holds_jax(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_jax, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_jax, value))
    return type(value).__module__.partition(".")[0] in {"jax", "jaxlib"}


def read_jax(
    source: Any,
    inputs: Any = None,
    *,
    batch: int | None = None,
    sequence: int | None = None,
    image: int | None = None,
    train: bool = True,
) -> Graph:
    """Trace value and gradient with respect to the first argument, or the value alone."""
    try:
        import jax
    except ImportError:
        raise InputError("JAX functions need jax: pip install 'predictor[jax]'") from None
    loss, name, text, arguments = _found(source, inputs, batch, sequence, image)
    if not isinstance(arguments, list | tuple) or len(arguments) < 2:
        raise InputError(f"{text}: its inputs are the parameters and at least one batch: (params, *batch)")
    params, *data = jax.tree_util.tree_map(_shape_of, tuple(arguments))
    if batch is not None:
        data = _with_batch(data, batch, text)
    closed = _traced(loss, (params, *data), train, text)
    flattener = Flattener()
    ops = flattener.operators(closed.jaxpr)
    if train and not any(op.phase == BACKWARD for op in ops):
        raise InputError(f"{text}: no parameter receives a gradient; use --mode infer for frozen models")
    leaves = jax.tree_util.tree_leaves(data)
    integers = [leaf for leaf in leaves if len(leaf.shape) == 2 and "int" in str(leaf.dtype)]
    return Graph(
        name=name,
        source=text,
        ops=tuple(ops),
        parameters=_parameters(params),
        batch=_batch_of(leaves),
        input_byte=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        tokens_per_sample=integers[0].shape[1] if integers else None,
        origin={"frontend": "jax", "jax": jax.__version__},
        notes=_notes(flattener),
    )


def _found(
    source: Any, inputs: Any, batch: int | None, sequence: int | None, image: int | None
) -> tuple[Callable[..., Any], str, str, Any]:
    """The function, its name, how messages call it, and its arguments."""
    if not isinstance(source, str):
        name = getattr(source, "__name__", type(source).__name__)
        return source, name, f"JAX function {name}", inputs
    prefix, _, name = source.removeprefix(PREFIX).rpartition(":")
    if not prefix or not name.isidentifier():
        raise InputError(f"model '{source}': write jax:net.py:loss or jax:package.module:loss")
    holder = import_source(prefix)
    loss, examples = getattr(holder, name, None), getattr(holder, "example_inputs", None)
    if not callable(loss):
        known = [n for n, v in vars(holder).items() if callable(v) and not n.startswith("_")]
        raise InputError(f"{prefix} has no function '{name}'{did_you_mean(name, known)}")
    if inputs is not None:
        raise InputError(f"{source}: its inputs come from example_inputs beside it; leave --input away")
    if not callable(examples):
        raise InputError(
            f"{source}: a function example_inputs has to stand beside it and return (params, *batch) as"
            " jax.ShapeDtypeStruct"
        )
    sizes = {"batch_size": batch, "seq_len": sequence, "image_size": image}
    takes = inspect.signature(examples).parameters
    for key, size in sizes.items():
        if size is not None and key not in takes and key != "batch_size":
            raise InputError(f"{source}: {key} {size} has no effect on its inputs; leave it away")
    given = {key: size for key, size in sizes.items() if size is not None and key in takes}
    try:
        return loss, name, source, examples(**given)
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: example_inputs failed: {type(error).__name__}: {error}") from error


def _shape_of(leaf: Any) -> Any:
    import jax

    try:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    except AttributeError:
        raise InputError(
            f"inputs hold a {type(leaf).__name__}; every leaf has to be an array or a jax.ShapeDtypeStruct"
        ) from None


def _batch_of(leaves: list[Any]) -> int:
    return next((int(leaf.shape[0]) for leaf in leaves if leaf.shape), 1)


def _with_batch(data: list[Any], batch: int, text: str) -> list[Any]:
    """The batch with the job's number of samples: every first axis of the example's size is replaced."""
    import jax

    example = _batch_of(jax.tree_util.tree_leaves(data))
    if batch < 1:
        raise InputError(f"{text}: the batch is {batch}; it has to be at least 1")

    def resized(leaf: Any) -> Any:
        if not leaf.shape or leaf.shape[0] != example:
            return leaf
        return jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype)

    return [jax.tree_util.tree_map(resized, part) for part in data]


def _traced(loss: Callable[..., Any], arguments: tuple[Any, ...], train: bool, text: str) -> Any:
    import jax

    try:
        if not train:
            return jax.make_jaxpr(loss)(*arguments)
        result = jax.eval_shape(loss, *arguments)
        has_aux = isinstance(result, tuple) and len(result) == 2
        graded = jax.value_and_grad(loss, has_aux=has_aux, allow_int=True)
        return jax.make_jaxpr(graded)(*arguments)
    except PredictorError:
        raise
    except jax.errors.ConcretizationTypeError as error:
        raise UnsupportedError(
            f"{text}: a shape or a branch depends on data ({_first_line(error)}); use a fixed shape, or"
            " jax.lax.cond and jax.lax.scan"
        ) from None
    except Exception as error:
        code = getattr(loss, "__code__", None)
        where = line_of(error, code.co_filename) if code else ""
        raise InputError(
            f"{text}: tracing failed: {where}{type(error).__name__}: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _parameters(params: Any) -> tuple[Parameter, ...]:
    import jax

    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
        dtype = dtype_of(str(leaf.dtype))
        found.append(Parameter(name, tuple(leaf.shape), dtype, "float" in dtype, "expert" in name))
    return tuple(found)


def _notes(flattener: Flattener) -> tuple[tuple[str, str, str], ...]:
    notes = [
        (
            "compiled",
            "JAX programs are compiled: broadcasts, reshapes and transposes were taken to move nothing",
            "choose a stack that fuses elementwise operators",
        )
    ]
    if flattener.branches:
        text = f"of {len(flattener.branches)} jax.lax.cond the branch with the most operators was counted"
        notes.append(("conditions", text, "call the branch that training takes directly"))
    return tuple(notes)
