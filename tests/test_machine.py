"""What people write as hardware, what it means, what it is charged, and what is refused."""

import csv
import os
import re
import shutil
import time
import tomllib
from pathlib import Path

import pytest

from predictor import node_index
from predictor.errors import InputError
from predictor.links import LINK_CLASSES
from predictor.machine import PSU_EFFICIENCY, build_machine, find_node, list_nodes, node_quantities
from predictor.node import SHOWN, instance_id
from predictor.node_file import DIMENSIONS, PER_BOARD, NodeFile
from predictor.profile import find_profile, fold, list_profiles
from predictor.quantity import Quantity, Table
from predictor.units import BIT, GIGA, TERA, UNITS
from predictor.values import STATUSES

NODES = list_nodes()
SHIPPED = node_index.nodes_dirs()[0]
PATHS = sorted(SHIPPED.glob("[!_]*.toml"))


# --- the contract over every file, found by listing --------------------------------------------------


@pytest.fixture(params=NODES, ids=[node.id for node in NODES])
def node(request):
    return request.param


def test_every_file_is_listed():
    assert len(PATHS) >= 66
    listed = {node.id for node in NODES}
    for path in PATHS:
        file = tomllib.loads(path.read_text(encoding="utf-8"))
        assert file["id"] == path.stem
        ids = {instance_id(size["name"]) for size in file.get("instance", ())} or {path.stem}
        assert ids <= listed, path.stem


def test_node_stands_on_a_known_accelerator_and_host(node):
    assert find_profile(node.accelerator).id == node.accelerator
    assert 1 <= node.per_node <= 10_000
    assert node.kind in {"server", "rack", "pod", "instance"}
    if node.power_of:
        assert find_node(node.power_of).accelerator == node.accelerator
    if node.kind in {"server", "rack"} and node.usual:
        accelerator = find_profile(node.accelerator)
        assert node.per_node in {accelerator.per_node, accelerator.fabric_size}


def test_node_figures_have_source_date_status_and_range(node):
    for key, figure in node.figures.items():
        assert figure.source, key
        assert re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", figure.as_of), key
        assert figure.status in STATUSES, key
        assert 0 <= figure.low <= figure.value <= figure.high, key
        assert (figure.status == "estimate") <= figure.source.startswith("estimate:"), key
        assert (figure.status == "estimate") <= (figure.low < figure.high), key


def test_node_power_and_manufacture_are_of_its_size(node):
    """A host draws 30 to 600 W per accelerator and is made of 50 to 1500 kg; more than 100 kW is a rack."""
    if node.host_w and node.vendor != "Cerebras":  # whose limit is that of the whole system
        assert 30 * node.per_node < node.host_w.value < 600 * node.per_node
        assert 0.9 <= node.psu_efficiency.low <= node.psu_efficiency.high <= 1
    if node.server_embodied_kgco2e:
        assert 50 * node.per_node < node.server_embodied_kgco2e.value < 1500 * node.per_node
    maximum = node.figures.get("power.maximum")
    if maximum:
        assert maximum.value > 0.9 * node.per_node * getattr(
            find_profile(node.accelerator).limit_w, "value", 0
        )
        assert (maximum.value >= 100_000) == (node.kind == "rack" and node.per_node >= 72)


def test_node_links_agree(node):
    """Links times the rate of one are the rate of all, within the difference the files name (a quarter)."""
    for place in ("inside", "fabric"):
        parts = [node.figures.get(f"{place}.{name}") for name in ("links", "link_bandwidth", "bandwidth")]
        if all(parts):
            links, each, together = (part.value for part in parts)
            assert links * each == pytest.approx(together, rel=0.25)
    cards, each, together = (
        node.figures.get(f"between.{name}") for name in ("cards", "card_bandwidth", "bandwidth")
    )
    if cards and each and together:
        assert cards.value * each.value == pytest.approx(together.value)
    if node.pair_byte_per_s and node.intranode_byte_per_s:
        assert node.pair_byte_per_s.value <= node.intranode_byte_per_s.value


