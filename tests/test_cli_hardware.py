"""``predictor hardware`` as people use it: list, show, compare, add, and a profile given for one call."""

import json
import sys
import tomllib

import pytest
import typer

from predictor.accelerator import quantities
from predictor.cli.hardware_add import complete
from predictor.errors import InputError
from predictor.machine import list_nodes
from predictor.profile import find_profile, list_profiles, load_profile, own_profiles

H100, A100 = "nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-40gb"
ADD = (
    *("add", "--name", "Acme X1 80 GB", "--vendor", "Acme", "--kind", "gpu", "--bf16", "400"),
    *("--memory", "81920MiB", "--bandwidth", "2.4 TB/s", "--limit", "500"),
)
SOURCE = ("--source", "Acme X1 datasheet, revision 3, page 2")


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """An empty folder of own profiles, not made yet."""
    monkeypatch.setenv("PREDICTOR_PROFILES", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def hardware(predictor, tmp_path, monkeypatch):
    """Run ``predictor hardware`` in a folder that stays empty but for what it writes."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: predictor("hardware", *arguments)


def answer_of(run):
    assert run.code == 0, run.err
    return json.loads(run.out)


def ids(run):
    return [row["id"] for row in answer_of(run)["accelerators"]]


# List and show


@pytest.mark.parametrize("command", [(), ("list",)])
def test_everything_is_listed(hardware, command):
    listed = answer_of(hardware(*command, "--format", "json"))
    assert [row["id"] for row in listed["accelerators"]] == list_profiles()
    assert [row["id"] for row in listed["nodes"]] == [node.id for node in list_nodes()]
    assert all(name in hardware(*command).out for name in list_profiles())


def test_the_list_fits_in_100_columns(hardware):
    for words in (("list",), ("list", "--kind", "node")):
        for line in hardware(*words).out.splitlines():
            assert len(line) <= 100, line


def test_the_list_is_filtered_by_part_maker_kind_and_use(hardware):
    known = {id_: find_profile(id_) for id_ in list_profiles()}
    as_json = ("--format", "json")
    assert ids(hardware("list", "H100 PCIe", *as_json)) == ["nvidia-h100-pcie-80gb"]
    assert ids(hardware("list", "h100-p", *as_json)) == [id_ for id_ in known if "h100-p" in id_]
    assert ids(hardware("list", "--vendor", "amd", *as_json)) == [
        id_ for id_, a in known.items() if a.vendor == "AMD"
    ]
    tpus = answer_of(hardware("list", "--kind", "tpu", "--trains", *as_json))
    assert [row["id"] for row in tpus["accelerators"]] == [
        id_ for id_, a in known.items() if a.kind == "tpu" and a.training
    ]
    assert tpus["nodes"] == []
    nodes = answer_of(hardware("list", "--kind", "node", *as_json))
    assert nodes["accelerators"] == []
    assert len(nodes["nodes"]) == len(list_nodes())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "h10O"), "no such accelerator or node; did you mean 'h100'"),
        (
            ("list", "--kind", "gpus"),
            "--kind is 'gpus', accepted: gpu, tpu, asic, cpu, node; did you mean 'gpu'",
        ),
        (("list", "--format", "html"), "--format is 'html', accepted: table, json"),
        (("show", "h10"), "unknown accelerator, node or instance 'h10'; did you mean 'h100'"),
        (("h1000",), "unknown accelerator, node or instance 'h1000'; did you mean 'h100'"),
        (("compare", "h100", "dgx-h100"), f"'dgx-h100' is a node of 8 x {H100}; compare takes accelerators"),
        (("compare", "h100"), "compare takes two or more"),
        (("compare", "h100", "h100-sxm"), "compare takes two or more"),
    ],
)
def test_what_is_not_known_is_refused_with_near_ones(hardware, words, message):
    run = hardware(*words)
    assert (run.code, run.out) == (2, "")
    assert message in run.err


@pytest.mark.parametrize("command", [("show", "h100"), ("h100",)])
def test_every_value_is_shown_with_its_source(hardware, command):
    shown = answer_of(hardware(*command, "--format", "json"))
    by_name = {figure["name"]: figure for figure in shown["figures"]}
    for name, value, unit in quantities(find_profile("h100")):
        figure = by_name[name]
        assert (figure["source"], figure["as_of"], figure["status"]) == (
            value.source,
            value.as_of,
            value.status,
        )
        assert figure["unit"] == unit
    assert (by_name["power limit"]["value"], by_name["power limit"]["unit"]) == (700, "W")
    text = hardware(*command).out
    assert all(figure["source"] in text and figure["name"] in text for figure in shown["figures"])


def test_a_part_of_a_name_alone_lists_those_that_hold_it(hardware):
    assert ids(hardware("h100-p", "--format", "json")) == [i for i in list_profiles() if "h100-p" in i]


def test_a_chip_that_cannot_be_priced_says_so_where_it_is_shown(hardware):
    assert "cannot be priced: the profile lacks" in hardware("show", "mythic-m1076").out


def test_a_cloud_instance_is_shown(hardware):
    shown = answer_of(hardware("show", "aws:p5.48xlarge", "--format", "json"))
    assert (shown["accelerator"], shown["per_node"]) == (H100, 8)
    assert hardware("nvidia-dgx-h100").code == 0


def test_compare_sets_figures_side_by_side_with_their_ratio(hardware):
    compared = answer_of(hardware("compare", "h100", "a100", "--format", "json"))
    assert [a["id"] for a in compared["accelerators"]] == [H100, A100]
    rows = {row["name"]: row for row in compared["figures"]}
    assert rows["power limit"] == {
        "name": "power limit",
        "unit": "W",
        "values": [700, 400],
        "ratios": [1, 400 / 700],
    }
    assert rows["peak fp8"]["values"][1] is None
    text = hardware("compare", "h100", "a100").out
    assert "400 (0.571x)" in text
    assert "h100-sxm5-80gb" in text.splitlines()[0]


@pytest.mark.parametrize("names", ["all", "ALL", "h100,a100"])
def test_estimate_takes_one_machine(predictor, names):
    run = predictor("estimate", "zoo:gpt2", "--hardware", names)
    assert (run.code, run.out) == (2, "")
    assert "estimate takes one" in run.err
    assert f"predictor compare zoo:gpt2 --hardware '{names}'" in run.err


def test_count_says_what_it_counts(predictor):
    words = " ".join(predictor("estimate", "--help").out.replace("│", " ").split())
    assert "Number of accelerators, or of the node, pod or instance named" in words


# Add


def test_add_writes_a_profile_that_is_known_at_once(hardware, own):
    run = hardware(*ADD, *SOURCE, "--alias", "x1", "--link", "300", "--per-node", "8")
    assert run.code == 0, run.err
    path = own / "acme-x1-80gb.toml"
    assert own_profiles() == {"acme-x1-80gb": path}
    x1 = find_profile("x1")
    assert x1.peak_flop_per_s["bf16"].value == 400e12
    assert (x1.memory_byte.value, x1.memory_byte_per_s.value) == (80 * 2**30, 2.4e12)
    assert (x1.limit_w.value, x1.intranode_byte_per_s.value, x1.per_node) == (500, 300e9, 8)
    assert {q.source for _, q, _ in quantities(x1) if q.status == "verified"} == {SOURCE[1]}
    assert x1.idle_w.status == "estimate"
    assert "no idle power known: 95 W assumed" in run.out
    assert "predictor hardware show acme-x1-80gb" in run.out
    assert "acme-x1-80gb*" in hardware("list", "acme").out
    assert str(path) in hardware("show", "x1").out


def test_add_writes_into_a_given_file_that_estimate_and_compare_take(predictor, hardware, own):
    assert hardware(*ADD, *SOURCE, "-o", "my-chip.toml").code == 0
    assert not own.exists()
    given = ("--profile", "my-chip.toml", "--seq-len", "64", "--format", "json")
    priced = answer_of(predictor("estimate", "zoo:gpt2", "--hardware", "8x my-chip", *given))
    assert (priced["machine"]["accelerator"], priced["machine"]["count"]) == ("my-chip", 8)
    compared = answer_of(predictor("compare", "zoo:gpt2", "--hardware", "my-chip,l4", *given))
    assert [c["label"] for c in compared["candidates"]] == ["my-chip", "l4"]
    unused = [line["text"] for line in compared["candidates"][1]["estimate"]["ledger"]]
    assert "profile my-chip.toml not used: the job runs on nvidia-l4" in unused
    assert answer_of(hardware("show", "my-chip", *given[:2], "--format", "json"))["id"] == "my-chip"
    assert answer_of(hardware("compare", "l4", "my-chip", *given[:2], "--format", "json"))


def test_a_job_file_names_a_profile_beside_itself(predictor, hardware, tmp_path):
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    assert hardware(*ADD, *SOURCE, "-o", str(jobs / "my-chip.toml")).code == 0
    text = 'model = "zoo:gpt2"\nhardware = "my-chip"\nprofile = "my-chip.toml"\nseq_len = 64\n'
    (jobs / "job.toml").write_text(text, encoding="utf-8")
    priced = answer_of(predictor("estimate", jobs / "job.toml", "--format", "json"))
    assert priced["machine"]["accelerator"] == "my-chip"


def test_add_says_what_is_missing_where_it_cannot_ask(hardware, own):
    run = hardware("add", "--name", "X", "--vendor", "Acme", "--limit", "500")
    assert (run.code, run.out) == (2, "")
    assert (
        "missing: --kind, --memory, --bandwidth, --source, one or more of --fp32, --bf16, --fp16" in run.err
    )
    assert not own.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--memory", "lots"), "--memory is 'lots': write a number above 0"),
        (("--memory", "80GBB"), "--memory: unknown unit 'GBB'; did you mean 'GB'"),
        (("--limit", "500 MHz"), "--limit: 'MHz' measures frequency, needed power"),
        (("--fp16", "800"), "peak.fp16: fp16 is 2 times bf16"),
        (("--idle", "600"), "power.idle 600.0 W is not below power.limit 500.0 W"),
        (("--alias", "h100"), "alias 'h100' belongs to 2 profiles"),
        (("--kind", "card"), "'kind' is 'card'"),
        (("--released", "soon"), "release_date.date' is 'soon'"),
        (("--status", "sure"), "status' is 'sure'"),
        (("-o", "chip.json"), "a profile's file name ends in .toml"),
        (("-o", "My Chip.toml"), "'id' is 'My Chip'"),
        (("-o", "gone/chip.toml"), "output folder 'gone' does not exist"),
    ],
)
def test_add_refuses_and_writes_nothing(hardware, own, tmp_path, words, message):
    run = hardware(*ADD, *SOURCE, *words)
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert not own.exists()
    assert list((tmp_path / "here").iterdir()) == []


def test_add_never_overwrites_unless_told(hardware, own):
    assert hardware(*ADD, *SOURCE).code == 0
    run = hardware(*ADD, "--source", "another")
    assert run.code == 2
    assert "exists; add --force" in run.err
    assert "another" not in (own / "acme-x1-80gb.toml").read_text()
    assert hardware(*ADD, "--source", "another", "--force").code == 0
    assert "another" in (own / "acme-x1-80gb.toml").read_text()


def test_add_of_an_inference_chip_keeps_its_reason(hardware, predictor):
    assert hardware(*ADD, *SOURCE, "--inference-only", "no backward kernels").code == 0
    run = predictor("estimate", "zoo:gpt2", "--hardware", "acme-x1-80gb")
    assert run.code == 2
    assert "acme-x1-80gb cannot train: no backward kernels" in run.err


def test_add_writes_text_with_quotes_and_umlauts_as_it_was_given(hardware, own):
    source = 'Datenblatt "X1", Ausgabe für 2025\\1'
    assert hardware(*ADD, "--source", source).code == 0
    written = tomllib.loads((own / "acme-x1-80gb.toml").read_text(encoding="utf-8"))
    assert written["power"]["limit"]["source"] == source


def test_add_asks_for_what_is_missing_and_again_for_what_it_cannot_read(monkeypatch):
    answers = iter(["card", "gpu", "50", "", "", "80", "-3", "2400", "500", "a page"])
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    found = complete({"name": "X", "vendor": "Acme"}, ask=True)
    assert found == {
        "name": "X",
        "vendor": "Acme",
        "kind": "gpu",
        "fp32": "50",
        "memory": "80",
        "bandwidth": "2400",
        "limit": "500",
        "source": "a page",
    }


def test_add_stops_when_the_answers_end(monkeypatch):
    def ended(*_, **__):
        try:
            raise EOFError
        except EOFError:
            raise typer.Abort from None

    monkeypatch.setattr(typer, "prompt", ended)
    with pytest.raises(InputError, match="nothing was written"):
        complete({}, ask=True)


def test_a_terminal_is_asked(hardware, own, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "a page")
    assert hardware(*ADD).code == 0
    assert load_profile(own / "acme-x1-80gb.toml").limit_w.source == "a page"


# A faulty profile of one's own


def test_a_faulty_own_profile_is_named_and_left_out_of_lists(hardware, predictor, own):
    assert hardware(*ADD, *SOURCE).code == 0
    path = own / "acme-x1-80gb.toml"
    path.write_text(path.read_text().replace("[power.limit]", "[power.limt]"))
    run = hardware("list", "--format", "json")
    assert "acme-x1-80gb" not in ids(run)
    assert f"left out: {path}: unknown key 'power.limt'" in run.err
    assert hardware("show", "h100").code == 0
    words = ("--hardware", "ALL", "--seq-len", "64", "--format", "json")
    candidates = answer_of(predictor("compare", "zoo:gpt2", *words))["candidates"]
    faulty = next(c for c in candidates if c["label"] == "acme-x1-80gb")
    assert "unknown key 'power.limt'" in json.dumps(faulty)
