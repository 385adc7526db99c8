"""What a template hands to the reader: a step to run on a tape, and the sizes of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass

from predictor.frontends.config.tape import Tape, Value


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids [b, s] and labels of the same shape."""

    ids: Value
    labels: Value

    @property
    def batch(self) -> int:
        """b: sequences."""
        return self.ids.shape[0]

    @property
    def length(self) -> int:
        """s: tokens of a sequence."""
        return self.ids.shape[1]


@dataclass(frozen=True, slots=True)
class Model:
    """One configured model.

    step       runs it on a tape for a batch and a size of its inputs, and returns the loss
    batch      samples when the job does not say
    size       tokens of a sequence, or pixels of a side, when the job does not say
    longest    largest size the model takes, None without a limit
    size_name  option that sets the size
    """

    step: Callable[[Tape, int, int], Value]
    batch: int
    size: int
    longest: int | None = None
    size_name: str = "seq_len"


DEFAULT_TOKENS, TEXT_BATCH, IMAGE_BATCH = 1024, 8, 32


def text_model(step: Callable[[Tape, Text], Value], longest: int | None, learned: bool = False) -> Model:
    """A model of token ids; ``learned`` positions end where their table does."""

    def run(tape: Tape, b: int, s: int) -> Value:
        return step(tape, Text(tape.input((b, s), "int64"), tape.input((b, s), "int64")))

    return Model(run, TEXT_BATCH, usual_tokens(longest), longest if learned else None)


def usual_tokens(longest: int | None) -> int:
    """Tokens of a sequence when the job does not say: a multiple of 8 that the positions reach."""
    tokens = min(longest or DEFAULT_TOKENS, DEFAULT_TOKENS)
    return tokens // 8 * 8 if tokens >= 8 else tokens