def test_every_spelling_builds_the_machine(node):
    for name in (node.id, *node.names, *(name.lower() for name in node.names)):
        machine = build_machine(name)
        assert machine.accelerator.id == node.accelerator
        hosts = node.per_node // find_node(node.power_of).per_node if node.kind == "pod" else 1
        assert (machine.count, machine.nodes) == (node.per_node, hosts)


def test_every_figure_is_shown(node):
    shown = node_quantities(node)
    assert len(shown) == len(node.figures)
    for _, figure, unit in shown:
        assert figure in node.figures.values()
        assert unit in UNITS


def test_names_of_nodes_are_no_names_of_accelerators():
    accelerators = {fold(name) for id_ in list_profiles() for name in (id_, *find_profile(id_).aliases)}
    assert not accelerators & {fold(name) for node in NODES for name in (node.id, *node.names)}


def test_an_accelerator_has_one_usual_node_and_one_usual_pod():
    for pods in (False, True):
        usual = [node.accelerator for node in NODES if node.usual and (node.kind == "pod") == pods]
        assert len(usual) == len(set(usual))


@pytest.mark.parametrize("id_", list_profiles())
def test_every_accelerator_builds_alone_and_over_nodes(id_):
    one, many = build_machine(id_), build_machine(id_, nodes=3)
    assert (one.count, one.nodes, one.per_node) == (1, 1, 1)
    assert many.count == 3 * many.per_node
    assert many.node_host_w.value == pytest.approx(many.per_node * one.node_host_w.value)
    assert many.internode_byte_per_s.value > 10 * 1e6
    if many.per_node > 1:
        assert many.internode_byte_per_s.value <= many.intranode_byte_per_s.value
    assert 0 < one.node_host_w.low <= one.node_host_w.high
    wiring = many.wiring
    for latency in (wiring.intranode_latency_s, wiring.internode_latency_s, wiring.internode_hop_s):
        assert 1e-7 < latency.low <= latency.value <= latency.high < 1e-3


def test_one_name_reads_one_file():
    """A plain accelerator must not wait for a hundred node files to be read whole."""
    for cached in (node_index._shipped, node_index._head, node_index._merged, node_index._load):
        cached.cache_clear()
    start = time.perf_counter()
    build_machine("8x h100")
    assert node_index._load.cache_info().currsize <= 2
    assert time.perf_counter() - start < 0.5


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
        ("8x aws:p5.48xlarge", None, None, (64, 8, 8)),
        ("aws:p2.xlarge", None, None, (1, 1, 1)),
        ("azure:ND40rs_v2", None, None, (8, 1, 8)),
        ("dgx h100", 2, None, (16, 2, 8)),
        ("tpu-v4-pod", None, None, (4096, 1024, 4)),
        ("TPU v5e pod", 2, None, (512, 64, 8)),
        ("tpu-v4-pod", None, 2048, (8192, 2048, 4)),
        ("nvidia-gb200-nvl72", None, None, (72, 1, 72)),
        ("gb200", 16, None, (16, 1, 16)),
        ("144x gb200", None, None, (144, 2, 72)),
        ("oci:BM.GPU.GB200.4", 18, None, (72, 18, 4)),
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


def test_the_nvlink_domain_of_a_rack_joins_its_72_accelerators():
    rack = find_node("gb200 nvl72")
    assert build_machine("72x gb200").wiring.fabric_size == 72
    for count, rate in ((18, rack.intranode_byte_per_s.value), (19, 1600 * GIGA * BIT / 4)):
        hosts = build_machine("gcp:a4x-highgpu-4g", count)
        assert hosts.wiring.fabric_size == 72
        assert hosts.internode_byte_per_s.value == rate


def test_an_ultraserver_joins_instances_by_its_own_slower_links():
    """AWS: 1024 GB/s a chip both ways inside an instance, 256 to the other instances."""
    pod = build_machine("trn2-ultraserver" if find_node("trn2-ultraserver") else "aws-trn2-ultraserver")
    assert (pod.count, pod.nodes, pod.wiring.fabric_size) == (64, 4, 64)
    assert (pod.intranode_byte_per_s.value, pod.internode_byte_per_s.value) == (512 * GIGA, 128 * GIGA)
    alone = build_machine("aws:trn2.48xlarge", 4)
    assert alone.internode_byte_per_s.value == 3200 * GIGA * BIT / 16


