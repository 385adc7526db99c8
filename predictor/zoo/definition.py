"""What the zoo's tables say about one model."""

from dataclasses import dataclass

IMAGE = ("image:float32[B,3,P,P]",)
IDS = ("ids:int64[B,S]",)


@dataclass(frozen=True, slots=True)
class Definition:
    """One model of the zoo.

    title     name for people
    paper     where the architecture is published
    module    Python module that holds it, imported only when the model is built
    factory   function in that module, without required arguments, that returns a ``torch.nn.Module``
    inputs    keyword inputs of its ``forward`` as "name:dtype[shape]": B batch, S sequence length,
              P image side, or a plain number
    sequence  S it was trained with (tokens, frames, samples of sound), None without a sequence
    image     P it was trained with, None without images
    batch     B of a sensible micro-batch
    note      where the headline count differs from the exact one, and what was decided
    """

    title: str
    paper: str
    module: str
    factory: str
    inputs: tuple[str, ...]
    sequence: int | None
    image: int | None
    batch: int
    note: str
