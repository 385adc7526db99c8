"""What people write as hardware, what it means, what it is charged, and what is refused."""

import csv
import os
from pathlib import Path

import pytest

from predictor.errors import InputError
from predictor.machine import (
    COLUMNS,
    NODES_CSV,
    PSU_EFFICIENCY,
    build_machine,
    find_node,
    list_nodes,
    read_nodes,
)
from predictor.profile import find_profile, list_profiles
from predictor.units import BIT, GIGA
from predictor.values import STATUSES, Sourced

NODES = list_nodes()


# --- the contract over every row ---------------------------------------------------------------------


@pytest.fixture(params=NODES, ids=[node.id for node in NODES])
def node(request):
    return request.param


def test_node_fits_its_accelerator(node):
    accelerator = find_profile(node.accelerator)
    assert accelerator.id == node.accelerator
    assert 1 <= node.per_node <= 16
    if node.power_of == node.id:
        assert node.per_node == accelerator.per_node


def test_node_figures_have_source_status_and_range(node):
    figures = [getattr(node, name) for name in node.__dataclass_fields__]
    for figure in (f for f in figures if isinstance(f, Sourced)):
        assert figure.source
        assert figure.status in STATUSES
        assert 0 <= figure.low <= figure.value <= figure.high
        assert (figure.status == "estimate") <= figure.source.startswith("estimate:")


def test_whole_node_has_power_and_manufacture(node):
    if node.power_of == node.id:
        assert 100 < node.host_w.value < 3000
        assert 0.9 <= node.psu_efficiency.low <= node.psu_efficiency.high <= 1
        assert 500 < node.server_embodied_kgco2e.value < 10_000


def test_every_spelling_builds_the_machine(node):
    for name in (node.id, *node.names, *(name.lower() for name in node.names)):
        machine = build_machine(name)
        assert machine.accelerator.id == node.accelerator
        assert (machine.count, machine.nodes) == (node.per_node, 1)


@pytest.mark.parametrize("id_", list_profiles())
def test_every_accelerator_builds_alone_and_over_nodes(id_):
    one, many = build_machine(id_), build_machine(id_, nodes=3)
    assert (one.count, one.nodes, one.per_node) == (1, 1, 1)
    assert many.count == 3 * many.per_node
    assert many.node_host_w.value == pytest.approx(many.per_node * one.node_host_w.value)
    assert 10 * 1e6 < many.internode_byte_per_s.value <= many.intranode_byte_per_s.value
    assert 0 < one.node_host_w.low <= one.node_host_w.high


# --- what the words mean -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hardware", "count", "nodes", "expected"),
    [
        ("h100", None, None, (1, 1, 1)),
        ("h100", 8, None, (8, 1, 8)),
        ("h100", 8, 1, (8, 1, 8)),
        ("h100", 3, 1, (3, 1, 3)),
        ("h100", 9, None, (9, 2, 8)),
        ("h100", None, 4, (32, 4, 8)),
        ("8x h100", None, None, (8, 1, 8)),
        ("16X H100 SXM", None, None, (16, 2, 8)),
        ("8 x h100", 8, None, (8, 1, 8)),
        ("aws:p5.48xlarge", None, None, (8, 1, 8)),
        ("aws:p5.48xlarge", 2, None, (16, 2, 8)),
        ("aws:p5.48xlarge", None, 2, (16, 2, 8)),
        ("2x aws:p5.48xlarge", None, 2, (16, 2, 8)),
        ("aws:g5.xlarge", 3, None, (3, 3, 1)),
        ("olcf-summit-node", 2, None, (12, 2, 6)),
        ("tpu-v4", 8, None, (8, 2, 4)),
        ("8x mi250x", None, None, (8, 1, 8)),
    ],
)
def test_hardware_count_and_nodes(hardware, count, nodes, expected):
    machine = build_machine(hardware, count, nodes)
    assert (machine.count, machine.nodes, machine.per_node) == expected


