"""Small models that are measured and that no other library names; also models to predict by."""

import torch
from torch import Tensor, nn

from predictor.zoo.llama import LlamaLayer, SwiGLU, rotary_table

_WIDTH, _HEADS, _KEY_HEADS, _INNER, _THETA = 4096, 32, 8, 14336, 500_000.0


class LlamaBlock(nn.Module):
    """One layer of Llama 3 8B: [b, s, 4096] -> the same; sizes as in ``zoo:llama3-8b``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LlamaLayer(_WIDTH, _HEADS, _KEY_HEADS, SwiGLU(_WIDTH, _INNER))

    def forward(self, states: Tensor) -> Tensor:
        """States [b, s, width] -> the same."""
        cos, sin = rotary_table(states.shape[1], _WIDTH // _HEADS, _THETA, states.device)
        out: Tensor = self.layer(states, cos, sin)
        return out


def llama_block() -> LlamaBlock:
    """One layer of Llama 3 8B."""
    return LlamaBlock()


def example_inputs(batch_size: int = 1, seq_len: int = 2048) -> dict[str, Tensor]:
    """States of ``batch_size`` sequences."""
    return {"states": torch.zeros(batch_size, seq_len, _WIDTH)}


def loss(outputs: Tensor, **_: Tensor) -> Tensor:
    """Any scalar: the layer alone has no targets."""
    return outputs.float().mean()
