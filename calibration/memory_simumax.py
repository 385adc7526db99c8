"""Peak allocated memory of the Megatron runs in kernels/simumax, predicted from the models' definitions.

Nothing is fitted here. The models are Llama 3 70B with 12 layers, and DeepSeek-V2 with 4 (one dense), whose
latent attention is defined below. bf16 with float32 main gradients, distributed optimizer over data and
context parallel ranks, sequence parallelism, flash attention, fused cross-entropy.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from predictor.frontends import ReadOptions, load_graph
from predictor.ir import Graph
from predictor.memory.peak import lifetimes, replay_stage
from predictor.parallel import Plan
from predictor.stack import find_stack
from predictor.training import RECIPES
from predictor.zoo.llama import Llama, MixtureOfExperts, SwiGLU, rotary_table, rotate

GIB = 2**30


class LatentAttention(nn.Module):
    """Queries, keys and values from compressed vectors: [b, s, h] -> [b, s, h].

    Source: DeepSeek-AI, "DeepSeek-V2", arXiv 2405.04434, section 2.1 and appendix C: 128 heads, keys of
    128 + 64 rotary, values of 128, queries from 1536, keys and values from 512.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_down = nn.Linear(width, 1536, bias=False)
        self.query_norm = nn.RMSNorm(1536)
        self.query_up = nn.Linear(1536, 128 * 192, bias=False)
        self.key_value_down = nn.Linear(width, 512 + 64, bias=False)
        self.key_value_norm = nn.RMSNorm(512)
        self.key_value_up = nn.Linear(512, 128 * 256, bias=False)
        self.out = nn.Linear(128 * 128, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        b, s, _ = x.shape
        cos, sin = (t.to(x.dtype) for t in rotary_table(s, 64, 1e4, x.device))
        query = self.query_up(self.query_norm(self.query_down(x))).view(b, s, 128, 192).transpose(1, 2)
        plain, turned = query.split([128, 64], dim=-1)
        query = torch.cat((plain, rotate(turned, cos, sin)), dim=-1)
        latent, key_turned = self.key_value_down(x).split([512, 64], dim=-1)
        key_value = self.key_value_up(self.key_value_norm(latent)).view(b, s, 128, 256).transpose(1, 2)
        key_plain, value = key_value.split([128, 128], dim=-1)
        key_turned = rotate(key_turned.view(b, s, 1, 64).transpose(1, 2), cos, sin).expand(-1, 128, -1, -1)
        key = torch.cat((key_plain, key_turned), dim=-1)
        mixed = scaled_dot_product_attention(query, key, value.contiguous(), is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, s, -1))
        return out


class Shared(nn.Module):
    """Two experts that see every token beside six of 160 routed ones, each 1,536 wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = SwiGLU(width, 2 * 1536)
        self.routed = MixtureOfExperts(160, 6, width, 1536)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        y: Tensor = self.shared(x) + self.routed(x)
        return y


class DeepSeekLayer(nn.Module):
    """Latent attention and a feed-forward layer, normalised before each."""

    def __init__(self, width: int, mlp: nn.Module) -> None:
        super().__init__()
        self.attention = LatentAttention(width)
        self.mlp = mlp
        self.attention_norm = nn.RMSNorm(width)
        self.mlp_norm = nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.mlp(self.mlp_norm(x))
        return y


def deepseek_v2_l4() -> nn.Module:
    """DeepSeek-V2 with its first, dense, layer and three layers of experts."""
    layers = [DeepSeekLayer(5120, SwiGLU(5120, 12288))]
    layers += [DeepSeekLayer(5120, Shared(5120)) for _ in range(3)]
    head = nn.Linear(5120, 102_400, bias=False)
    return _Language(nn.Embedding(102_400, 5120), nn.ModuleList(layers), nn.RMSNorm(5120), head)


class _Language(nn.Module):
    def __init__(self, tokens: nn.Module, layers: nn.ModuleList, norm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tokens, self.layers, self.norm, self.head = tokens, layers, norm, head

    def forward(self, ids: Tensor) -> Tensor:
        """[b, s] -> [b, s, vocabulary]."""
        x = self.tokens(ids)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def llama3_70b_l12() -> nn.Module:
    """Llama 3 70B with 12 layers."""
    return Llama(layers=12, width=8192, heads=64, kv_heads=8, inner=28672, vocabulary=128_256, theta=5e5)


MODELS = {"llama3_70b": llama3_70b_l12, "deepseekv2": deepseek_v2_l4}


@dataclass(frozen=True)
class Layout:
    """One distinct layout: measured and predicted peak of allocated bytes [GiB], largest named terms."""

    name: str
    rows: int
    measured: float
    predicted: float
    parts: dict[str, int]

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1


def simumax_layouts(folder: Path) -> list[Layout]:
    """Predict every layout; rows that differ in the number of micro-batches alone have one peak."""
    with (folder / "kernels" / "simumax" / "b200_e2e.csv").open() as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(
            tuple(row[k] for k in ("model", "tp", "pp", "dp", "ep", "cp", "seq_len")), []
        ).append(row)
    graphs: dict[tuple[str, str], Graph] = {}
    found = []
    for key, same in groups.items():
        model, length = key[0], key[-1]
        if (model, length) not in graphs:
            options = ReadOptions(batch=1, seq_len=int(length), precision="bf16", inputs=["int64[B,S]"])
            graphs[model, length] = load_graph(MODELS[model], options)
        found.append(_layout(graphs[model, length], key, same))
    return found


def _layout(graph: Graph, key: tuple[str, ...], rows: list[dict[str, str]]) -> Layout:
    tp, pp, dp, ep, cp = (int(k) for k in key[1:6])
    plan = Plan(dp, tp, pp, ep, cp, 1, "none", 1, int(rows[0]["num_micro_batches"]))
    stack, recipe = find_stack("megatron-fused"), RECIPES["bf16"]
    tape = lifetimes(graph, plan, stack, recipe, train=True)
    stages = [replay_stage(graph, tape, plan, stack, recipe, "adam", True, s) for s in {0, pp - 1}]
    most = max(stages, key=lambda found: found.allocated)
    name = f"{key[0]} tp{tp} pp{pp} dp{dp} ep{ep} cp{cp} s{key[6]}"
    measured = float(rows[0]["measured_peak_alloc_gib"])
    return Layout(name, len(rows), measured, most.allocated / GIB, most.parts)
