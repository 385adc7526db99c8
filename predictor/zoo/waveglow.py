"""WaveGlow: a flow from sound to noise, conditioned on a mel spectrogram.

Source: Prenger, Valle, Catanzaro, "WaveGlow: A Flow-based Generative Network for Speech Synthesis", ICASSP
2019: twelve steps, eight samples per group, two of them given out after every four steps; 512 channels and
segments of 8000 samples as in github.com/NVIDIA/DeepLearningExamples, PyTorch/SpeechSynthesis/Tacotron2.

Sound is [b, s]; grouped [b, c, s / 8]; the mel spectrogram [b, 80, frames] with one frame per 256 samples.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

MEL = 80
HOP, WINDOW = 256, 1024  # samples between two frames, and in one
GROUP = 8


class WaveNet(nn.Module):
    """Eight gated convolutions with growing gaps, each seeing the spectrogram: [b, c, n] -> [b, 2 c, n]."""

    def __init__(self, channels: int, condition: int, width: int, layers: int) -> None:
        """``condition`` channels of the grouped spectrogram."""
        super().__init__()
        self.width = width
        self.start = weight_norm(nn.Conv1d(channels, width, 1))
        self.gates = nn.ModuleList(
            weight_norm(nn.Conv1d(width, 2 * width, 3, dilation=2**i, padding=2**i)) for i in range(layers)
        )
        self.conditions = nn.ModuleList(
            weight_norm(nn.Conv1d(condition, 2 * width, 1)) for _ in range(layers)
        )
        self.mixes = nn.ModuleList(
            weight_norm(nn.Conv1d(width, width if i == layers - 1 else 2 * width, 1)) for i in range(layers)
        )
        self.end = nn.Conv1d(width, 2 * channels, 1)

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """x [b, c, n], mel [b, condition, n] -> [b, 2 c, n]."""
        x = self.start(x)
        total: Tensor | None = None
        for gate, condition, mix in zip(self.gates, self.conditions, self.mixes, strict=True):
            left, right = (gate(x) + condition(mel)).chunk(2, dim=1)
            mixed = mix(torch.tanh(left) * torch.sigmoid(right))
            if mixed.shape[1] > self.width:
                x = x + mixed[:, : self.width]
                mixed = mixed[:, self.width :]
            total = mixed if total is None else total + mixed
        out: Tensor = self.end(total)
        return out


class WaveGlow(nn.Module):
    """Twelve steps: an invertible 1 x 1 convolution, and a coupling of one half to the other."""

    def __init__(self, width: int = 512, steps: int = 12, layers: int = 8) -> None:
        """``width`` of every WaveNet."""
        super().__init__()
        self.upsample = nn.ConvTranspose1d(MEL, MEL, WINDOW, stride=HOP)
        channels = [GROUP - 2 * (step // 4) for step in range(steps)]
        self.turns = nn.ParameterList(torch.linalg.qr(torch.randn(c, c))[0] for c in channels)
        self.nets = nn.ModuleList(WaveNet(c // 2, MEL * GROUP, width, layers) for c in channels)

    def forward(self, sound: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sound [b, s], mel [b, 80, frames] -> noise [b, 8, s / 8], sums of log scales and determinants."""
        condition = self.upsample(mel)[:, :, : sound.shape[1]]
        groups = (sound.shape[0], -1, sound.shape[1] // GROUP, GROUP)
        condition = condition.reshape(groups).permute(0, 1, 3, 2).flatten(1, 2)
        x = sound.view(sound.shape[0], -1, GROUP).transpose(1, 2)
        given: list[Tensor] = []
        scales, turns = x.new_zeros(()), x.new_zeros(())
        for step, (turn, net) in enumerate(zip(self.turns, self.nets, strict=True)):
            if step and step % 4 == 0:
                given.append(x[:, :2])
                x = x[:, 2:]
            turns = turns + x.shape[0] * x.shape[2] * torch.linalg.slogdet(turn.float()).logabsdet
            x = nn.functional.conv1d(x, turn.unsqueeze(-1))
            left, right = x.chunk(2, dim=1)
            shift, scale = net(left, condition).chunk(2, dim=1)
            x = torch.cat((left, torch.exp(scale) * right + shift), dim=1)
            scales = scales + scale.sum()
        return torch.cat((*given, x), dim=1), scales, turns

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], **_: Tensor) -> Tensor:
        """Negative log-likelihood per sample."""
        noise, scales, turns = outputs
        return ((noise * noise).sum() / 2 - scales - turns) / noise.numel()


def waveglow() -> WaveGlow:
    """WaveGlow of 512 channels."""
    return WaveGlow()
