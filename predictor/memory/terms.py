"""The terms of peak memory that are not in a recording: weights, state, workspaces, by named formula."""

from math import prod

from predictor.ir import FORWARD, Graph, Op, Parameter
from predictor.memory.blocks import numbered
from predictor.parallel import Plan
from predictor.stack import Stack
from predictor.training import Recipe

# Optimizer temporaries: how many float32 copies of all weights a foreach implementation holds at once,
# and how many of the largest weight one that goes weight by weight does. Adam: the roots of the second
# moments (torch/optim/adam.py: _foreach_sqrt; root and quotient singly). SGD: gradient plus weight decay.
# Lion: the interpolated direction. Adafactor has no state per weight and goes singly: the squared
# gradient and the update.
_FOREACH = {"sgd": 1, "adam": 1, "adamw": 1, "lion": 1, "adafactor": 0}
_SINGLE = {"sgd": 1, "adam": 2, "adamw": 2, "lion": 1, "adafactor": 2}
_STATES = {"sgd": 1, "adam": 2, "adamw": 2, "lion": 1}


def state_elements(optimizer: str, shape: tuple[int, ...]) -> list[int]:
    """Elements of each tensor of state that an optimizer keeps for a weight.

    Adafactor keeps sums over the last and over the last but one axis of a matrix, and a whole second moment
    of a vector (Shazeer and Stern, 2018).

    >>> state_elements("adam", (3, 5)), state_elements("adafactor", (3, 5))
    ([15, 15], [3, 5])
    """
    if optimizer == "adafactor":
        if len(shape) < 2:
            return [prod(shape)]
        return [prod(shape[:-1]), prod(shape[:-2]) * shape[-1]]
    return [prod(shape)] * _STATES.get(optimizer, 0)


def optimizer_temporaries(optimizer: str, variant: str, weights: list[int]) -> list[int]:
    """Tensors that exist together during an update of ``weights`` (their sizes) [byte].

    >>> optimizer_temporaries("adam", "foreach", [4, 8]), optimizer_temporaries("adam", "single", [4, 8])
    ([4, 8], [8, 8])
    """
    if variant == "fused" or optimizer not in _FOREACH:
        return []
    if variant == "foreach" and _FOREACH[optimizer]:
        return weights * _FOREACH[optimizer]
    return [max(weights, default=0)] * _SINGLE[optimizer]


def shares(parameters: tuple[Parameter, ...], plan: Plan) -> list[int]:
    """Elements of each weight on one rank before sharding: over tp, experts also over ep."""
    return [-(-p.elements // (plan.tp * (plan.ep if p.expert else 1))) for p in parameters]


def shard_group(parameter: Parameter, plan: Plan) -> int:
    """Ranks that hold the same weight and can share its state: data and context parallel ones.

    Experts are copied less often: their ranks are divided by ep.
    """
    return plan.dp * plan.cp // (plan.ep if parameter.expert else 1) or 1


def summed_apart(recipe: Recipe, plan: Plan) -> bool:
    """True when weight gradients are added to a buffer of their own as they are made.

    Main gradients of another type, or the shards that ZeRO 2 and 3 keep of each.
    """
    return recipe.gradient_persists or (plan.zero >= 2 and plan.dp * plan.cp > 1)


def weight_bytes(
    parameters: tuple[Parameter, ...], plan: Plan, recipe: Recipe, stack: Stack, train: bool
) -> dict[str, list[int]]:
    """Standing tensors of one rank by name [byte]; ZeRO 1 shards state, 2 gradients too, 3 weights too.

    Gradients stand here only when they are summed in a buffer of their own. DDP keeps buckets beside the
    gradients (``gradient_as_bucket_view`` is off by default); ZeRO 3 gathers the weights of two blocks,
    one ahead of its use, and ZeRO 2 and 3 hold one block's gradients before they are scattered.
    """
    own = shares(parameters, plan)
    over = [shard_group(p, plan) for p in parameters]
    third = [-(-n // w) if plan.zero >= 3 else n for n, w in zip(own, over, strict=True)]
    found = {"weights": [n * recipe.weight for n in third]}
    if recipe.copies and train:
        found["low-precision copies"] = [n * recipe.copies for n in third]
    gathered = largest_block(parameters, own) * recipe.weight
    if plan.zero >= 3 and max(over, default=1) > 1:
        found["gathered weights"] = [2 * gathered]
    if not train:
        return found
    trained = [(n, w) for p, n, w in zip(parameters, own, over, strict=True) if p.trainable]
    if recipe.master:
        found["master weights"] = [-(-n // (w if plan.zero else 1)) * recipe.master for n, w in trained]
    if summed_apart(recipe, plan):
        sharded = plan.zero >= 2
        found["gradients"] = [-(-n // (w if sharded else 1)) * recipe.gradient for n, w in trained]
    elif plan.dp > 1 and not plan.zero and stack.gradient_buckets:
        found["communication buckets"] = [sum(n for n, _ in trained) * recipe.gradient]
    if plan.zero >= 2 and max(over, default=1) > 1:
        found["communication buckets"] = [gathered // recipe.weight * recipe.gradient]
    return found


def update_bytes(
    parameters: tuple[Parameter, ...], plan: Plan, recipe: Recipe, stack: Stack, optimizer: str
) -> tuple[list[int], list[int]]:
    """Tensors of optimizer state, and those that an update borrows, on one rank [byte]."""
    own = tuple(p for p in parameters if p.trainable)
    over = [shard_group(p, plan) if plan.zero else 1 for p in own]
    sizes = [-(-n // ranks) for n, ranks in zip(shares(own, plan), over, strict=True)]
    state = [
        -(-n * size // max(p.elements, 1)) * recipe.state
        for p, size in zip(own, sizes, strict=True)
        for n in state_elements(optimizer, p.shape)
    ]
    return state, optimizer_temporaries(optimizer, stack.optimizer, [n * recipe.state for n in sizes])


def largest_block(parameters: tuple[Parameter, ...], elements: list[int]) -> int:
    """Elements of the largest block, or of the largest weight outside blocks."""
    blocks: dict[str, int] = {}
    for parameter, n in zip(parameters, elements, strict=True):
        name = numbered(parameter.name) or parameter.name
        blocks[name] = blocks.get(name, 0) + n
    return max(blocks.values(), default=0)


def convolutions(graph: Graph) -> list[Op]:
    """Convolutions of the forward pass."""
    return [op for op in graph.ops if op.phase == FORWARD and "conv" in op.name.lower() and _is_conv(op)]


def _is_conv(op: Op) -> bool:
    return len(op.inputs) > 1 and len(op.inputs[1].shape) > 2 and bool(op.outputs)


def largest_convolution_byte(graph: Graph) -> int:
    """Input plus output of the largest convolution that is neither depthwise nor 1x1 [byte].

    Those two kinds run without a transformed copy of their tensors; the others may be given one by cuDNN.
    """
    largest = 0
    for op in convolutions(graph):
        image, weight = op.inputs[:2]
        depthwise = op.attrs.get("groups", op.attrs.get("group", 1)) == image.shape[1] > 1
        if not depthwise and prod(weight.shape[2:]) > 1:
            largest = max(largest, image.byte + op.outputs[0].byte)
    return largest


def has_attention(graph: Graph) -> bool:
    """True when the forward pass holds attention."""
    return any(op.name == "predictor.attention" for op in graph.ops)
