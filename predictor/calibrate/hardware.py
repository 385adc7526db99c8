"""Accelerators as tables spell them."""

import re
from functools import cache

from predictor.calibrate.case import RowError
from predictor.errors import InputError
from predictor.profile import Accelerator, find_profile

# Spellings that are not an alias of one profile everywhere: the variant is what that source ran on. A bare
# V100 is the SXM2 board of 16 GB, the first and that of cloud instances; "A100-SXM4" of MLPerf v0.7 to v1.0
# had 40 GB, the only size of its first months; GK210 is one die of a K80, which is what software sees.
_SPELLINGS = {
    "V100": "V100-SXM2-16GB",
    "V100-16GB": "V100-SXM2-16GB",
    "V100-32GB": "V100-SXM2-32GB",
    "V100-16/32GB": "V100-SXM2-16GB",
    "V100-SXM2": "V100-SXM2-16GB",
    "V100-SXM3-32GB-450W (DGX-2H)": "V100-SXM3-32GB",
    "Tesla V100-PCIE-32GB": "V100-PCIe-32GB",
    "A100-SXM4": "A100-SXM4-40GB",
    "NVIDIA_A100-PCIE-40GB": "A100-PCIe-40GB",
    "NVIDIA_A100_80GB_PCIe": "A100-PCIe-80GB",
    "H100-PCIe": "H100-PCIe-80GB",
    "H100-PCIe-80GB (Gen5)": "H100-PCIe-80GB",
    "K80 (GK210, one die)": "K80",
    "Trainium1 (NeuronCore-v2 x2 per chip)": "trainium1",
    "TPU v6e (Trillium)": "TPU v6e",
    "MI300X-class (see origin)": "MI300X",
    "1080Ti": "GTX 1080 Ti",
}
# Names under which the table pools several chips.
_SEVERAL = re.compile(r"^(A100|GH200|TPU|IPU|TPUv3/TPUv4|TPUv5e/.*|CPU-only)$", re.IGNORECASE)


def accelerator_id(text: str) -> str:
    """Profile id of an accelerator as a table writes it; RowError says why there is none."""
    name = text.strip()
    if not name:
        raise RowError("accelerator-unknown", "no accelerator")
    if _SEVERAL.match(name):
        raise RowError("accelerator", f"'{name}' means several variants")
    found = _find(_SPELLINGS.get(name, name))
    if found is None:
        raise RowError("accelerator", f"'{name}'")
    return found


@cache
def _find(name: str) -> str | None:
    spellings = (name, name.replace("_", " "), re.sub(r"\s*\(.*\)$", "", name), name.replace(" ", "-"))
    for spelling in dict.fromkeys(spellings):
        try:
            return find_profile(spelling).id
        except InputError:
            continue
    return None


@cache
def find_accelerator(id_: str) -> Accelerator:
    """The profile of this id."""
    return find_profile(id_)