def test_a_superpod_is_joined_by_the_network_of_its_nodes():
    pod = build_machine("DGX SuperPOD H100")
    assert (pod.count, pod.nodes) == (256, 32)
    assert pod.internode_byte_per_s.value == 400 * GIGA * BIT
    assert pod.wiring.fabric_size == 8


def test_wiring_says_how_accelerators_are_joined():
    """NVLink collectives start after some 8 us, and a TPU hop takes about 1 us."""
    h100, tpu = build_machine("16x h100").wiring, build_machine("tpu-v4-pod").wiring
    assert "NVSwitch" in h100.topology
    assert "InfiniBand" in h100.network
    assert h100.intranode_latency_s is LINK_CLASSES["nvlink"].latency_s
    assert h100.internode_hop_s is LINK_CLASSES["infiniband"].hop_s
    assert h100.pair_byte_per_s is None
    assert "3D torus" in tpu.network
    assert tpu.dims == (16, 16, 16)
    assert tpu.internode_hop_s is LINK_CLASSES["ici"].hop_s
    assert build_machine("8x mi300x").wiring.pair_byte_per_s.value == 64 * GIGA
    assert build_machine("2x rtx 4090").wiring.intranode_latency_s is LINK_CLASSES["pcie"].latency_s


def test_a_figure_from_memory_is_told():
    notes = build_machine("aws:p3.16xlarge", 2).notes
    assert any(topic == "node" and "network of the node from memory" in text for topic, text, _ in notes)
    assert not any(topic == "node" for topic, _, _ in build_machine("aws:p5.48xlarge", 2).notes)


def test_a_maker_without_a_meter_is_charged_by_class_and_by_its_memory():
    node = build_machine("nvidia-dgx2")
    assert node.node_host_w.value == 16 * (60 + 0.20 * find_profile("nvidia-v100-sxm3-32gb").limit_w.value)
    assert node.server_embodied_kgco2e.value == pytest.approx(1000 + 100 + 1536 * 1.37)
    assert [topic for topic, _, _ in node.notes] == ["host power"]


def test_an_immersed_node_has_no_fans():
    assert build_machine("hgx-h100-immersion-smc").node_fan_w.value == 0


@pytest.mark.parametrize(
    ("bare", "full"),
    [
        ("p5.48xlarge", "aws:p5.48xlarge"),
        ("P4D.24xlarge", "aws:p4d.24xlarge"),
        ("ND96asr_v4", "azure:Standard_ND96asr_v4"),
        ("Standard_ND96asr_v4", "azure:Standard_ND96asr_v4"),
        ("a3-highgpu-8g", "gcp:a3-highgpu-8g"),
    ],
)
def test_an_instance_of_one_provider_needs_no_prefix(bare, full):
    assert find_node(bare) is find_node(full)
    assert build_machine(f"2x {bare}").count == 2 * find_node(full).per_node


def test_every_instance_is_named_in_the_head_of_its_family():
    spelled = {name for node in NODES if node.kind == "instance" for name in node.names}
    assert set(node_index.instance_names()) == spelled
    accelerators = {fold(name) for id_ in list_profiles() for name in (id_, *find_profile(id_).aliases)}
    assert not accelerators & {fold(name.partition(":")[2]) for name in spelled}


def test_an_instance_of_two_providers_needs_its_prefix(own):
    own(GOOD)
    own(FAMILY.replace("acme:x8", "acme:p5.48xlarge"), "acme-eight")
    with pytest.raises(InputError, match=r"2 providers: .*aws:p5\.48xlarge"):
        build_machine("p5.48xlarge")
    assert build_machine("aws:p5.48xlarge").accelerator.id == "nvidia-h100-sxm5-80gb"


