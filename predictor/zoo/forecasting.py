"""Temporal Fusion Transformer: hours ahead from days before.

Source: Lim et al., "Temporal Fusion Transformers for Interpretable Multi-horizon Time Series Forecasting",
International Journal of Forecasting 2021; sizes as in github.com/NVIDIA/DeepLearningExamples,
PyTorch/Forecasting/TFT: width 128, four heads, 168 hours seen and 24 predicted, three known series, one
target, one static label.

Series are [b, s, variables]; hidden states [b, s, width].
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, glu

SEEN = 168  # hours of the 192
KNOWN = 3
QUANTILES = (0.1, 0.5, 0.9)


class Gated(nn.Module):
    """Gated linear unit: [..., before] -> [..., after]."""

    def __init__(self, before: int, after: int) -> None:
        """Twice ``after`` inside."""
        super().__init__()
        self.linear = nn.Linear(before, 2 * after)

    def forward(self, x: Tensor) -> Tensor:
        """[..., before] -> [..., after]."""
        return glu(self.linear(x))


class GatedResidual(nn.Module):
    """Two layers, a gate, a shortcut, normalisation: [..., before] -> [..., after]."""

    def __init__(
        self, before: int, width: int, after: int | None = None, context: bool = False, dropout: float = 0.0
    ) -> None:
        """``after``: as the input when not given; ``context``: a vector [b, width] joins."""
        super().__init__()
        self.first = nn.Linear(before, width)
        self.context = nn.Linear(width, width, bias=False) if context else None
        self.second = nn.Linear(width, width)
        self.gate = Gated(width, after or width)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Linear(before, after) if after else nn.Identity()
        self.norm = nn.Identity() if after == 1 else nn.LayerNorm(after or width, 1e-3)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[..., before] -> [..., after]."""
        y = self.first(x)
        if self.context is not None and context is not None:
            y = y + self.context(context).unsqueeze(1)
        y = self.gate(self.dropout(self.second(elu(y))))
        out: Tensor = self.norm(y + self.shortcut(x))
        return out


class Selection(nn.Module):
    """Weighs the variables of each moment: [..., variables, width] -> [..., width]."""

    def __init__(self, variables: int, width: int, dropout: float, context: bool) -> None:
        """One gated residual network per variable, and one for the weights."""
        super().__init__()
        self.weights = GatedResidual(variables * width, width, variables, context)
        self.each = nn.ModuleList(GatedResidual(width, width, dropout=dropout) for _ in range(variables))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[..., variables, width] -> [..., width]."""
        weights = self.weights(x.flatten(-2), context).softmax(dim=-1)
        mixed = torch.stack([net(part) for net, part in zip(self.each, x.unbind(-2), strict=True)], dim=-1)
        out: Tensor = (mixed @ weights.unsqueeze(-1)).squeeze(-1)
        return out


class SharedAttention(nn.Module):
    """Causal attention whose heads share their values and are averaged: [b, s, width] -> [b, s, width]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """``heads`` of width / heads."""
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv = nn.Linear(width, (2 * heads + 1) * self.size, bias=False)
        self.out = nn.Linear(self.size, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        inner = self.heads * self.size
        q, k, v = self.qkv(x).split((inner, inner, self.size), dim=-1)
        q, k = (t.unflatten(-1, (self.heads, self.size)).transpose(1, 2) for t in (q, k))
        mask = torch.full((x.shape[1],) * 2, -torch.inf, device=x.device).triu(1)
        weights = (q @ k.mT * self.size**-0.5 + mask).softmax(dim=-1)
        out: Tensor = self.dropout(self.out((weights @ v.unsqueeze(1)).mean(dim=1)))
        return out


class TemporalFusion(nn.Module):
    """Variable selection, an LSTM before and after now, attention, quantiles."""

    def __init__(
        self, labels: int, width: int = 128, heads: int = 4, dropout: float = 0.1, seen: int = SEEN
    ) -> None:
        """``labels`` of the static variable; ``seen`` hours come before the predicted ones."""
        super().__init__()
        self.seen = seen
        self.label = nn.Embedding(labels, width)
        self.scale = nn.Parameter(torch.randn(KNOWN + 1, width))
        self.shift = nn.Parameter(torch.zeros(KNOWN + 1, width))
        self.static = Selection(1, width, dropout, context=False)
        self.contexts = nn.ModuleList(GatedResidual(width, width, dropout=dropout) for _ in range(4))
        self.past, self.future = (Selection(n, width, dropout, context=True) for n in (KNOWN + 1, KNOWN))
        self.read, self.write = (nn.LSTM(width, width, batch_first=True) for _ in range(2))
        self.input_gate, self.attention_gate, self.output_gate = (Gated(width, width) for _ in range(3))
        self.input_norm, self.attention_norm, self.output_norm = (nn.LayerNorm(width, 1e-3) for _ in range(3))
        self.enrich = GatedResidual(width, width, context=True, dropout=dropout)
        self.attention = SharedAttention(width, heads, dropout)
        self.feed = GatedResidual(width, width, dropout=dropout)
        self.head = nn.Linear(width, len(QUANTILES))

    def forward(self, label: Tensor, known: Tensor, target: Tensor) -> Tensor:
        """label [b], known [b, s, 3], target [b, s, 1] -> quantiles [b, predicted, 3]."""
        series = torch.cat((known, target), dim=-1).unsqueeze(-1) * self.scale + self.shift
        select, enrich, state, cell = (
            net(self.static(self.label(label).unsqueeze(1))) for net in self.contexts
        )
        past = self.past(series[:, : self.seen], select)
        future = self.future(series[:, self.seen :, :KNOWN], select)
        read, states = self.read(past, (state.unsqueeze(0), cell.unsqueeze(0)))
        written = self.write(future, states)[0]
        x = self.input_gate(torch.cat((read, written), dim=1))
        x = self.input_norm(x + torch.cat((past, future), dim=1))
        enriched = self.enrich(x, enrich)
        y = self.attention(enriched)[:, self.seen :]
        y = self.attention_norm(self.attention_gate(y) + enriched[:, self.seen :])
        y = self.output_norm(self.output_gate(self.feed(y)) + x[:, self.seen :])
        out: Tensor = self.head(y)
        return out

    def loss(self, outputs: Tensor, **inputs: Tensor) -> Tensor:
        """Pinball loss of each quantile."""
        miss = inputs["target"][:, self.seen :] - outputs
        quantiles = outputs.new_tensor(QUANTILES)
        return torch.maximum(quantiles * miss, (quantiles - 1) * miss).mean(dim=(0, 1)).sum()


def tft_electricity() -> TemporalFusion:
    """TFT for the Electricity data: 369 households."""
    return TemporalFusion(369)


def tft_traffic() -> TemporalFusion:
    """TFT for the Traffic data: 963 sensors, dropout 0.3."""
    return TemporalFusion(963, dropout=0.3)
