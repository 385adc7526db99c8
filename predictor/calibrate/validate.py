"""Cases to outcomes: one recording of a model serves every accelerator and batch that its rows name."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

from predictor.answer import Estimate, MemoryPart, Range
from predictor.calibrate import kernel_prices
from predictor.calibrate.case import Case, Outcome, Refused, Scored, model_name
from predictor.calibrate.recordings import Recordings, recorded_precision
from predictor.errors import InputError, PredictorError
from predictor.ir import Graph
from predictor.memory import peak_memory
from predictor.parallel import with_batch
from predictor.pricing import Setting, price, resolve
from predictor.values import Sourced

Pricer = Callable[[Sequence[Case]], Iterator[Outcome]]


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
    parts = (job.image_size, job.seq_len, recorded_precision(job), job.memory_format, job.mode, job.inputs)
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
    settings = [setting_of(case) for case in cases]
    batches = {setting.plan.micro_batch for setting in settings if isinstance(setting, Setting)}
    prices: _Prices | None = None
    for case, setting in zip(cases, settings, strict=True):
        if isinstance(setting, Refused):
            yield setting
            continue
        if prices is None:
            prices = _Prices(recordings(case, sorted(batches)))
        yield prices.outcome(case, setting)


@dataclass(slots=True)
class _Prices:
    """Answers to the jobs of one model, each made once."""

    recordings: Recordings
    answers: dict[str, Estimate | InputError] = field(default_factory=dict)
    peaks: dict[str, MemoryPart] = field(default_factory=dict)

    def outcome(self, case: Case, setting: Setting) -> Outcome:
        """The case priced, or refused because its model or its plan cannot be."""
        short = self.recordings.long and not setting.stack.fuse_elementwise
        graph = self.recordings.at(setting.plan.micro_batch, short)
        if isinstance(graph, PredictorError):
            return _refusal(case, "model", str(graph))
        published = case.parameters
        if published and abs(graph.parameter_count - published) > 0.01 * published + case.slack:
            return _refusal(case, "parameters", f"{graph.parameter_count:,}, published {published:,.0f}")
        key = f"{case.job!r} {case.limit_w}"
        if key not in self.answers:
            self.answers[key] = _answer(case, setting, graph)
        answer = self.answers[key]
        if isinstance(answer, InputError):
            return _refusal(case, "plan", str(answer))
        if short and case.peak_byte is not None:
            return _scored(case, answer, self._peak(case, setting))
        return _scored(case, answer, answer.step.peak_memory_bytes)

    def _peak(self, case: Case, setting: Setting) -> MemoryPart:
        """Memory of a long recording, whatever the accelerator."""
        job = case.job
        assert job is not None
        key = f"{setting.plan} {setting.stack.id} {job.precision} {job.optimizer} {job.batch_size}"
        if key not in self.peaks:
            graph = self.recordings.at(setting.plan.micro_batch)
            assert isinstance(graph, Graph)
            plan = with_batch(setting.plan, graph.batch, job.batch_size)
            train = job.mode == "train"
            peak = peak_memory(graph, plan, setting.stack, setting.recipe, job.optimizer, train)
            self.peaks[key] = MemoryPart(
                allocated=Range.of(peak.allocated),
                reserved=Range.of(peak.reserved),
                device=Range.of(peak.device),
            )
        return self.peaks[key]


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


def recordings(case: Case, batches: Sequence[int]) -> Recordings:
    """The case's model at each of these micro-batches."""
    assert case.job is not None
    return Recordings(case.job, batches)


def _answer(case: Case, setting: Setting, graph: Graph) -> Estimate | InputError:
    assert case.job is not None
    try:
        return price(case.job, setting, graph)
    except InputError as error:
        return error


def _scored(case: Case, answer: Estimate, peak: MemoryPart) -> Scored:
    """The predicted ranges of what the case measured."""
    memory = getattr(peak, case.bytes)
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
PRICERS: dict[str, Pricer] = {"step": _price_jobs, "run": _price_jobs, "kernel": kernel_prices.price}
