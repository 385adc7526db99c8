"""Networks for images of 28 to 32 pixels: pre-activation ResNet and Shake-Shake."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu


class PreactBlock(nn.Module):
    """Two 3 x 3 convolutions, each after batch norm and ReLU: [b, before, h, w] -> [b, after, h/s, w/s].

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, figure 4e.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.across = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the input, projected where widths differ."""
        ready = relu(self.first_norm(x))
        out: Tensor = self.second(relu(self.second_norm(self.first(ready))))
        return out + (x if self.across is None else self.across(ready))


def preact(depth: int, width: int, channels: int) -> nn.Sequential:
    """A pre-activation ResNet: three stages of (depth - 2) / 6 blocks of width, 2 and 4 times width.

    [b, channels, h, w] -> [b, 10]
    """
    modules: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False)]
    before = width
    for stage in range(3):
        for block in range((depth - 2) // 6):
            after = width * 2**stage
            modules.append(PreactBlock(before, after, 2 if stage and not block else 1))
            before = after
    ends = (nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))
    return nn.Sequential(*modules, *ends)


class ShakeBlock(nn.Module):
    """Two residual paths mixed by a random share per image: [b, before, h, w] -> [b, after, h/s, w/s].

    Source: Gastaldi, "Shake-Shake regularization", arXiv 1705.07485, section 1 and figure 1.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False),
                nn.BatchNorm2d(after),
            )
            for _ in range(2)
        )
        self.stride, self.changes = stride, before != after
        if self.changes:
            self.even = nn.Conv2d(before, after // 2, 1, bias=False)
            self.odd = nn.Conv2d(before, after // 2, 1, bias=False)
            self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the paths and add the input, which a change of width takes from shifted halves."""
        share = torch.rand(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device)
        first, second = (path(x) for path in self.paths)
        mixed: Tensor = share * first + (1 - share) * second
        return mixed + (self._across(x) if self.changes else x)

    def _across(self, x: Tensor) -> Tensor:
        ready = relu(x)
        shifted = pad(ready[:, :, 1:, 1:], (0, 1, 0, 1)) if self.stride > 1 else ready
        halves = (
            self.even(avg_pool2d(ready, 1, self.stride)),
            self.odd(avg_pool2d(shifted, 1, self.stride)),
        )
        out: Tensor = self.norm(torch.cat(halves, dim=1))
        return out


def shake_shake(depth: int, width: int, channels: int) -> nn.Sequential:
    """Shake-Shake with two paths: three stages of (depth - 2) / 6 blocks of width, 2 and 4 times width.

    [b, channels, h, w] -> [b, 10]; 26 layers and a width of 96 are 2x96d.
    """
    modules: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)]
    before = 16
    for stage in range(3):
        for block in range((depth - 2) // 6):
            after = width * 2**stage
            modules.append(ShakeBlock(before, after, 2 if stage and not block else 1))
            before = after
    return nn.Sequential(*modules, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))
