"""Import torchvision, and what imports it, also where its native library does not load.

Such a torchvision stops at "operator torchvision::nms does not exist". Nothing is executed here, so it
is enough to declare the schemas it registers shapes for.
"""

import importlib
import importlib.util
import sys
from typing import Any

import torch

from predictor.errors import InputError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []


def import_vision(name: str) -> Any:
    """Import ``name`` from timm or torchvision; raises InputError when it is not installed."""
    ensure_torchvision()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error}; install it with: pip install 'predictor[vision]'") from None


def ensure_torchvision() -> None:
    """Make an installed torchvision importable; does nothing when there is none."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
    for part in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        del sys.modules[part]
    importlib.import_module("torchvision")
