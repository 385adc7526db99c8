"""Networks given by a list: layer after layer, for tables of generated models."""

from torch import nn


def chain(width: int, layers: tuple[tuple[str, int], ...]) -> nn.Sequential:
    """Layers one after the other on vectors: [b, width] -> [b, last width].

    layers  pairs of a kind and its width: "linear" and "batch_normalization" take theirs, "dropout" drops
            0.3, any other kind is the name of an activation of ``torch.nn``

    >>> sum(p.numel() for p in chain(3, (("linear", 4), ("ReLU", 4), ("linear", 2))).parameters())
    26
    """
    modules: list[nn.Module] = []
    last = width
    for kind, size in layers:
        if kind == "linear":
            modules.append(nn.Linear(last, size))
            last = size
        elif kind == "batch_normalization":
            modules.append(nn.BatchNorm1d(last))
        elif kind == "dropout":
            modules.append(nn.Dropout(0.3))
        elif kind == "Softmax":
            modules.append(nn.Softmax(dim=1))
        else:
            modules.append(getattr(nn, kind)())
    return nn.Sequential(*modules)
