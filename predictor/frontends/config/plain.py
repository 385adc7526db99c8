"""A decoder of plain parts: its sizes, its stack of blocks, its loss."""

from collections.abc import Callable
from dataclasses import dataclass

from predictor.frontends.config.fields import Fields
from predictor.frontends.config.layers import activation, language_loss, projection
from predictor.frontends.config.model import Text
from predictor.frontends.config.products import linear
from predictor.frontends.config.tape import Hold, Tape, Value


@dataclass(frozen=True, slots=True)
class Plain:
    """Sizes of a decoder whose heads all have keys of their own."""

    vocabulary: int
    width: int
    heads: int
    inner: int
    layers: int
    eps: float
    act: Callable[[Value], Value]

    @property
    def head_size(self) -> int:
        """d: elements of a head."""
        return self.width // self.heads


def sizes(
    fields: Fields,
    act: str,
    width: str = "hidden_size",
    heads: str = "num_attention_heads",
    layers: str = "num_hidden_layers",
    inner: str | None = None,
) -> Plain:
    """Sizes under each family's own names; without a name for the inner width it is four times the width."""
    k, count = fields.size(width), fields.size(heads)
    fields.divides(count, k, f"{width} by {heads}")
    return Plain(
        vocabulary=fields.size("vocab_size"),
        width=k,
        heads=count,
        inner=4 * k if inner is None else fields.size(inner),
        layers=fields.layers(layers),
        eps=fields.number("layer_norm_epsilon", "layer_norm_eps", default=1e-5),
        act=activation(fields, "activation_function", "hidden_act", "activation", default=act),
    )


def stacked(tape: Tape, layers: int, prefix: str, x: list[Value], block: Callable[[Value], Value]) -> Value:
    """One kind of block after another; ``x`` is handed over and emptied."""
    tape.prefix = prefix
    (y,) = tape.stack(("full",) * layers, lambda _, given: (block(given[0]),), x)
    x.clear()
    tape.prefix = ""
    return y


def lingering(
    tape: Tape, layers: int, prefix: str, x: list[Value], block: Callable[..., tuple[Value, Value]]
) -> Value:
    """Blocks that return something beside their result, which lives until the next block has returned."""
    tape.prefix = prefix
    carried = list(block(x.pop()))
    if layers > 1:
        tape.stack(("full",) * (layers - 1), lambda _, given: block(*given), carried)
    y = carried[0]
    x.extend(carried[1:])
    carried.clear()
    tape.prefix = ""
    return y


def two_layers(tape: Tape, x: Value, names: tuple[str, str], p: Plain) -> Value:
    """A feed-forward part of two biased layers."""
    y = projection(tape, x, names[0], p.inner, True)
    y = p.act(y)
    return projection(tape, y, names[1], p.width, True)


def keep(embeds: Value, x: Value) -> Hold | Value:
    """What keeps the embeddings alive until a model returns: they may be the first block's input."""
    return Hold(x) if embeds is x else embeds


def head_loss(tape: Tape, x: Value, weight: Value, text: Text, bias: Value | None = None) -> Value:
    """Logits of the vocabulary and the loss of the next token."""
    tape.scope = "lm_head"
    logits = linear(x, weight, bias)
    return language_loss(tape, logits, text.labels)


def rotary_frequencies(tape: Tape, size: int) -> Value:
    """Inverse frequencies [size / 2], kept twice."""
    tape.buffer((size // 2,))
    return tape.buffer((size // 2,))


def pattern(count: int) -> list[str]:
    """Kinds of ``count`` blocks of which the last runs backward first."""
    return ["block"] * (count - 1) + ["last"] if count else []