INSTANCES = {
    "aws:p3.16xlarge": ("nvidia-v100-sxm2-16gb", 8, 25),
    "aws:p3dn.24xlarge": ("nvidia-v100-sxm2-32gb", 8, 100),
    "aws:p4d.24xlarge": ("nvidia-a100-sxm4-40gb", 8, 400),
    "aws:p4de.24xlarge": ("nvidia-a100-sxm4-80gb", 8, 400),
    "aws:p5.48xlarge": ("nvidia-h100-sxm5-80gb", 8, 3200),
    "aws:g5.xlarge": ("nvidia-a10g", 1, 10),
    "azure:Standard_ND96isr_H100_v5": ("nvidia-h100-sxm5-80gb", 8, 3200),
    "azure:ND96amsr_A100_v4": ("nvidia-a100-sxm4-80gb", 8, 1600),
    "gcp:a3-highgpu-8g": ("nvidia-h100-sxm5-80gb", 8, 800),
    "gcp:a2-highgpu-8g": ("nvidia-a100-sxm4-40gb", 8, 100),
    "gcp:ct5p-hightpu-4t": ("google-tpu-v5p", 4, 200),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_cloud_instances_have_their_own_network(name):
    accelerator, per_node, gbit_s = INSTANCES[name]
    node = find_node(name)
    assert (node.accelerator, node.per_node) == (accelerator, per_node)
    assert node.internode_byte_per_s.value == gbit_s * GIGA * BIT


def test_network_is_shared_by_the_accelerators_of_the_node():
    assert build_machine("aws:p4d.24xlarge", 2).internode_byte_per_s.value == 400 * GIGA * BIT / 8


def test_tpu_hosts_of_one_pod_talk_over_its_fabric():
    chip = find_profile("tpu-v5e")
    assert chip.fabric_size == 256
    assert build_machine("tpu-v5e", 256).internode_byte_per_s.value == 200 * GIGA
    assert build_machine("tpu-v5e", 512).internode_byte_per_s.value == 200 * GIGA * BIT / 8


# --- what a job is charged ---------------------------------------------------------------------------


def test_eight_h100_have_the_metered_host():
    machine = build_machine("8x h100")
    assert (machine.node_host_w.low, machine.node_host_w.value, machine.node_host_w.high) == (
        1400,
        1700,
        2100,
    )
    assert machine.node_fan_w.value == 700
    assert machine.psu_efficiency.value == 0.972
    assert machine.notes == ()


def test_node_power_formula_meets_the_metered_node():
    """Immersion-cooled 8x H100, MLPerf Training v4.0: 6846 to 7204 W AC, no fans, boards at 0.93 of 700 W."""
    machine = build_machine("8x h100")
    node_ac_w = (8 * 0.93 * 700 + machine.node_host_w.value) / machine.psu_efficiency.value
    assert node_ac_w == pytest.approx(7045, rel=0.02)


def test_part_of_a_node_is_charged_its_share():
    whole, part = build_machine("8x h100"), build_machine("2x h100")
    for name in ("node_host_w", "node_fan_w", "server_embodied_kgco2e"):
        assert getattr(part, name).value == pytest.approx(getattr(whole, name).value * 2 / 8)
    assert part.psu_efficiency == whole.psu_efficiency
    assert [topic for topic, _, _ in part.notes] == ["part of a node"]
    assert "2 of 8" in part.notes[0][1]


def test_every_host_of_a_partly_filled_cluster_is_charged_whole():
    machine = build_machine("12x h100")
    assert machine.node_host_w.value == 1700
    assert [topic for topic, _, _ in machine.notes] == ["part of a node"]


def test_host_nobody_metered_is_a_wide_estimate_in_the_notes():
    machine = build_machine("rtx 3090")
    assert machine.node_host_w.value == 60 + 0.20 * 350
    assert machine.node_host_w.high == 2 * machine.node_host_w.value
    assert machine.node_host_w.status == "estimate"
    assert machine.psu_efficiency is PSU_EFFICIENCY
    assert [topic for topic, _, _ in machine.notes] == ["host power"]


def test_estimated_host_of_a_known_node_is_told():
    topics = [(topic, text) for topic, text, _ in build_machine("8x a100-80gb").notes]
    assert topics == [("host power", topics[0][1])]
    assert "1500 W (1000 to 1900) per node" in topics[0][1]


def test_unknown_network_between_nodes_is_told():
    machine = build_machine("rtx 3090", 16)
    assert machine.internode_byte_per_s.status == "estimate"
    assert "network" in [topic for topic, _, _ in machine.notes]


@pytest.mark.parametrize(("name", "system_w"), [("tpu-v3", 285), ("tpu-v4", 350)])
def test_tpu_host_and_mean_chip_add_up_to_the_system_watts(name, system_w):
    """Published mean per chip: v3 220 W, v4 170 W; system watts per chip within 15 %."""
    machine = build_machine(name, 4)
    assert machine.system_w.value == system_w
    assert machine.system_w.low == pytest.approx(0.85 * system_w, rel=0.02)
    chip_w = {"tpu-v3": 220, "tpu-v4": 170}[name]
    total_w = (
        4 * chip_w + machine.node_host_w.value + machine.node_fan_w.value
    ) / machine.psu_efficiency.value
    assert total_w / 4 == pytest.approx(system_w, rel=0.01)


def test_only_tpu_have_system_watts():
    assert build_machine("8x h100").system_w is None


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hardware", "count", "nodes", "message"),
    [
        ("8x h100", 4, None, "'8x h100' says 8 and count says 4; give one of them"),
        ("h100", 9, 1, r"9 of 'h100' fill 2 node\(s\) of 8, not 1; give nodes=2, or a count from 1 to 8"),
        ("h100", 8, 2, "give nodes=1, or a count from 9 to 16"),
        ("aws:p5.48xlarge", 2, 3, "2 of 'aws:p5.48xlarge' are 2 nodes, not 3"),
        ("aws:p5.49xlarge", None, None, "unknown cloud instance 'aws:p5.49xlarge'; did you mean"),
        ("h10", None, None, "unknown accelerator 'h10'; did you mean 'h100'"),
        ("8x", None, None, "unknown accelerator '8x'"),
        ("h100", 0, None, "must be at least 1"),
        ("h100", None, -1, "must be at least 1"),
        ("0x h100", None, None, "must be at least 1"),
    ],
)
def test_contradictions_and_unknown_names_are_refused(hardware, count, nodes, message):
    with pytest.raises(InputError, match=message):
        build_machine(hardware, count, nodes)


