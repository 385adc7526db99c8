"""Deep Speech 2: two convolutions over the spectrogram, five recurrent layers both ways, CTC.

Sources: Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin", ICML 2016;
sizes as in github.com/SeanNaren/deepspeech.pytorch (1024 LSTM cells, both directions summed), which the
Zeus study trained.

Spectrograms are [b, 1, 161, s], one frame per 10 ms; scores [b, s / 2, 29].
"""

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from predictor.zoo.jasper import CHARACTERS, text_loss

FREQUENCIES = 161  # of 20 ms at 16 kHz


class BothWays(nn.Module):
    """Batch normalisation and an LSTM whose directions are added: [s, b, before] -> [s, b, cells]."""

    def __init__(self, before: int, cells: int, norm: bool = True) -> None:
        """``norm``: normalise the input."""
        super().__init__()
        self.norm = nn.BatchNorm1d(before) if norm else nn.Identity()
        self.lstm = nn.LSTM(before, cells, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """[s, b, before] -> [s, b, cells]."""
        y = self.norm(x.flatten(0, 1)).view(x.shape)
        out: Tensor = self.lstm(y)[0]
        return out.view(*x.shape[:2], 2, -1).sum(dim=2)


class DeepSpeech2(nn.Module):
    """Convolutions, recurrent layers, scores of characters."""

    def __init__(self, cells: int = 1024, layers: int = 5) -> None:
        """``cells`` per direction."""
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), stride=(2, 2), padding=(20, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(32, 32, (21, 11), stride=(2, 1), padding=(10, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
        )
        features = 32 * ((FREQUENCIES + 1) // 2 + 1) // 2  # 161 -> 81 -> 41 rows of 32 channels
        self.layers = nn.ModuleList(
            BothWays(cells if index else features, cells, norm=index > 0) for index in range(layers)
        )
        self.norm = nn.BatchNorm1d(cells)
        self.head = nn.Linear(cells, CHARACTERS, bias=False)

    def forward(self, sound: Tensor, text: Tensor) -> Tensor:
        """sound [b, 1, 161, s] -> scores [b, s / 2, 29]; the text [b, letters] is for the loss."""
        x = self.convs(sound).flatten(1, 2).permute(2, 0, 1).contiguous()  # [s / 2, b, features]
        for layer in self.layers:
            x = layer(x)
        scores = self.head(self.norm(x.flatten(0, 1))).view(*x.shape[:2], CHARACTERS)
        return log_softmax(scores, dim=-1).transpose(0, 1)

    def loss(self, outputs: Tensor, **inputs: Tensor) -> Tensor:
        """Connectionist temporal classification."""
        return text_loss(outputs, inputs["text"])


def deepspeech2() -> DeepSpeech2:
    """Deep Speech 2 for LibriSpeech."""
    return DeepSpeech2()