@pytest.mark.parametrize(
    ("name", "accelerator", "chips", "counts"),
    [
        ("v2-8", "google-tpu-v2", 4, "TensorCores"),
        ("v3-8", "google-tpu-v3", 4, "TensorCores"),
        ("v3-32", "google-tpu-v3", 16, "TensorCores"),
        ("v4-8", "google-tpu-v4", 4, "TensorCores"),
        ("v5p-8", "google-tpu-v5p", 4, "TensorCores"),
        ("v5p-12288", "google-tpu-v5p", 6144, "TensorCores"),
        ("v5litepod-8", "google-tpu-v5e", 8, "chips"),
        ("V6E-8", "google-tpu-v6e", 8, "chips"),
        ("TPU v3-8", "google-tpu-v3", 4, "TensorCores"),
    ],
)
def test_a_tpu_slice_counts_as_google_counts(name, accelerator, chips, counts):
    """Google Cloud TPU pages: v5p of 2x2x1 has 8 cores and 4 chips, of 16x16x24 12288 and 6144."""
    machine = build_machine(name)
    assert (machine.accelerator.id, machine.count) == (accelerator, chips)
    topic, text, _ = machine.notes[0]
    assert topic == "slice"
    assert f"counts {counts}" in text
    assert f"{chips} x {accelerator}" in text


def test_slices_are_joined_by_the_network_alone():
    one, four = build_machine("v5litepod-64"), build_machine("4x v5litepod-16")
    assert (one.count, four.count) == (64, 64)
    assert four.wiring.fabric_size == 16
    assert four.internode_byte_per_s.value < one.internode_byte_per_s.value
    assert "fabric" in [topic for topic, _, _ in four.notes]


@pytest.mark.parametrize(
    ("hardware", "count", "told"),
    [
        ("nvidia-dgx-h100", 3, "3 x 'nvidia-dgx-h100' of 8: 24 accelerators"),
        ("2x aws:p5.48xlarge", None, "2 x 'aws:p5.48xlarge' of 8: 16 accelerators"),
        ("tpu-v4-pod", 64, "64 x 'tpu-v4-pod' of 4096: 262144 accelerators"),
    ],
)
def test_a_count_of_nodes_says_how_many_accelerators(hardware, count, told):
    assert [text for topic, text, _ in build_machine(hardware, count).notes if topic == "count"] == [told]


def test_more_than_one_pod_is_more_than_one_fabric():
    for name, count in (("tpu-v4-pod", 64), ("tpu-v4", 64 * 4096)):
        texts = [text for topic, text, _ in build_machine(name, count).notes if topic == "fabric"]
        assert len(texts) == 1
        assert "(64 x 4096): each pod" in texts[0]
    for name in ("tpu-v4-pod", "8x h100", "nvidia-dgx-h100"):
        assert not {"fabric", "count"} & {topic for topic, _, _ in build_machine(name).notes}


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


@pytest.mark.parametrize(("name", "system_w"), [("CS-1", 20e3), ("CS-2", 23e3), ("CS-3", 23e3)])
def test_a_wafer_system_is_charged_once(name, system_w):
    """The published 20 and 23 kW are of the whole system, so that the node draws no more than it."""
    machine = build_machine(name)
    node_w = machine.accelerator.limit_w.value + machine.node_host_w.value + machine.node_fan_w.value
    assert node_w / machine.psu_efficiency.value == pytest.approx(system_w, rel=1e-3)
    idle_w = machine.accelerator.idle_w.value
    assert idle_w + machine.node_host_w.value == pytest.approx(idle_w, rel=1e-3)
    assert any("MemoryX" in text for _, text, _ in machine.notes)


@pytest.mark.parametrize("name", ["m1 max", "m1 ultra", "sn10", "sn30", "inferentia1", "inferentia2"])
def test_a_limit_nobody_published_is_an_estimate_of_its_own(name):
    """Twice from end to end at least, and no longer the class default of all accelerators."""
    limit_w = find_profile(name).limit_w
    assert limit_w.status == "estimate"
    assert limit_w.source.startswith("estimate: ")
    assert limit_w.high >= 2 * limit_w.low
    assert "power limit" not in [topic for topic, _, _ in find_profile(name).notes]


