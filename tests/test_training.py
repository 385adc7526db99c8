from pathlib import Path

import pytest

from predictor.errors import InputError
from predictor.job import Job
from predictor.training import OPTIMIZERS, RECIPES, optimizer_kernel, run_steps


def job(**length):
    return Job(model="zoo:resnet50", hardware="h100", **length)


def test_adam_in_float32_moves_seven_values_per_parameter():
    work = optimizer_kernel("adamw", RECIPES["fp32"], 1000).work
    assert work.read_byte == 4 * 4 * 1000  # gradient, weight, two moments
    assert work.write_byte == 3 * 4 * 1000  # weight, two moments


def test_megatron_keeps_18_bytes_per_parameter():
    recipe = RECIPES["bf16"]
    states = OPTIMIZERS["adamw"].states * recipe.state
    assert recipe.weight + recipe.gradient + recipe.master + states == 18


def test_autocast_keeps_16_bytes_per_parameter():
    recipe = RECIPES["amp-bf16"]
    assert recipe.weight + recipe.gradient + recipe.master + 2 * recipe.state == 16


def test_pure_half_also_writes_the_half_copy():
    full, half = (optimizer_kernel("sgd", RECIPES[p], 1000).work for p in ("fp32", "bf16"))
    assert half.write_byte == full.write_byte + 2 * 1000


def test_no_optimizer_does_nothing():
    assert optimizer_kernel("none", RECIPES["fp32"], 1000).work.read_byte == 0


def test_lengths_become_steps():
    assert run_steps(job(steps=7), 256, None) == 7
    assert run_steps(job(samples=1000), 256, None) == 4  # 3.9, the last one short
    assert run_steps(job(tokens="1B"), 512, 2048) == -(-(10**9) // (512 * 2048))
    assert run_steps(job(epochs=90, dataset_size=1_281_167), 256, None) == -(-90 * 1_281_167 // 256)


def test_tokens_need_a_token_model():
    with pytest.raises(InputError, match="no token sequence"):
        run_steps(job(tokens=10), 1, None)


def table(text, columns):
    """Rows of a Markdown table whose first cell is a name in backticks."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == columns and cells[0].startswith("`"):
            rows[cells[0].split("`")[1]] = cells[1:]
    return rows


def test_the_documented_bytes_are_the_recipes():
    page = (Path(__file__).parent.parent / "docs" / "reference" / "precision.md").read_text()
    recipes = table(page, 8)
    assert set(recipes) == set(RECIPES)
    for name, recipe in RECIPES.items():
        weight, copies, master, gradient, state, total = map(int, recipes[name][:6])
        assert (weight, copies, master, gradient) == (
            recipe.weight,
            recipe.copies,
            recipe.master,
            recipe.gradient,
        )
        assert state == 2 * recipe.state
        assert total == weight + copies + master + gradient + state
    for name, cells in table(page, 3).items():
        assert (float(cells[0]), int(cells[1])) == (OPTIMIZERS[name].states, OPTIMIZERS[name].flop)
