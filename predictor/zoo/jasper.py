"""Speech recognition by convolutions over time: Jasper 10x5 and QuartzNet 15x5.

Sources: Li et al., "Jasper: An End-to-End Convolutional Neural Acoustic Model", Interspeech 2019 (dense
residual connections); Kriman et al., "QuartzNet: Deep Automatic Speech Recognition with 1D Time-Channel
Separable Convolutions", ICASSP 2020; settings as in github.com/NVIDIA/DeepLearningExamples,
PyTorch/SpeechRecognition.

Features are [b, 64, s], one frame per 10 ms; scores [b, s / 2, 29]; texts [b, letters]. The
masks that blank padded frames are left out, sequences are taken as full.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss, log_softmax, relu

FEATURES, CHARACTERS = 64, 29  # mel bands; letters, space, apostrophe and blank


def _layer(
    before: int, after: int, span: int, *, separable: bool, stride: int = 1, gap: int = 1
) -> list[nn.Module]:
    """One convolution with batch normalisation, as one or as two (over time, then over channels)."""
    padding = gap * (span - 1) // 2
    if not separable:
        conv = [nn.Conv1d(before, after, span, stride, padding, gap, bias=False)]
    else:
        conv = [
            nn.Conv1d(before, before, span, stride, padding, gap, groups=before, bias=False),
            nn.Conv1d(before, after, 1, bias=False),
        ]
    return [*conv, nn.BatchNorm1d(after)]


class Block(nn.Module):
    """Five convolutions; the results of earlier blocks join before the last activation."""

    def __init__(
        self,
        sources: tuple[int, ...],
        after: int,
        span: int,
        *,
        separable: bool,
        dropout: float,
        repeat: int = 5,
    ) -> None:
        """``sources``: channels of the tensors that come in, the last is convolved."""
        super().__init__()
        layers: list[nn.Module] = []
        before = sources[-1]
        for index in range(repeat):
            layers += _layer(before, after, span, separable=separable)
            if index < repeat - 1:
                layers += [nn.ReLU(), nn.Dropout(dropout)]
            before = after
        self.layers = nn.Sequential(*layers)
        self.shortcuts = nn.ModuleList(
            nn.Sequential(nn.Conv1d(c, after, 1, bias=False), nn.BatchNorm1d(after)) for c in sources
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Tensors [b, c, s] -> [b, after, s]."""
        x = self.layers(sources[-1])
        for shortcut, source in zip(self.shortcuts, sources, strict=True):
            x = x + shortcut(source)
        out: Tensor = self.dropout(relu(x))
        return out


class SpeechConvNet(nn.Module):
    """A strided convolution, residual blocks, two or three more convolutions, scores of characters."""

    def __init__(
        self,
        first: tuple[int, int],
        blocks: tuple[tuple[int, int, float], ...],
        last: tuple[int, int, float],
        *,
        dense: bool,
        separable: bool,
    ) -> None:
        """Sizes.

        first   channels and span of the first convolution, of stride 2
        blocks  (channels, span, dropout) of each
        last    channels, span and dropout of the one with gaps
        dense   a block sees all earlier results, not only the one before
        """
        super().__init__()
        start = 0.2 if dense else 0.0
        self.first = nn.Sequential(
            *_layer(FEATURES, first[0], first[1], separable=separable, stride=2), nn.ReLU(), nn.Dropout(start)
        )
        self.dense = dense
        self.blocks = nn.ModuleList()
        sources = [first[0]]
        for channels, span, dropout in blocks:
            taken = tuple(sources) if dense else (sources[-1],)
            self.blocks.append(Block(taken, channels, span, separable=separable, dropout=dropout))
            sources.append(channels)
        width, span, dropout = last
        self.last = nn.Sequential(
            *_layer(sources[-1], width, span, separable=separable, gap=2),
            nn.ReLU(),
            nn.Dropout(dropout),
            *_layer(width, 1024, 1, separable=False),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(1024, CHARACTERS, 1),
        )

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """features [b, 64, s] -> scores [b, s / 2, 29]; the text [b, letters] is for the loss."""
        results = [self.first(features)]
        for block in self.blocks:
            results.append(block(results if self.dense else results[-1:]))
        return log_softmax(self.last(results[-1]).transpose(1, 2), dim=-1)

    def loss(self, outputs: Tensor, **inputs: Tensor) -> Tensor:
        """Connectionist temporal classification."""
        return text_loss(outputs, inputs["text"])


def text_loss(scores: Tensor, text: Tensor) -> Tensor:
    """CTC of log-probabilities [b, s, characters] against a text [b, letters], mean over both."""
    frames = torch.full((scores.shape[0],), scores.shape[1], dtype=torch.int64)
    letters = torch.full((text.shape[0],), text.shape[1], dtype=torch.int64)
    return ctc_loss(scores.transpose(0, 1), text, frames, letters, blank=scores.shape[-1] - 1)


def jasper() -> SpeechConvNet:
    """Jasper 10x5 with dense residual connections."""
    pairs = ((256, 11, 0.2), (384, 13, 0.2), (512, 17, 0.2), (640, 21, 0.3), (768, 25, 0.3))
    blocks = tuple(size for size in pairs for _ in range(2))
    return SpeechConvNet((256, 11), blocks, (896, 29, 0.4), dense=True, separable=False)


def quartznet() -> SpeechConvNet:
    """QuartzNet 15x5."""
    triples = ((256, 33, 0.0), (256, 39, 0.0), (512, 51, 0.0), (512, 63, 0.0), (512, 75, 0.0))
    blocks = tuple(size for size in triples for _ in range(3))
    return SpeechConvNet((256, 33), blocks, (512, 87, 0.0), dense=False, separable=True)
