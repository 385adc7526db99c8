import pytest

from predictor.errors import InputError
from predictor.job import Job


def refuse(match, **fields):
    with pytest.raises(InputError, match=match):
        Job(**({"model": "zoo:resnet50", "hardware": "h100"} | fields))


@pytest.mark.parametrize(
    "field", ["count", "nodes", "batch_size", "micro_batch", "seq_len", "image_size", "dp", "tp"]
)
@pytest.mark.parametrize("value", [0, -4])
def test_sizes_are_positive(field, value):
    refuse(rf"{field} is {value}", **{field: value})


def test_an_unknown_field_is_named_with_a_near_one():
    refuse("unknown key 'batchsize'; did you mean 'batch_size'", batchsize=3)


def test_choices_are_listed():
    refuse("accepted: 'fp32', 'tf32'", precision="fp17")
    refuse("zero is 4", zero=4)


def test_one_length_at_most():
    refuse("length given more than once: steps, tokens", steps=1, tokens=2)


def test_epochs_need_the_size_of_the_dataset():
    refuse("epochs and dataset_size belong together", epochs=3)


def test_a_facility_uses_at_least_its_machines():
    refuse("pue is 0.9", pue=0.9)


def test_prices_are_not_negative():
    refuse("price is -1", price=-1)


def test_counts_read_multiples():
    assert Job(model="m", hardware="h", tokens="15T").tokens == 15 * 10**12


def test_symbolic_axes_get_their_sizes():
    assert Job(model="m", hardware="h", dims=["width=320", "time=16"]).dim_sizes == {"width": 320, "time": 16}
    for text in ("width", "width=", "=3", "width=0", "width=-1", "width=1.5"):
        with pytest.raises(InputError, match="write NAME=SIZE"):
            _ = Job(model="m", hardware="h", dims=[text]).dim_sizes
