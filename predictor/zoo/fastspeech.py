"""Text to mel spectrograms without a loop: FastSpeech and FastPitch.

Sources: Ren et al., "FastSpeech: Fast, Robust and Controllable Text to Speech", NeurIPS 2019; Lancucki,
"FastPitch: Parallel Text-to-speech with Pitch Prediction", ICASSP 2021, with sizes of
github.com/NVIDIA/DeepLearningExamples.

Characters are [b, t], mel frames [b, s, 80] with s = 6 t. Durations come from the data; every character is
given the same number of frames here, so that shapes do not depend on data.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from predictor.zoo.parts import merge_heads, split_heads

MEL, SYMBOLS = 80, 148
FRAMES = 6  # per character; LJSpeech: 566 frames and 98 characters per clip


class TransformerBlock(nn.Module):
    """Self-attention and two convolutions over time, normalised after each sum: [b, s, width] -> the same."""

    def __init__(self, width: int, heads: int, head_size: int, inner: int, span: int, dropout: float) -> None:
        """``inner`` channels between two convolutions of ``span``."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_size)
        self.out = nn.Linear(heads * head_size, width, bias=False)
        self.norm1 = nn.LayerNorm(width)
        self.up = nn.Conv1d(width, inner, span, padding=span // 2)
        self.down = nn.Conv1d(inner, width, span, padding=span // 2)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        weights = self.dropout((q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1))
        x = self.norm1(x + self.dropout(self.out(merge_heads(weights @ v))))
        y = self.down(relu(self.up(x.transpose(1, 2)))).transpose(1, 2)
        out: Tensor = self.norm2(x + self.dropout(y))
        return out


class Predictor(nn.Module):
    """One number per character: two convolutions and a linear layer: [b, t, width] -> [b, t]."""

    def __init__(self, width: int, inner: int = 256, dropout: float = 0.1) -> None:
        """``inner`` channels."""
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(a, inner, 3, padding=1) for a in (width, inner))
        self.norms = nn.ModuleList(nn.LayerNorm(inner) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, width] -> [b, t]."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.dropout(norm(relu(conv(x.transpose(1, 2))).transpose(1, 2)))
        out: Tensor = self.head(x)
        return out.squeeze(-1)


class FastSpeech(nn.Module):
    """Blocks over characters, durations, blocks over frames; FastPitch adds the pitch of each character."""

    def __init__(
        self,
        *,
        heads: int,
        head_size: int,
        pitch: bool,
        width: int = 384,
        inner: int = 1536,
        blocks: int = 6,
        dropout: float = 0.1,
    ) -> None:
        """``pitch``: predict it and add what it embeds to."""
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, width)

        def stack() -> nn.ModuleList:
            sizes = (width, heads, head_size, inner, 3, dropout)
            return nn.ModuleList(TransformerBlock(*sizes) for _ in range(blocks))

        self.encoder, self.decoder = stack(), stack()
        self.duration = Predictor(width)
        self.pitch = Predictor(width) if pitch else None
        self.pitch_embedding = nn.Conv1d(1, width, 3, padding=1) if pitch else None
        self.head = nn.Linear(width, MEL)

    def forward(self, text: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """text [b, t] -> frames [b, s, 80], log durations and pitches [b, t]; ``mel`` is for the loss."""
        x = self._placed(self.embedding(text))
        for block in self.encoder:
            x = block(x)
        durations = self.duration(x)
        pitches = durations
        if self.pitch is not None and self.pitch_embedding is not None:
            pitches = self.pitch(x)
            x = x + self.pitch_embedding(torch.zeros_like(pitches).unsqueeze(1)).transpose(1, 2)
        frames = mel.shape[1] // text.shape[1]
        x = self._placed(x.repeat_interleave(frames, dim=1))
        for block in self.decoder:
            x = block(x)
        return self.head(x), durations, pitches

    def _placed(self, x: Tensor) -> Tensor:
        """x [b, s, width] with sines and cosines of the position added."""
        width = x.shape[-1]
        place = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        steps = torch.arange(0, width, 2, device=x.device, dtype=x.dtype)
        angles = torch.outer(place, 10000 ** (-steps / width))
        return x + torch.cat((angles.sin(), angles.cos()), dim=-1)

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Squared errors of frames, durations and pitches."""
        frames, durations, pitches = outputs
        right = torch.zeros_like(durations)
        total = mse_loss(frames, inputs["mel"]) + 0.1 * mse_loss(durations, right)
        return total if self.pitch is None else total + 0.1 * mse_loss(pitches, right)


def fastspeech() -> FastSpeech:
    """FastSpeech: two heads of 64."""
    return FastSpeech(heads=2, head_size=64, pitch=False)


def fastpitch() -> FastSpeech:
    """FastPitch: one head of 64."""
    return FastSpeech(heads=1, head_size=64, pitch=True)
