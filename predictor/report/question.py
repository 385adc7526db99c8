"""What was asked, in words: the model, the machine, and the circumstances."""

from collections.abc import Sequence

from predictor.answer import Estimate, PlanPart
from predictor.report import format as fmt


def title(answer: Estimate) -> str:
    """A few words that name the report."""
    return f"{fmt.plain(answer.model.name)} on {machine(answer)}"


def question(answer: Estimate) -> str:
    """The whole question in one sentence."""
    return sentence(subject(answer), machine(answer), circumstances(answer))


def sentence(about: str, where: str, words: Sequence[str]) -> str:
    """Subject, machine and circumstances as a sentence; the machine may be empty."""
    place = f" on {where}" if where else ""
    return f"{about}{place}" + (f": {', '.join(words)}." if words else ".")


def subject(answer: Estimate) -> str:
    """What is done to which model."""
    verb = "Training" if answer.plan.mode == "train" else "Running"
    return fmt.plain(f"{verb} {_model(answer)}")


def circumstances(answer: Estimate) -> tuple[str, ...]:
    """How the work is divided, its batch, formats, optimizer and software."""
    plan = answer.plan
    optimizer = [plan.optimizer] if plan.mode == "train" else []
    layout = [] if plan.memory_format == "contiguous" else [plan.memory_format]
    words = [*division(plan), _batch(plan), plan.precision, *layout, *optimizer, f"stack {answer.stack.id}"]
    return tuple(fmt.plain(word) for word in words)


def machine(answer: Estimate) -> str:
    """The machine in words."""
    part = answer.machine
    nodes = f" in {part.nodes:,} nodes" if part.nodes > 1 else ""
    return fmt.plain(f"{part.count:,} x {part.accelerator}{nodes}")


def _model(answer: Estimate) -> str:
    part = answer.model
    words = [f"{fmt.count(part.parameters)} parameters"]
    if part.trainable_parameters != part.parameters:
        words.append(f"{fmt.count(part.trainable_parameters)} trainable")
    if part.source and part.source != part.name:
        words.append(part.source)
    return f"{part.name} ({', '.join(words)})"


def division(plan: PlanPart) -> list[str]:
    """How the work is divided, leaving out what is not."""
    words = []
    for size, name in (
        (plan.dp, "data"),
        (plan.tp, "tensor"),
        (plan.pp, "pipeline"),
        (plan.cp, "context"),
        (plan.ep, "expert"),
    ):
        if size > 1:
            words.append(f"{name} parallel {size:,}")
    if plan.zero:
        words.append(f"ZeRO {plan.zero}")
    if plan.recompute != "none":
        words.append(f"{plan.recompute} recompute")
    return words


def _batch(plan: PlanPart) -> str:
    parts = []
    if plan.micro_batch != plan.batch_size:
        parts.append(f"micro-batch {plan.micro_batch:,}")
    if plan.accumulation > 1:
        parts.append(f"{plan.accumulation:,} accumulated")
    return f"batch {plan.batch_size:,}" + (f" ({', '.join(parts)})" if parts else "")
