"""HiFi-GAN: mel spectrograms to sound, trained against eight discriminators.

Source: Kong, Kim, Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech
Synthesis", NeurIPS 2020, version 1, table 5 (generator) and appendix A (discriminators).

Spectrograms are [b, 80, s / 256], sound [b, 1, s]. One step trains both sides: the discriminators on real
and on generated sound cut off from the generator, then the generator through the discriminators. Every
convolution has weight normalisation, the first of the scale discriminators too (the paper: spectral
normalisation there).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

MEL, WINDOW, HOP = 80, 1024, 256
SLOPE = 0.1  # of every leaky ReLU
PERIODS = (2, 3, 5, 7, 11)
SCALES = 3


class ResidualUnit(nn.Module):
    """Three pairs of convolutions with growing gaps: [b, c, n] -> [b, c, n]."""

    def __init__(self, channels: int, span: int) -> None:
        """``span`` of every convolution."""
        super().__init__()
        self.wide = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, span, dilation=d, padding=d * (span - 1) // 2))
            for d in (1, 3, 5)
        )
        self.near = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, span, padding=(span - 1) // 2)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, n] -> [b, c, n]."""
        for wide, near in zip(self.wide, self.near, strict=True):
            x = x + near(leaky_relu(wide(leaky_relu(x, SLOPE)), SLOPE))
        return x


class Generator(nn.Module):
    """Four times up, each followed by the mean of three residual units: [b, 80, n] -> [b, 1, 256 n]."""

    def __init__(self, width: int = 512, strides: tuple[int, ...] = (8, 8, 2, 2)) -> None:
        """``width`` channels at the start, halved each time."""
        super().__init__()
        self.first = weight_norm(nn.Conv1d(MEL, width, 7, padding=3))
        self.rise, self.units = nn.ModuleList(), nn.ModuleList()
        for stride in strides:
            up = nn.ConvTranspose1d(width, width // 2, 2 * stride, stride, padding=stride // 2)
            self.rise.append(weight_norm(up))
            width //= 2
            self.units.append(nn.ModuleList(ResidualUnit(width, span) for span in (3, 7, 11)))
        self.last = weight_norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, mel: Tensor) -> Tensor:
        """[b, 80, n] -> [b, 1, 256 n]."""
        x = self.first(mel)
        for rise, units in zip(self.rise, self.units, strict=True):
            x = rise(leaky_relu(x, SLOPE))
            assert isinstance(units, nn.ModuleList)
            x = torch.stack([unit(x) for unit in units]).mean(dim=0)
        return torch.tanh(self.last(leaky_relu(x)))


class Discriminator(nn.Module):
    """Convolutions whose results are kept: [b, 1, ...] -> features of every layer, the score last."""

    def __init__(self, layers: list[nn.Module]) -> None:
        """``layers``, the last gives the score."""
        super().__init__()
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of every layer."""
        kept = []
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else leaky_relu(x, SLOPE))
            kept.append(x)
        return kept


def _of_period() -> Discriminator:
    """Five convolutions along the rows that a period cuts the sound into."""
    sizes = (1, 32, 128, 512, 1024)
    layers: list[nn.Module] = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(sizes)]
    layers += [nn.Conv2d(1024, 1024, (5, 1), 1, (2, 0)), nn.Conv2d(1024, 1, (3, 1), 1, (1, 0))]
    return Discriminator(layers)


def _of_scale() -> Discriminator:
    """Seven convolutions over the sound, most of them grouped."""
    grouped = (
        (128, 128, 2, 4),
        (128, 256, 2, 16),
        (256, 512, 4, 16),
        (512, 1024, 4, 16),
        (1024, 1024, 1, 16),
    )
    layers: list[nn.Module] = [nn.Conv1d(1, 128, 15, padding=7)]
    layers += [nn.Conv1d(a, b, 41, s, padding=20, groups=g) for a, b, s, g in grouped]
    layers += [nn.Conv1d(1024, 1024, 5, padding=2), nn.Conv1d(1024, 1, 3, padding=1)]
    return Discriminator(layers)


class HiFiGAN(nn.Module):
    """Generator, five period and three scale discriminators."""

    def __init__(self, width: int = 512) -> None:
        """``width`` of the generator."""
        super().__init__()
        self.generator = Generator(width)
        self.periods = nn.ModuleList(_of_period() for _ in PERIODS)
        self.scales = nn.ModuleList(_of_scale() for _ in range(SCALES))
        self.window: Tensor
        self.bands: Tensor
        self.register_buffer("window", torch.hann_window(WINDOW))
        self.register_buffer("bands", torch.ones(MEL, WINDOW // 2 + 1))

    def forward(self, mel: Tensor, sound: Tensor) -> Tensor:
        """mel [b, 80, n] -> sound [b, 1, 256 n]; the true ``sound`` is for the loss."""
        out: Tensor = self.generator(mel)
        return out

    def _judged(self, sound: Tensor) -> list[list[Tensor]]:
        """Features of every discriminator for sound [b, 1, s]."""
        found = []
        for period, judge in zip(PERIODS, self.periods, strict=True):
            rest = -sound.shape[-1] % period
            rows = pad(sound, (0, rest), mode="reflect") if rest else sound
            found.append(judge(rows.view(*rows.shape[:2], -1, period)))
        for index, judge in enumerate(self.scales):
            found.append(judge(sound))
            if index < SCALES - 1:
                sound = avg_pool1d(sound, 4, 2, padding=2)
        return found

    def _mel(self, sound: Tensor) -> Tensor:
        """Log mel spectrogram of sound [b, 1, s]."""
        waves = torch.stft(sound[:, 0], WINDOW, HOP, window=self.window, return_complex=True)
        return torch.log((self.bands @ waves.abs()).clamp(min=1e-5))

    def loss(self, outputs: Tensor, **inputs: Tensor) -> Tensor:
        """Both sides: squared errors of scores, distances of features and, 45 times, of spectrograms."""
        real = self._judged(inputs["sound"])
        cut = self._judged(outputs.detach())
        total = torch.stack(
            [((r[-1] - 1) ** 2).mean() + (c[-1] ** 2).mean() for r, c in zip(real, cut, strict=True)]
        )
        made = self._judged(outputs)
        fooled = torch.stack([((m[-1] - 1) ** 2).mean() for m in made])
        features = [
            (a.detach() - b).abs().mean()
            for r, m in zip(real, made, strict=True)
            for a, b in zip(r, m, strict=True)
        ]
        spectra = (self._mel(inputs["sound"]) - self._mel(outputs)).abs().mean()
        return total.sum() + fooled.sum() + 2.0 * torch.stack(features).sum() + 45.0 * spectra


def hifigan() -> HiFiGAN:
    """HiFi-GAN version 1."""
    return HiFiGAN()
