"""What the comparison with the source tables shares: how a table is read, what a difference is, and which
column of a source table holds which figure of ours."""

import csv
from dataclasses import dataclass
from pathlib import Path

CLOSE = 1e-3
"""Relative difference below which two figures are the same one, rounded."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure or word that is not the same on both sides; ``note`` is ours, empty when there is none."""

    file: str
    key: str
    ours: str
    theirs: str
    note: str = ""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table; lines that start with # are comments, a missing table has no rows."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def table(found: list[Difference]) -> list[str]:
    """The differences as Markdown."""
    cells = [(d.file, d.key, d.ours, d.theirs, d.note) for d in found]
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    return ["| file | key | ours | theirs | our note |", "| --- | --- | --- | --- | --- |", *lines]


FIGURES = {
    "peak.fp64": ("peak_fp64_tflops", "TFLOP/s"),
    "peak.fp64_matrix": ("peak_fp64_matrix_tflops", "TFLOP/s"),
    "peak.fp32": ("peak_fp32_tflops", "TFLOP/s"),
    "peak.tf32": ("peak_tf32_tflops", "TFLOP/s"),
    "peak.fp16": ("peak_fp16_matrix_tflops", "TFLOP/s"),
    "peak.fp16_vector": ("peak_fp16_vector_tflops", "TFLOP/s"),
    "peak.bf16": ("peak_bf16_matrix_tflops", "TFLOP/s"),
    "peak.fp8": ("peak_fp8_matrix_tflops", "TFLOP/s"),
    "peak.fp4": ("peak_fp4_matrix_tflops", "TFLOP/s"),
    "peak.int8": ("peak_int8_tops", "TOP/s"),
    "memory.bandwidth": ("memory_bandwidth_gb_s", "GB/s"),
    "cache.onchip": ("onchip_mem_mb", "MB"),
    "compute_units": ("compute_units", ""),
    "clock.boost": ("clock_boost_mhz", "MHz"),
    "link.intranode": ("intranode_gb_s_per_direction", "GB/s"),
    "link.internode": ("internode_gbit_s_per_accelerator", "Gbit/s"),
    "power.limit": ("tdp_w", "W"),
    "power.idle": ("idle_w", "W"),
    "die.process": ("process_nm", "nm"),
    "die.area": ("die_area_mm2", "mm2"),
    "die.transistors": ("transistors_b", "billion"),
    "price.launch": ("price_usd", "USD"),
}
"""Quantities of a profile: column of accelerators.csv and its unit."""

WORDS = {
    "architecture": "architecture",
    "release_date": "release_date",
    "accelerators_per_node": "accelerators_per_node",
    "form_factor": "form_factor",
    "memory_type": "memory_type",
    "cache_kind": "onchip_mem_kind",
    "link_kind": "intranode_link",
    "compute_unit_kind": "compute_unit_kind",
}
"""Words and bare numbers of a profile: column of accelerators.csv."""

NODE_FIGURES = {
    "inside.switches": ("switch_count", ""),
    "inside.bandwidth": ("intranode_gb_s_per_direction_per_accelerator", "GB/s"),
    "between.cards": ("nic_count", ""),
    "between.card_bandwidth": ("nic_gbit_s_each", "Gbit/s"),
    "between.bandwidth": ("internode_gbit_s_per_node", "Gbit/s"),
    "host.cores": ("host_cpu_cores_or_vcpu", ""),
    "host.memory": ("host_memory_gb", "GB"),
    "power.maximum": ("max_node_power_kw", "kW"),
    "power.idle": ("idle_node_power_kw", "kW"),
    "power.training": ("training_node_power_kw", "kW"),
    "price.launch": ("price_usd", "USD"),
}
"""Quantities of a node: column of nodes.csv and its unit."""

INSTANCE_FIGURES = {
    "network": ("internode_gbit_s_per_node", "Gbit/s"),
    "cores": ("host_cpu_cores_or_vcpu", ""),
    "memory": ("host_memory_gb", "GB"),
}
"""Quantities of one size of a cloud family: column of nodes.csv and its unit."""

POD_FIGURES = {
    "fabric.links": ("links_per_accelerator", ""),
    "fabric.link_bandwidth": ("gb_s_per_link_per_direction", "GB/s"),
    "fabric.bandwidth": ("gb_s_per_accelerator_per_direction", "GB/s"),
    "fabric.bisection": ("bisection_tb_s", "TB/s"),
    "fabric.all_reduce": ("all_reduce_tb_s", "TB/s"),
    "fabric.outer": ("outer_network_gbit_s_per_accelerator", "Gbit/s"),
}
"""Quantities of a pod: column of topology.csv and its unit."""
