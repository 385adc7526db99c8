"""A model recorded once for many batches, and the short form of very long recordings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from predictor.errors import InputError, PredictorError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.cache import PRIME, cached_graph
from predictor.ir import Graph, Op, TensorSpec, at_batch
from predictor.job import Job

# Recordings in these precisions are equal: tf32 and fp8 change rates, not the tensors that are recorded.
_RECORDED_AS = {"tf32": "fp32", "fp8": "bf16"}
# Operators of an unrolled recurrence beyond which a graph is shortened for its time.
LONG = 20_000


def recorded_precision(job: Job) -> str:
    """The precision whose recording serves the job."""
    return _RECORDED_AS.get(job.precision, job.precision)


class Recordings:
    """A job's model at several micro-batches.

    One recording at a prime batch holds for every batch unless the prime divides one of the model's own
    sizes, or the model does not take it: then each batch is recorded. Graphs are made when asked for.
    """

    def __init__(self, job: Job, batches: Sequence[int]) -> None:
        self._job = job
        self._prime = _shared(job) if len(batches) > 1 else None
        self._short: Graph | None = None
        self._made: dict[tuple[int, bool], Graph | PredictorError] = {}
        self.long = self._prime is not None and len(set(map(id, self._prime.ops))) > LONG

    def at(self, batch: int, short: bool = False) -> Graph | PredictorError:
        """The graph of this micro-batch, or why there is none.

        ``short`` merges operators that differ in their tensors' places alone: the same time where nothing is
        fused, but no memory.
        """
        if (batch, short) not in self._made:
            made = self._make(batch, short)
            if self.long and not short:
                return made  # too large to keep
            self._made[batch, short] = made
        return self._made[batch, short]

    def __getitem__(self, batch: int) -> Graph | PredictorError:
        """The whole graph of this micro-batch."""
        return self.at(batch)

    def _make(self, batch: int, short: bool) -> Graph | PredictorError:
        if self._prime is None:
            return read(self._job, batch)
        if not short:
            return at_batch(self._prime, batch)
        if self._short is None:
            self._short = shortened(self._prime)
        return at_batch(self._short, batch)


def _shared(job: Job) -> Graph | None:
    """The recording at the prime batch, if it serves others."""
    graph = read(job, PRIME)
    if isinstance(graph, PredictorError):
        return None
    clash = any(size % PRIME == 0 for parameter in graph.parameters for size in parameter.shape)
    return None if clash else graph


def read(job: Job, batch: int) -> Graph | PredictorError:
    """The recording at one micro-batch (0: the model's own), from disk where it was made before."""
    options = ReadOptions(
        batch=batch or None,
        seq_len=job.seq_len,
        image_size=job.image_size,
        precision=recorded_precision(job),
        channels_last=job.memory_format == "channels-last",
        train=job.mode == "train",
        inputs=job.inputs,
        dims=job.dim_sizes,
    )
    try:
        return cached_graph(job.model, options, _Once(options.batch))
    except PredictorError as error:
        return error


class _Once:
    """Records at one batch, once: nobody asks for the others that a recording could be checked against."""

    def __init__(self, batch: int | None) -> None:
        self.batch = batch
        self.graph: Graph | None = None

    def __call__(self, source: Any, options: ReadOptions) -> Graph:
        if options.batch != self.batch:
            raise InputError("not needed")
        if self.graph is None:
            self.graph = load_graph(source, options)
        return self.graph


def shortened(graph: Graph) -> Graph:
    """The graph with one object for all operators that differ in their tensors' storages alone."""
    specs: dict[TensorSpec, TensorSpec] = {}
    ops: dict[tuple[Any, ...], Op] = {}

    def anywhere(spec: TensorSpec) -> TensorSpec:
        if spec not in specs:
            specs[spec] = TensorSpec(spec.shape, spec.dtype, spec.stride)
        return specs[spec]

    def shared(op: Op) -> Op:
        inputs, outputs = tuple(map(anywhere, op.inputs)), tuple(map(anywhere, op.outputs))
        key = (op.name, op.phase, op.scope, inputs, outputs, _frozen(op.attrs))
        if key not in ops:
            ops[key] = replace(op, inputs=inputs, outputs=outputs)
        return ops[key]

    return replace(graph, ops=tuple(map(shared, graph.ops)), events=(), gradients=frozenset())


def _frozen(attrs: Mapping[str, Any]) -> str:
    return repr(sorted(attrs.items(), key=lambda item: item[0]))
