"""The same model counted by others: ``torch.utils.flop_counter`` and fvcore, for ``predictor trace --check``.

Each oracle runs the model itself, by its own means: PyTorch's counter a training step on meta tensors,
fvcore a trace of the forward pass on real ones. Every known difference is worked out operator by operator
(what would this oracle count here, and why); what is left over is unexplained, and fails the check.
"""

from typing import Any

from predictor.errors import InputError, PredictorError
from predictor.frontends import ReadOptions
from predictor.frontends.torch_count import prepare
from predictor.frontends.torch_meta import MetaMode
from predictor.ir import Graph
from predictor.oracles import flop_counter, fvcore_trace
from predictor.oracles.comparison import CannotRunError, Check, Line
from predictor.passes import steps_of

_FORMS = "zoo:NAME, timm:NAME, torchvision:NAME, file.py:factory or package.module:factory"


def check(source: Any, options: ReadOptions, graph: Graph) -> Check:
    """Compare the counts of ``graph``, read from ``source``, with those of every oracle that can run."""
    if str(source).endswith((".json", ".onnx", ".pt2")) or str(source).startswith("jax:"):
        raise InputError(f"{source}: --check runs the model; give it as {_FORMS}")
    prepared = prepare(source, options, MetaMode())
    if prepared is None:
        raise InputError(f"{source}: --check cannot run a model whose shapes depend on data")
    steps = steps_of(graph, options.train)
    lines: list[Line] = []
    missing: list[tuple[str, str]] = []
    for oracle in (flop_counter, fvcore_trace):
        try:
            lines += oracle.lines(prepared, options, steps)
        except PredictorError:
            raise
        except CannotRunError as error:
            missing.append((oracle.NAME, str(error)))
        except Exception as error:  # the oracle's own limits
            first = (str(error).strip().splitlines() or [""])[0][:200]
            missing.append((oracle.NAME, f"cannot run this model: {type(error).__name__}: {first}"))
    return Check(tuple(lines), tuple(missing))
