"""Which blocks of a module are equal, so that recording one of them is enough."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn

# Attributes that number a block; in transformers they find its place in a cache, and what depends on the
# place is an attribute of its own.
_NUMBERS = {"layer_idx", "layer_id", "layer_index", "layer_number", "block_idx"}
# Probabilities of dropping: only whether they are zero matters.
_CHANCES = {"p", "drop_prob", "dropout", "attention_dropout", "dropout_p", "drop_path_prob"}
_OF_EVERY_MODULE = set(vars(nn.Module()))
_PLAIN = (int, float, str, bool, type(None), torch.dtype, torch.Size)
_FEWEST = 3


def signature(module: nn.Module) -> Any:
    """What makes two blocks equal: classes, attributes that matter, weights and buffers, all the way down.

    Numbers of a layer do not matter; of a drop probability only whether it is zero; an object of any other
    kind counts as itself.
    """
    weights = tuple(
        (name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in module.named_parameters(recurse=False)
    )
    buffers = tuple((name, tuple(t.shape), t.dtype) for name, t in module.named_buffers(recurse=False))
    numbers = _NUMBERS if type(module).__module__.startswith("transformers.") else set()
    attributes = tuple(
        (name, _attribute(name, value, module))
        for name, value in sorted(vars(module).items())
        if name not in _OF_EVERY_MODULE and name not in numbers
    )
    hooks = bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
    children = tuple((name, signature(child)) for name, child in module.named_children())
    return (type(module), hooks and id(module), weights, buffers, attributes, children)


def _attribute(name: str, value: Any, module: nn.Module) -> Any:
    if isinstance(value, float) and name in _CHANCES and 0 <= value < 1:
        return value > 0
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple | list):
        return tuple(_attribute(name, part, module) for part in value)
    return id(value)


def groups_of(module: nn.Module) -> list[list[nn.Module]]:
    """Equal children of one container, at least three; blocks that share weights with others are left out."""
    owners: dict[int, int] = defaultdict(int)
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                owners[id(parameter)] += 1
    found: list[list[nn.Module]] = []
    _collect(module, owners, found)
    return found


def _collect(module: nn.Module, owners: dict[int, int], found: list[list[nn.Module]]) -> None:
    children = list(module.children())
    inside: set[int] = set()
    if isinstance(module, nn.ModuleList | nn.Sequential) and len(children) >= _FEWEST:
        by_signature: dict[Any, list[nn.Module]] = defaultdict(list)
        for child in children:
            alone = all(owners[id(p)] == 1 for p in child.parameters())
            if alone and next(child.children(), None) is not None:
                by_signature[signature(child)].append(child)
        for group in by_signature.values():
            if len(group) >= _FEWEST:
                found.append(group)
                inside |= {id(child) for child in group}
    for child in children:
        if id(child) not in inside:
            _collect(child, owners, found)
