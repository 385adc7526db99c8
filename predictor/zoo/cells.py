"""Networks of repeated cells that architecture searches measured: NAS-Bench-101 and NAS-Bench-201."""

import torch
from torch import Tensor, nn

Edges = tuple[tuple[int, ...], ...]


def _conv(before: int, after: int, side: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, side // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class _Vertex(nn.Module):
    """One operation of a cell; its inputs are summed, those from the cell's input projected first."""

    def __init__(self, name: str, before: int, width: int, projected: bool) -> None:
        super().__init__()
        self.project = _conv(before, width, 1) if projected else None
        if name == "maxpool3x3":
            self.operation: nn.Module = nn.MaxPool2d(3, 1, 1)
        else:
            self.operation = _conv(width, width, 3 if "3x3" in name else 1)

    def forward(self, start: Tensor, others: list[Tensor]) -> Tensor:
        """[b, c, h, w] of the cell's input and of earlier vertices -> [b, width, h, w]."""
        terms = list(others)
        if self.project is not None:
            terms.append(self.project(start))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        out: Tensor = self.operation(total)
        return out


class Cell101(nn.Module):
    """A cell of NAS-Bench-101: outputs of the vertices that reach the end are concatenated.

    The output's channels are shared out among the vertices that lead to it, the first ones taking what does
    not divide; each vertex is as wide as the widest it leads to; an edge from input to output adds a
    projection.

    Source: Ying et al., "NAS-Bench-101", ICML 2019, section 2 and the authors' ``model_spec``.
    """

    def __init__(self, edges: Edges, operators: tuple[str, ...], before: int, after: int) -> None:
        super().__init__()
        self.edges = edges
        last = len(operators) - 1
        widths = vertex_widths(edges, after)
        self.vertices = nn.ModuleDict(
            {str(v): _Vertex(operators[v], before, widths[v], bool(edges[0][v])) for v in range(1, last)}
        )
        self.widths = widths
        self.across = _conv(before, after, 1) if edges[0][last] else None

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, h, w] -> [b, after, h, w]."""
        last = len(self.edges) - 1
        found: dict[int, Tensor] = {}
        for v in range(1, last):
            sources = [found[u][:, : self.widths[v]] for u in range(1, v) if self.edges[u][v]]
            found[v] = self.vertices[str(v)](x, sources)
        ends = [found[v] for v in range(1, last) if self.edges[v][last]]
        if not ends:
            assert self.across is not None
            alone: Tensor = self.across(x)
            return alone
        out = torch.cat(ends, dim=1) if len(ends) > 1 else ends[0]
        return out + self.across(x) if self.across is not None else out


def vertex_widths(edges: Edges, after: int) -> list[int]:
    """Channels of every vertex of a NAS-Bench-101 cell.

    >>> vertex_widths(((0, 1, 1, 0), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0)), 129)
    [0, 65, 64, 129]
    """
    last = len(edges) - 1
    widths = [0] * last + [after]
    ends = [v for v in range(1, last) if edges[v][last]]
    share, rest = divmod(after, len(ends)) if ends else (after, 0)
    for place, v in enumerate(ends):
        widths[v] = share + (place < rest)
    for v in range(last - 1, 0, -1):
        if not edges[v][last]:
            widths[v] = max((widths[w] for w in range(v + 1, last) if edges[v][w]), default=0)
    return widths


def bench101(edges: Edges, operators: tuple[str, ...]) -> nn.Sequential:
    """The network of a NAS-Bench-101 cell: images [b, 3, 32, 32] -> [b, 10].

    A stem of 128 channels, three stacks of three cells, halved by pooling and doubled in width between them.
    """
    modules: list[nn.Module] = [_conv(3, 128, 3)]
    before, after = 128, 128
    for stack in range(3):
        if stack:
            modules.append(nn.MaxPool2d(2, 2))
            after *= 2
        for _ in range(3):
            modules.append(Cell101(edges, operators, before, after))
            before = after
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class _Edge(nn.Sequential):
    """ReLU, convolution, batch norm: an edge of a NAS-Bench-201 cell."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__(
            nn.ReLU(), nn.Conv2d(width, width, side, 1, side // 2, bias=False), nn.BatchNorm2d(width)
        )


def _edge(name: str, width: int) -> nn.Module | None:
    """The operation of this name, None for no edge; raises KeyError for an unknown name."""
    made: dict[str, nn.Module | None] = {
        "none": None,
        "skip_connect": nn.Identity(),
        "avg_pool_3x3": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        "nor_conv_1x1": _Edge(width, 1) if name == "nor_conv_1x1" else None,
        "nor_conv_3x3": _Edge(width, 3) if name == "nor_conv_3x3" else None,
    }
    return made[name]


class Cell201(nn.Module):
    """A cell of NAS-Bench-201: each node is the sum of its edges from all nodes before.

    Source: Dong and Yang, "NAS-Bench-201", ICLR 2020, section 2.1.
    """

    def __init__(self, nodes: tuple[tuple[str, ...], ...], width: int) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(
            nn.ModuleList(edge if (edge := _edge(name, width)) is not None else _Nothing() for name in node)
            for node in nodes
        )

    def forward(self, x: Tensor) -> Tensor:
        """[b, width, h, w] -> the last node, of the same shape."""
        found = [x]
        for node in self.nodes:
            assert isinstance(node, nn.ModuleList)
            terms = [edge(y) for edge, y in zip(node, found, strict=True) if not isinstance(edge, _Nothing)]
            total = terms[0] if terms else torch.zeros_like(x)
            for term in terms[1:]:
                total = total + term
            found.append(total)
        return found[-1]


class _Nothing(nn.Module):
    """An edge that is not there."""


class _Halving(nn.Module):
    """A residual block that halves the image and doubles the width."""

    def __init__(self, before: int) -> None:
        super().__init__()
        after = 2 * before
        self.first = nn.Sequential(
            nn.ReLU(), nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)
        )
        self.second = _Edge(after, 3)
        self.across = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, h, w] -> [b, 2 before, h/2, w/2]."""
        out: Tensor = self.across(x) + self.second(self.first(x))
        return out


def bench201(cell: str) -> nn.Sequential:
    """The network of a NAS-Bench-201 cell: images [b, 3, 32, 32] -> [b, 10].

    cell  one node after another, each with its edges: "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|..."

    A stem of 16 channels, three stages of five cells with a residual block between them.
    """
    nodes = tuple(
        tuple(edge.partition("~")[0] for edge in node.strip("|").split("|")) for node in cell.split("+")
    )
    modules: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)]
    width = 16
    for stage in range(3):
        if stage:
            modules.append(_Halving(width))
            width *= 2
        modules += [Cell201(nodes, width) for _ in range(5)]
    ends = (nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(*modules, *ends)