def test_memory_that_is_ddr_alone_is_told():
    for name in ("sn10", "sn30"):
        assert any(topic == "memory" and "DDR4" in text for topic, text, _ in find_profile(name).notes)


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
        ("h10", None, None, "unknown accelerator, node or instance 'h10'; did you mean 'h100'"),
        ("8x", None, None, "unknown accelerator, node or instance '8x'"),
        ("p5.47xlarge", None, None, "node or instance 'p5.47xlarge'; did you mean .*'aws:p5.48xlarge'"),
        ("nvidia-dgx-h10", None, None, "did you mean .*'nvidia-dgx-h100'"),
        ("v3-7", None, None, "counts TensorCores, 2 a chip: 7 is no whole .* write '7x tpu-v3'"),
        ("v5litepod-0", None, None, "counts chips: 0 is no whole number of chips; .* '1x tpu-v5e'"),
        ("v4-8194", None, None, "'v4-8194' has 4097 chips, and a pod of google-tpu-v4 has 4096"),
        ("v4-16", 2, 3, r"2 of 'v4-16' are 16 chips on 4 node\(s\), not 3"),
        ("h100", 0, None, "must be at least 1"),
        ("h100", None, -1, "must be at least 1"),
        ("0x h100", None, None, "must be at least 1"),
    ],
)
def test_contradictions_and_unknown_names_are_refused(hardware, count, nodes, message):
    with pytest.raises(InputError, match=message):
        build_machine(hardware, count, nodes)


GOOD = """
id = "acme-node"
name = "Acme"
vendor = "Acme"
kind = "server"
accelerator = "nvidia-l4"
accelerators = 8
aliases = ["acme eight"]

[between]
link = "roce"

[host]
sockets = 1

[host.memory]
value = 512
unit = "GB"
source = "our invoice"
as_of = 2026-11-20
status = "verified"

[host.power]
value = 900
low = 600
high = 1300
unit = "W"
source = "our meter"
as_of = 2026-11-20
status = "verified"

[host.fans]
value = 100
unit = "W"
source = "our meter"
as_of = 2026-11-20
status = "verified"

[power.supply]
value = 0.95
source = "our meter"
as_of = 2026-11-20
status = "verified"

[power.maximum]
value = 2
unit = "kW"
source = "maker"
as_of = 2026-11-20
status = "verified"

[power.idle]
value = 0.5
unit = "kW"
source = "our meter"
as_of = 2026-11-20
status = "verified"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A writer of node files in the user's own folder."""
    monkeypatch.setenv("PREDICTOR_PROFILES", str(tmp_path))
    (tmp_path / "nodes").mkdir()

    def write(text: str, name: str = "acme-node") -> Path:
        path = tmp_path / "nodes" / f"{name}.toml"
        path.write_text(text)
        return path

    return write


def test_a_node_of_ones_own_is_found_by_id_alias_and_file(own, tmp_path):
    path = own(GOOD)
    elsewhere = tmp_path / "elsewhere" / "acme-node.toml"
    elsewhere.parent.mkdir()
    shutil.copy(path, elsewhere)
    for name in ("acme-node", "Acme Eight", str(path), str(elsewhere)):
        node = find_node(name)
        assert (node.host_w.low, node.host_w.value, node.host_w.high) == (600, 900, 1300)
        assert node.internode_byte_per_s is None
        assert build_machine(name).count == 8
    assert "acme-node" in [node.id for node in list_nodes()]


def test_a_node_of_ones_own_replaces_the_shipped_one(own):
    shipped = (SHIPPED / "nvidia-dgx-h100.toml").read_text(encoding="utf-8")
    own(shipped.replace("value = 1700", "value = 1800"), "nvidia-dgx-h100")
    assert build_machine("8x h100").node_host_w.value == 1800
    assert build_machine("aws:p5.48xlarge").node_host_w.value == 1800


@pytest.mark.parametrize("text", ["id = acme", 'id = "acme-node"\n'])
def test_a_broken_file_of_ones_own_stops_only_its_own_name(own, text):
    path = own(text)
    assert build_machine("aws:p5.48xlarge").count == 8
    with pytest.raises(InputError) as refusal:
        build_machine("acme-node")
    assert str(refusal.value).startswith(str(path))


def test_an_accelerator_file_is_no_node():
    assert find_node(str(SHIPPED.parent / "nvidia-l4.toml")) is None
    assert build_machine(str(SHIPPED.parent / "nvidia-l4.toml")).accelerator.id == "nvidia-l4"