ROW = dict.fromkeys(COLUMNS.split(), "") | {
    "id": "acme-node",
    "accelerator": "nvidia-l4",
    "per_node": "8",
    "names": "acme:x8",
    "power_of": "acme-node",
    "host_w": "900 (600-1300)",
    "fan_w": "100",
    "psu_efficiency": "0.95",
    "power_source": "our meter",
    "power_status": "verified",
    "server_kgco2e": "1800",
    "server_source": "maker",
    "server_status": "verified",
    "as_of": "2026-11-20",
}


@pytest.fixture
def table(tmp_path):
    def write(*rows: dict[str, str], header: str = COLUMNS) -> Path:
        path = tmp_path / "nodes.csv"
        with path.open("w", newline="") as lines:
            lines.write("# a comment\n")
            writer = csv.DictWriter(lines, header.split(), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def test_a_good_row_is_read(table):
    node = read_nodes(table(ROW))["acme-node"]
    assert (node.host_w.low, node.host_w.value, node.host_w.high) == (600, 900, 1300)
    assert node.internode_byte_per_s is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host_w": "900 (1000-1300)"}, "host_w: low 1000.0 <= value 900.0"),
        ({"host_w": "900-1300"}, r"host_w is '900-1300'; write 1700 or 1700 \(1400-2100\)"),
        ({"power_source": ""}, "host_w needs power_source"),
        ({"power_status": "sure"}, "power_status out of verified"),
        ({"per_node": "none"}, "per_node is 'none'"),
        ({"power_of": "other"}, "power_of 'other' is no row with host_w"),
    ],
)
def test_a_faulty_row_is_refused_with_file_and_column(table, change, message):
    with pytest.raises(InputError, match=message) as refusal:
        read_nodes(table(ROW | change))
    assert str(refusal.value).startswith("nodes.csv: acme-node: ")


def test_a_name_of_two_nodes_is_refused(table):
    with pytest.raises(InputError, match="'acme:x8' belongs to both acme-node and other"):
        read_nodes(table(ROW, ROW | {"id": "other"}))


def test_an_unknown_column_is_refused(table):
    with pytest.raises(InputError, match=r"nodes\.csv: columns differ in colour"):
        read_nodes(table(ROW, header=COLUMNS + " colour"))


# --- against the tables the figures were taken from --------------------------------------------------

TAKEN_FROM = {  # our row -> row of hardware/nodes.csv, where the name differs
    "aws-trn1-node": "aws-trn1-32xlarge",
    "azure-standard-nd96amsr-a100-v4": "azure-nd96amsr-a100-v4",
    "azure-standard-nd96isr-h100-v5": "azure-nd96isr-h100-v5",
    "azure-standard-nd96isr-h200-v5": "azure-nd96isr-h200-v5",
    "azure-standard-nd96isr-mi300x-v5": "azure-nd96isr-mi300x-v5",
    "gcp-ct5lp-hightpu-8t": "gcp-tpu-v5e-host",
    "gcp-ct5p-hightpu-4t": "gcp-tpu-v5p-host",
}


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
def test_networks_are_those_of_the_source_table():
    with (Path(os.environ["PREDICTOR_DATA"]) / "hardware" / "nodes.csv").open(newline="") as lines:
        source = {row["id"]: row for row in csv.DictReader(lines)}
    compared = 0
    for node in NODES:
        row = source.get(TAKEN_FROM.get(node.id, node.id))
        if row is None:
            continue
        dies = 2 if node.accelerator == "amd-mi250x" else 1
        assert row["accelerator_id"] == node.accelerator
        assert int(row["accelerators_per_node"]) * dies == node.per_node
        if row["internode_gbit_s_per_node"]:
            assert node.internode_byte_per_s.value == float(row["internode_gbit_s_per_node"]) * GIGA * BIT
        if row["intranode_gb_s_per_direction_per_accelerator"]:
            assert (
                node.intranode_byte_per_s.value
                == float(row["intranode_gb_s_per_direction_per_accelerator"]) * GIGA
            )
        compared += 1
    assert compared >= 30


def test_the_readme_explains_every_column():
    text = (
        (NODES_CSV.parent / "README.md")
        .read_text(encoding="utf-8")
        .split("## nodes.csv")[1]
        .split("\n## ")[0]
    )
    assert all(f"`{column}`" in text for column in COLUMNS.split())
