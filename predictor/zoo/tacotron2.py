"""Tacotron 2: characters to mel spectrograms, one frame at a time.

Sources: Shen et al., "Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram Predictions", ICASSP
2018; location-sensitive attention of Chorowski et al., 2015; sizes and 148 symbols as in
github.com/NVIDIA/DeepLearningExamples, PyTorch/SpeechSynthesis/Tacotron2.

Characters are [b, t], mel frames [b, s, 80]. The decoder is a loop over the frames, thousands of small
operators; recording 800 frames takes about half a minute. A batch is padded to its longest clip, and so is
``s``.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, mse_loss, relu

MEL = 80
SYMBOLS = 148


def _conv_norm(before: int, after: int) -> nn.Sequential:
    """Five frames wide, with batch normalisation: [b, before, s] -> [b, after, s]."""
    return nn.Sequential(nn.Conv1d(before, after, 5, padding=2), nn.BatchNorm1d(after))


class Encoder(nn.Module):
    """Embedding, three convolutions, an LSTM both ways: [b, t] -> [b, t, width]."""

    def __init__(self, width: int = 512, symbols: int = SYMBOLS) -> None:
        """Half of ``width`` per direction."""
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.convs = nn.ModuleList(_conv_norm(width, width) for _ in range(3))
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, text: Tensor) -> Tensor:
        """[b, t] -> [b, t, width]."""
        x = self.embedding(text).transpose(1, 2)
        for conv in self.convs:
            x = dropout(relu(conv(x)), 0.5, self.training)
        out: Tensor = self.lstm(x.transpose(1, 2))[0]
        return out


class LocationAttention(nn.Module):
    """Additive attention that also sees where it has looked."""

    def __init__(self, query: int, memory: int, width: int = 128, filters: int = 32, span: int = 31) -> None:
        """``filters`` over ``span`` characters of the weights so far."""
        super().__init__()
        self.query = nn.Linear(query, width, bias=False)
        self.memory = nn.Linear(memory, width, bias=False)
        self.place = nn.Conv1d(2, filters, span, padding=span // 2, bias=False)
        self.place_out = nn.Linear(filters, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, state: Tensor, keys: Tensor, last: Tensor, total: Tensor) -> Tensor:
        """state [b, query], keys [b, t, width], weights so far 2 x [b, t] -> weights [b, t]."""
        place = self.place_out(self.place(torch.stack((last, total), dim=1)).transpose(1, 2))
        scores = self.score(torch.tanh(self.query(state).unsqueeze(1) + place + keys)).squeeze(-1)
        weights: Tensor = scores.softmax(dim=-1)
        return weights


class Decoder(nn.Module):
    """Two LSTM cells around the attention; teacher forcing."""

    def __init__(self, memory: int = 512, cells: int = 1024, prenet: int = 256, mel: int = MEL) -> None:
        """``cells`` of both LSTMs."""
        super().__init__()
        self.mel, self.cells = mel, cells
        self.prenet1 = nn.Linear(mel, prenet, bias=False)
        self.prenet2 = nn.Linear(prenet, prenet, bias=False)
        self.attending = nn.LSTMCell(prenet + memory, cells)
        self.attention = LocationAttention(cells, memory)
        self.deciding = nn.LSTMCell(cells + memory, cells)
        self.frame = nn.Linear(cells + memory, mel)
        self.stop = nn.Linear(cells + memory, 1)

    def forward(self, memory: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """memory [b, t, width], true frames [b, s, mel] -> frames [b, s, mel], stop logits [b, s]."""
        b, t, width = memory.shape
        before = torch.cat((mel.new_zeros(b, 1, self.mel), mel[:, :-1]), dim=1)
        inputs = dropout(relu(self.prenet1(before)), 0.5)  # also when it speaks: the paper needs the noise
        inputs = dropout(relu(self.prenet2(inputs)), 0.5)
        keys = self.attention.memory(memory)
        state, cell, state2, cell2 = (memory.new_zeros(b, self.cells) for _ in range(4))
        weights, total = memory.new_zeros(b, t), memory.new_zeros(b, t)
        context = memory.new_zeros(b, width)
        frames, stops = [], []
        for x in inputs.unbind(dim=1):
            state, cell = self.attending(torch.cat((x, context), dim=-1), (state, cell))
            state = dropout(state, 0.1, self.training)
            weights = self.attention(state, keys, weights, total)
            total = total + weights
            context = torch.bmm(weights.unsqueeze(1), memory).squeeze(1)
            state2, cell2 = self.deciding(torch.cat((state, context), dim=-1), (state2, cell2))
            state2 = dropout(state2, 0.1, self.training)
            both = torch.cat((state2, context), dim=-1)
            frames.append(self.frame(both))
            stops.append(self.stop(both).squeeze(-1))
        return torch.stack(frames, dim=1), torch.stack(stops, dim=1)


class Postnet(nn.Module):
    """Five convolutions that correct the frames: [b, s, mel] -> [b, s, mel]."""

    def __init__(self, width: int = 512, mel: int = MEL) -> None:
        """``width`` channels inside."""
        super().__init__()
        sizes = (mel, width, width, width, width, mel)
        self.convs = nn.ModuleList(_conv_norm(a, b) for a, b in pairwise(sizes))

    def forward(self, frames: Tensor) -> Tensor:
        """[b, s, mel] -> [b, s, mel]."""
        x = frames.transpose(1, 2)
        for conv in self.convs[:-1]:
            x = dropout(torch.tanh(conv(x)), 0.5, self.training)
        return dropout(self.convs[-1](x), 0.5, self.training).transpose(1, 2)


class Tacotron2(nn.Module):
    """Encoder, decoder and post-net."""

    def __init__(self, width: int = 512, cells: int = 1024) -> None:
        """``width`` of the encoder, ``cells`` of the decoder."""
        super().__init__()
        self.encoder = Encoder(width)
        self.decoder = Decoder(width, cells)
        self.postnet = Postnet(width)

    def forward(self, text: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """text [b, t], true frames [b, s, 80] -> frames, corrected frames [b, s, 80], stop logits [b, s]."""
        frames, stops = self.decoder(self.encoder(text), mel)
        return frames, frames + self.postnet(frames), stops

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Squared error before and after the post-net, and whether to stop."""
        frames, corrected, stops = outputs
        stop = binary_cross_entropy_with_logits(stops, torch.zeros_like(stops))
        return mse_loss(frames, inputs["mel"]) + mse_loss(corrected, inputs["mel"]) + stop


def tacotron2() -> Tacotron2:
    """Tacotron 2 for LJSpeech."""
    return Tacotron2()