def test_manufacture_is_derived_from_servers_processors_and_memory(own):
    own(GOOD)
    made = find_node("acme-node").server_embodied_kgco2e
    assert made.value == pytest.approx(1000 + 512 * 1.37)
    assert made.status == "derived"
    assert made.low < 0.6 * made.value < 1.6 * made.value < made.high
    rack = find_node("nvidia-gb200-nvl72").server_embodied_kgco2e
    assert rack.value == pytest.approx(18 * 1000 + (36 - 18) * 100 + 17280 * 1.37)


FAMILY = """
id = "acme-eight"
name = "Eight"
vendor = "Acme"
kind = "instance"
accelerator = "nvidia-l4"

[[instance]]
name = "acme:x8"
accelerators = 8
"""
POD = """
id = "acme-pod"
name = "Pod"
vendor = "Acme"
kind = "pod"
accelerator = "nvidia-l4"
accelerators = 64
hosted_by = "acme-node"

[fabric]
topology = "2D torus"
dims = [8, 8]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('vendor = "Acme"', 'colour = "red"', "unknown key 'colour': the top level does not take it"),
        ("sockets = 1", "socket = 1", r"unknown key 'host\.socket': host does not take it"),
        ('source = "our invoice"\n', "", r"'host\.memory\.source' is missing"),
        ('unit = "GB"', 'unit = "GB/s"', r"host\.memory: 'GB/s' measures byte rate, needed size"),
        ("low = 600", "low = 1000", r"host\.power: low 1000\.0 <= value 900\.0"),
        ("low = 600\n", "", r"host\.power: low and high belong together"),
        (
            '"our meter"\nas_of = 2026-11-20\nstatus = "verified"',
            '"x"\nas_of = 2026-11-20\nstatus = "sure"',
            "sure",
        ),
        ("accelerators = 8", "accelerators = 0", "'accelerators' is 0"),
        ("accelerators = 8", "accelerators = 2.5", "2.5 boards are not a whole number of devices"),
        ("accelerators = 8\n", "", "accelerators: give it at the top"),
        ('"nvidia-l4"', '"nvidia-l5"', "unknown accelerator 'nvidia-l5'; did you mean 'nvidia-l4'"),
        ("value = 0.5", "value = 2.5", r"power\.idle 2500 W is not below power\.maximum 2000 W"),
        ("value = 0.95", "value = 1.2", r"power\.supply 1\.2 is above 1"),
        ('id = "acme-node"', 'id = "acme-knot"', "it must equal the file name 'acme-node'"),
        ('kind = "server"', 'kind = "pod"', "a pod has"),
        ('kind = "server"', 'kind = "instance"', "kind 'instance' has"),
        ('link = "roce"', 'link = "string"', r"'between\.link' is 'string'"),
        (
            "accelerators = 8",
            'accelerators = 8\nhosted_by = "dgx-nowhere"',
            "'dgx-nowhere' is no server or rack",
        ),
        (
            "accelerators = 8",
            'accelerators = 8\nhosted_by = "nvidia-dgx-h100"',
            "holds nvidia-h100-sxm5-80gb",
        ),
        ("accelerators = 8", 'accelerators = 8\nhosted_by = "acme-node"', "a whole node hosts itself"),
        ("sockets = 1", "fanless = true", r"host\.fanless"),
    ],
)
def test_a_faulty_file_is_refused_with_file_key_and_rule(own, old, new, message):
    assert old in GOOD
    path = own(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as refusal:
        find_node("acme-node")
    assert str(refusal.value).startswith(str(path))


def test_a_host_that_is_itself_hosted_is_refused(own):
    own(GOOD)
    own(
        GOOD.replace("acme-node", "acme-half")
        .replace("acme eight", "h")
        .replace("accelerators = 8", 'accelerators = 4\nhosted_by = "acme-node"'),
        "acme-half",
    )
    own(FAMILY.replace('"nvidia-l4"', '"nvidia-l4"\nhosted_by = "acme-half"'), "acme-eight")
    with pytest.raises(InputError, match="'acme-half' is itself hosted by another"):
        find_node("acme:x8")


@pytest.mark.parametrize(
    ("alias", "first"),
    [("DGX H100", "nvidia-dgx-h100"), ("nvidia l4", "accelerator nvidia-l4")],
)
def test_a_name_with_two_owners_is_refused(own, alias, first):
    path = own(GOOD.replace("acme eight", alias))
    with pytest.raises(InputError, match=f"'{alias}' belongs to both .*{first}|both acme-node and {first}"):
        find_node("tpu-v4-pod")
    assert path.exists()


def test_two_usual_nodes_of_one_accelerator_are_refused(own):
    own(GOOD.replace("accelerators = 8", "accelerators = 8\nusual = true"))
    assert build_machine("l4", nodes=2).count == 16
    own(
        GOOD.replace("acme-node", "other")
        .replace("acme eight", "o")
        .replace("accelerators = 8", "accelerators = 8\nusual = true"),
        "other",
    )
    with pytest.raises(InputError, match="usual: acme-node is the usual one of nvidia-l4 already"):
        build_machine("l4")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (FAMILY.replace("acme:x8", "aws:x8"), "acme-eight", "'aws:x8' is not of 'acme'"),
        (
            FAMILY
            + "\n[embodied]\nvalue = 9\nunit = 'kgCO2e'\nsource = 'x'\nas_of = '2026'\nstatus = 'verified'\n",
            "acme-eight",
            "embodied: it stands in the file of the server",
        ),
        (POD.replace("[8, 8]", "[8, 4]"), "acme-pod", "8x4 is not 64"),
        (POD.replace("64", "60").replace("[8, 8]", "[6, 10]"), "acme-pod", "60 of a pod are no multiple"),
        (POD.replace('hosted_by = "acme-node"\n', ""), "acme-pod", "a pod names the server"),
    ],
)
def test_a_faulty_family_or_pod_is_refused(own, text, name, message):
    own(GOOD)
    own(text, name)
    with pytest.raises(InputError, match=message):
        list_nodes()


def test_a_pod_of_ones_own(own):
    own(GOOD)
    own(POD, "acme-pod")
    machine = build_machine("2x acme-pod")
    assert (machine.count, machine.nodes, machine.per_node) == (128, 16, 8)
    with pytest.raises(InputError, match="2 of 'acme-pod' are 16 nodes, not 3"):
        build_machine("acme-pod", 2, 3)


def test_the_readme_explains_every_field():
    text = (SHIPPED / "README.md").read_text(encoding="utf-8")

    def keys(table: type[Table], prefix: str = "") -> list[str]:
        found = []
        for name, field in table.model_fields.items():
            inner = [
                a
                for a in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(a, type)
            ]
            tables = [a for a in inner if issubclass(a, Table) and a is not Quantity]
            found += keys(tables[0], f"{prefix}{name}.") if tables and name != "notes" else [prefix + name]
        return found

    for key in keys(NodeFile):
        assert f"`{key}`" in text, key
    assert all(f"`{kind}`" in text for kind in LINK_CLASSES)
    assert set(SHOWN) | {"network", "cores", "memory"} == set(DIMENSIONS)
    assert set(DIMENSIONS) >= PER_BOARD


def test_the_template_is_a_good_file(own):
    text = (SHIPPED / "_template.toml").read_text(encoding="utf-8")
    own(text, "acme-quad-x1")
    assert build_machine("2x acme-quad-x1").count == 8


# --- against the tables the figures were taken from --------------------------------------------------

TAKEN_FROM = {  # row of hardware/nodes.csv -> our node, where the name differs
    "azure-nd96amsr-a100-v4": "azure-standard-nd96amsr-a100-v4",
    "azure-nd96isr-h100-v5": "azure-standard-nd96isr-h100-v5",
    "azure-nd96isr-h200-v5": "azure-standard-nd96isr-h200-v5",
    "azure-nd96isr-mi300x-v5": "azure-standard-nd96isr-mi300x-v5",
}
COLUMNS = {
    "switch_count": ("inside.switches", 1),
    "intranode_gb_s_per_direction_per_accelerator": ("inside.bandwidth", GIGA),
    "internode_gbit_s_per_node": ("between.bandwidth", GIGA * BIT),
    "nic_count": ("between.cards", 1),
    "nic_gbit_s_each": ("between.card_bandwidth", GIGA * BIT),
    "host_cpu_cores_or_vcpu": ("host.cores", 1),
    "host_memory_gb": ("host.memory", GIGA),
    "max_node_power_kw": ("power.maximum", 1000),
    "idle_node_power_kw": ("power.idle", 1000),
    "training_node_power_kw": ("power.training", 1000),
    "price_usd": ("price.launch", 1),
}
FAMILIES = {"aws-p5-48xlarge", "gcp-a3-highgpu-8g"}
"""Sizes whose network cards stand in words: the family has sizes with others."""


def source_rows(name: str) -> list[dict[str, str]]:
    with (Path(os.environ["PREDICTOR_DATA"]) / "hardware" / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def of_pod(node, key):
    """The figure of a pod as the table has it: of its nodes together, inside as in one of them."""
    host = find_node(node.power_of)
    figure = host.figures.get(key)
    if figure is None or key.startswith("inside"):
        return figure and figure.value
    return figure.value * node.per_node / host.per_node


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
def test_nodes_are_those_of_the_source_table():
    """Every cell of every row; what the table leaves empty is not compared."""
    rows, compared = source_rows("nodes.csv"), 0
    for row in rows:
        node = find_node(TAKEN_FROM.get(row["id"], row["id"]))
        assert node is not None, row["id"]
        assert row["accelerator_id"] == node.accelerator
        assert int(row["accelerators_per_node"]) in {node.per_node, node.per_node // 2}, row["id"]
        for column, (key, factor) in COLUMNS.items():
            if not row[column] or (row["id"] in FAMILIES and column.startswith("nic")):
                continue
            if node.kind == "pod" and key in {"host.cores", "host.memory"}:
                continue
            figure = node.figures.get(key)
            value = of_pod(node, key) if node.kind == "pod" else figure.value
            assert value == pytest.approx(float(row[column]) * factor), (row["id"], column)
            compared += 1
    assert len(rows) >= 66
    assert compared > 250


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
def test_pods_are_those_of_the_source_table():
    """The TPU pods, their links, sides and bisection; where a page and a book differ the file says so."""
    compared = 0
    for row in source_rows("topology.csv"):
        if not row["id"].endswith("-pod") or row["vendor"] != "Google":
            continue
        pod = find_node(row["id"])
        assert (pod.accelerator, pod.per_node) == (row["accelerator_id"], int(row["max_accelerators"]))
        if row["dimensions"]:
            assert "x".join(map(str, pod.dims)) == row["dimensions"]
        for column, key, factor in (
            ("links_per_accelerator", "fabric.links", 1),
            ("gb_s_per_link_per_direction", "fabric.link_bandwidth", GIGA),
            ("bisection_tb_s", "fabric.bisection", TERA),
            ("all_reduce_tb_s", "fabric.all_reduce", TERA),
            ("outer_network_gbit_s_per_accelerator", "fabric.outer", GIGA * BIT),
        ):
            if row[column]:
                assert pod.figures[key].value == pytest.approx(float(row[column]) * factor), (
                    row["id"],
                    column,
                )
                compared += 1
    assert compared > 20


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
def test_link_generations_are_those_of_the_source_table():
    """NVLink 1 to 5, xGMI and Gaudi: links of one accelerator and the rate of one."""
    nodes = {
        "nvlink-1": "nvidia-dgx1-p100",
        "nvlink-2": "nvidia-dgx1-v100",
        "nvlink-3": "nvidia-dgx-a100-80gb",
        "nvlink-4": "nvidia-dgx-h100",
        "nvlink-5": "nvidia-dgx-b200",
        "xgmi-amd-mi300x": "amd-mi300x-oam-8",
        "xgmi-amd-mi325x": "amd-mi325x-oam-8",
        "xgmi-amd-mi355x": "amd-mi355x-oam-8",
        "gaudi2-node": "intel-hls-gaudi2",
        "gaudi3-node": "intel-hls-gaudi3",
    }
    rows = {row["id"]: row for row in source_rows("topology.csv")}
    for source, id_ in nodes.items():
        figures = find_node(id_).figures
        assert figures["inside.links"].value == float(rows[source]["links_per_accelerator"])
        each = float(rows[source]["gb_s_per_link_per_direction"]) * GIGA
        assert figures["inside.link_bandwidth"].value == each
        total = rows[source]["gb_s_per_accelerator_per_direction"]
        assert figures["inside.bandwidth"].value == float(total) * GIGA
