"""Job files: flat, strict, relative to their own folder, and without code unless allowed."""

from pathlib import Path

import pytest

from predictor.errors import InputError
from predictor.job import Job
from predictor.jobfile import COUNTS, check_value, read_job

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def job_file(tmp_path):
    def write(text):
        path = tmp_path / "job.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_example_job_files_are_jobs(path):
    job = Job(**read_job(path))
    assert job.has_length
    assert job.region


def test_keys_are_the_fields_of_a_job(job_file):
    fields = read_job(job_file('model = "zoo:gpt2"\nhardware = "8x h100"\ntokens = "300B"\npue = 1\n'))
    assert fields == {"model": "zoo:gpt2", "hardware": "8x h100", "tokens": 300 * 10**9, "pue": 1.0}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hardwre = 'h100'", "unknown key 'hardwre'; did you mean 'hardware'?"),
        ("batch-size = 8", "unknown key 'batch-size'; did you mean 'batch_size'?"),
        ("[job]\nhardware = 'h100'", "unknown key 'job'"),
        ("batch_size = '8'", "batch_size is '8', it must be a valid integer"),
        ("batch_size = 8.5", "batch_size is 8.5, it must be a valid integer"),
        ("batch_size = 0", "batch_size is 0, it must be greater than 0"),
        (
            "seq_len = 1_000_000_000_000_000",
            "seq_len is 1000000000000000, it must be less than or equal to 1000000000000",
        ),
        ("count = true", "count is true, it must not be true or false"),
        ("zero = false", "zero is false, it must not be true or false"),
        ("zero = 4", "zero is 4, accepted: 0, 1, 2, 3"),
        ("strict = 1", "strict is 1, it must be a valid boolean"),
        (
            "precision = 'bf15'",
            "accepted: fp32, tf32, fp16, bf16, amp-fp16, amp-bf16, fp8; did you mean 'bf16'?",
        ),
        ("tokens = 'many'", "tokens: 'many' is not a count"),
        ("tokens = 0", "tokens: 0 is not a whole number of at least 1"),
        ("tokens = true", "tokens is true"),
        ("epochs = inf", "epochs is inf, it must be a finite number"),
        ("epochs = nan", "epochs is nan"),
        ("price = -1.0", "price is -1.0, it must be greater than or equal to 0"),
        ("pue = 0.9", "pue is 0.9, it must be greater than or equal to 1"),
        ("region = ''", "region is empty"),
        ("inputs = 'ids:int64[8,8]'", "inputs is 'ids:int64[8,8]', it must be a valid list"),
        ("hardware = ['h100']", "hardware is ['h100'], it must be a valid string"),
        ("hardware = 1979-05-27", "hardware is datetime.date(1979, 5, 27), it must be a valid string"),
        ("tp =", "not valid TOML"),
        ("tp = 1\ntp = 2", "not valid TOML"),
    ],
)
def test_a_fault_names_the_file_the_key_and_what_is_accepted(job_file, line, expected):
    path = job_file(f"model = 'zoo:gpt2'\n{line}\n")
    with pytest.raises(InputError) as error:
        read_job(path)
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        read_job(path)


def test_a_missing_file_and_a_missing_model_are_refused(tmp_path, job_file):
    with pytest.raises(InputError, match="no such file"):
        read_job(tmp_path / "nothing.toml")
    with pytest.raises(InputError, match="'model' is missing"):
        read_job(job_file("hardware = 'h100'\n"))


@pytest.mark.parametrize("name", ["net.onnx", "config.json", "models/net.onnx"])
def test_model_files_are_found_beside_the_job_file(job_file, name):
    path = job_file(f"model = '{name}'\n")
    assert read_job(path)["model"] == str(path.parent / name)


def test_absolute_paths_and_library_names_stay(job_file):
    assert read_job(job_file("model = '/models/net.onnx'\n"))["model"] == "/models/net.onnx"
    assert read_job(job_file("model = 'timm:vit.json'\n"))["model"] == "timm:vit.json"
    assert read_job(job_file("model = 'nets.small:build'\n"), allow_code=True)["model"] == "nets.small:build"


@pytest.mark.parametrize(("written", "count"), [("my.toml", ""), ("8x my.toml", "8x ")])
def test_profile_files_are_found_beside_the_job_file(job_file, written, count):
    path = job_file(f"model = 'zoo:gpt2'\nhardware = '{written}'\n")
    assert read_job(path)["hardware"] == count + str(path.parent / "my.toml")


def test_python_code_in_a_file_needs_permission(job_file):
    path = job_file("model = 'net.py:build'\n")
    with pytest.raises(InputError, match=r"net\.py:build' is Python code.*--allow-code"):
        read_job(path)
    assert read_job(path, allow_code=True)["model"] == f"{path.parent / 'net.py'}:build"


def test_overrides_replace_keys(job_file):
    path = job_file("model = 'zoo:gpt2'\nhardware = 'h100'\nbatch_size = 8\n")
    assert read_job(path, {"batch_size": 16}) == {"model": "zoo:gpt2", "hardware": "h100", "batch_size": 16}


@pytest.mark.parametrize(
    ("written", "given", "length"),
    [
        ("tokens = '1B'", {"steps": 10}, {"steps": 10}),
        ("epochs = 90\ndataset_size = 1000", {"steps": 10}, {"steps": 10}),
        ("epochs = 90\ndataset_size = 1000", {"epochs": 3.0}, {"epochs": 3.0, "dataset_size": 1000}),
        ("epochs = 90\ndataset_size = 1000", {"dataset_size": 5}, {"epochs": 90.0, "dataset_size": 5}),
        ("steps = 10", {"epochs": 3.0, "dataset_size": 5}, {"epochs": 3.0, "dataset_size": 5}),
    ],
)
def test_a_length_given_replaces_the_length_of_the_file(job_file, written, given, length):
    fields = read_job(job_file(f"model = 'zoo:gpt2'\n{written}\n"), given)
    assert {k: v for k, v in fields.items() if k != "model"} == length


def test_every_field_of_a_job_can_be_checked():
    for key, field in Job.model_fields.items():
        if key not in {"model", "inputs", "dims", "hardware"}:
            value = field.default if field.default is not None else {"pue": 1.2, "price": 2.0}.get(key, 1)
            value = "world" if key in {"region", "stack", "profile"} else value
            assert check_value(key, value, key) == value
    assert set(COUNTS) < set(Job.model_fields)
