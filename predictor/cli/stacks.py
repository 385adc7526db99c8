"""``predictor stacks``: software stacks known by name, with every value's source."""

from typing import TYPE_CHECKING

from predictor.cli.catalog import Name, show_or_list
from predictor.cli.guard import guarded
from predictor.cli.options import PlainForm, Verbose
from predictor.cli.output import choose_form
from predictor.cli.tables import Facts, figure

if TYPE_CHECKING:
    from predictor.stack import Span, Stack
    from predictor.values import Sourced


@guarded
def stacks(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """List software stacks, or show one.

    A stack says what is fused, which attention runs and what a launch costs the host.
    """
    from predictor.stack import find_stack, list_stacks

    form = choose_form(form, None, ("table", "json"))
    show_or_list(
        "stacks", name, form, list_stacks(), find_stack, _stack_row, _stack, lambda s: (s.id, s.title)
    )


def _stack_row(stack: "Stack") -> Facts:
    return {"id": stack.id, "attention": stack.attention, "status": stack.status, "title": stack.title}


def _stack(stack: "Stack") -> Facts:
    spans: tuple[tuple[str, Span | None, str], ...] = (
        ("host time of a launch", stack.host_s, "us"),
        ("memory of the context", stack.context_byte, "GB"),
        ("allocator reserve over live tensors", stack.reserved_share, ""),
        ("unused segments that stay reserved", stack.fragmentation, ""),
        ("workspace of the matrix library", stack.blas_byte, "GB"),
        ("memory of the convolution library", stack.convolution_byte, "GB"),
        ("workspace over the largest convolution", stack.convolution_workspace, ""),
        ("optimizer traffic over one pass", stack.optimizer_passes, ""),
        ("gradient communication hidden", stack.overlap, ""),
    )
    return {
        "id": stack.id,
        "title": stack.title,
        "attention": stack.attention,
        "fuses_elementwise": stack.fuse_elementwise,
        "optimizer_launches_per_tensor": stack.optimizer_launches,
        "figures": [figure(name, _of_span(span, stack), unit) for name, span, unit in spans if span],
    }


def _of_span(span: "Span", stack: "Stack") -> "Sourced":
    from predictor.values import Sourced

    return Sourced(span.mid, span.low, span.high, stack.source, stack.as_of, stack.status)
