"""Cases to outcomes: one recording of a model serves every accelerator and batch that its rows name."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

from predictor.answer import Estimate, Range
from predictor.calibrate.case import Case, Outcome, Refused, Scored, model_name
from predictor.errors import InputError, PredictorError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.cache import PRIME, cached_graph
from predictor.ir import Graph, at_batch
from predictor.pricing import Setting, price, resolve
from predictor.values import Sourced

Pricer = Callable[[Sequence[Case]], Iterator[Outcome]]

# Recordings in these precisions are equal: tf32 and fp8 change rates, not the tensors that are recorded.
_RECORDED_AS = {"tf32": "fp32", "fp8": "bf16"}


def groups_of(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases that one model's recordings serve, in order of the model's name."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(f"{case.kind} {_recording_of(case)}", []).append(case)
    return [found[key] for key in sorted(found)]


def _recording_of(case: Case) -> str:
    """What makes a recording of its own, but for the batch; other kinds of case are grouped by source."""
    job = case.job
    if job is None:
        return case.source
    precision = _RECORDED_AS.get(job.precision, job.precision)
    parts = (job.image_size, job.seq_len, precision, job.memory_format, job.mode, job.inputs)
    return " ".join(map(str, (model_name(job.model), *parts)))


def outcomes(
    cases: Sequence[Case], workers: int = 1, done: Callable[[int], None] | None = None
) -> list[Outcome]:
    """Every case priced or refused, in the order of the models' names.

    ``workers`` processes share the models; ``done`` is told how many cases each finished group had.
    """
    groups = groups_of(cases)
    found: list[Outcome] = []
    for group, result in zip(groups, _priced(groups, workers), strict=True):
        found += result
        if done is not None:
            done(len(group))
    return found


def _priced(groups: list[list[Case]], workers: int) -> Iterator[list[Outcome]]:
    if workers == 1:
        yield from map(price_group, groups)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(price_group, groups)


def price_group(cases: Sequence[Case]) -> list[Outcome]:
    """Price cases of one kind and one model."""
    return list(PRICERS[cases[0].kind](cases))


def _refusal(case: Case, code: str, detail: str) -> Refused:
    count = case.job.count if case.job is not None and case.job.count else 1
    return Refused(case.source, case.row, code, detail, case.rows, case.accelerator, count)


def _price_jobs(cases: Sequence[Case]) -> Iterator[Outcome]:
    """Price jobs of one model: each distinct job once."""
    settings: dict[int, Setting | Refused] = {i: setting_of(case) for i, case in enumerate(cases)}
    batches = sorted({s.plan.micro_batch for s in settings.values() if isinstance(s, Setting)})
    graphs = recordings(cases[0], batches)
    answers: dict[str, Estimate | InputError] = {}
    for index, case in enumerate(cases):
        setting = settings[index]
        if isinstance(setting, Refused):
            yield setting
            continue
        graph = graphs[setting.plan.micro_batch]
        if isinstance(graph, PredictorError):
            yield _refusal(case, "model", str(graph))
            continue
        published = case.parameters
        if published and abs(graph.parameter_count - published) > 0.01 * published + case.slack:
            yield _refusal(case, "parameters", f"{graph.parameter_count:,}, published {published:,.0f}")
            continue
        key = f"{case.job!r} {case.limit_w}"
        if key not in answers:
            answers[key] = _answer(case, setting, graph)
        answer = answers[key]
        yield _refusal(case, "plan", str(answer)) if isinstance(answer, InputError) else _scored(case, answer)


def setting_of(case: Case) -> Setting | Refused:
    """What the case's job resolves to, under the power limit of its row."""
    assert case.job is not None
    try:
        setting = resolve(case.job)
    except InputError as error:
        code = "plan" if str(error).startswith("plan") else "precision"
        code = "accelerator" if "train" in str(error) or "unknown" in str(error) else code
        return _refusal(case, code, str(error))
    return setting if case.limit_w is None else with_power_limit(setting, case.limit_w)


def with_power_limit(setting: Setting, limit_w: float) -> Setting:
    """The setting with its boards held at another power limit [W]."""
    machine = setting.machine
    limit = Sourced(limit_w, limit_w, limit_w, "as set for the measured run", "", "verified")
    return replace(setting, machine=replace(machine, accelerator=replace(machine.accelerator, limit_w=limit)))


def recordings(case: Case, batches: Sequence[int]) -> dict[int, Graph | PredictorError]:
    """The case's model at each micro-batch: one recording where several are asked for.

    A recording at a prime batch holds for every batch unless the prime divides one of the model's own sizes,
    or the model does not take it: then each batch is recorded.
    """
    if len(batches) > 1:
        prime = _read(case, PRIME)
        if isinstance(prime, Graph) and not any(
            size % PRIME == 0 for parameter in prime.parameters for size in parameter.shape
        ):
            return {batch: at_batch(prime, batch) for batch in batches}
    return {batch: _read(case, batch) for batch in batches}


def _read(case: Case, batch: int) -> Graph | PredictorError:
    """The recording at this micro-batch, from disk where it was made before."""
    job = case.job
    assert job is not None
    options = ReadOptions(
        batch=batch or None,
        seq_len=job.seq_len,
        image_size=job.image_size,
        precision=_RECORDED_AS.get(job.precision, job.precision),
        channels_last=job.memory_format == "channels-last",
        train=job.mode == "train",
        inputs=job.inputs,
        dims=job.dim_sizes,
    )
    try:
        return cached_graph(job.model, options, _Once(batch))
    except PredictorError as error:
        return error


class _Once:
    """Records at one batch, once: nobody asks for the others that a recording could be checked against."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.graph: Graph | None = None

    def __call__(self, source: Any, options: ReadOptions) -> Graph:
        if options.batch != (self.batch or None):
            raise InputError("not needed")
        if self.graph is None:
            self.graph = load_graph(source, options)
        return self.graph


def _answer(case: Case, setting: Setting, graph: Graph) -> Estimate | InputError:
    assert case.job is not None
    try:
        return price(case.job, setting, graph)
    except InputError as error:
        return error


def _scored(case: Case, answer: Estimate) -> Scored:
    """The predicted ranges of what the case measured."""
    memory = getattr(answer.step.peak_memory_bytes, case.bytes)
    time: Range | None = answer.step.time_s
    if case.kind == "run":
        time = None if answer.run is None else answer.run.time_s.wall
    return Scored(
        case=case,
        time=None if case.step_s is None else time,
        memory=None if case.peak_byte is None else memory,
        power=None if case.watt is None else answer.step.accelerator_power_w,
    )


# A further kind of case is one more entry: a function from cases of one source to outcomes.
PRICERS: dict[str, Pricer] = {"step": _price_jobs, "run": _price_jobs}
