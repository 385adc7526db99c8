"""JAX functions: flop against arithmetic; scans multiplied out; gradients recorded, never run."""

import subprocess
import sys

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from predictor.errors import InputError, UnsupportedError  # noqa: E402
from predictor.frontends import ReadOptions, load_graph, runs_code  # noqa: E402
from predictor.frontends.jax_function import read_jax  # noqa: E402
from predictor.graph_file import dumps, loads, to_plain  # noqa: E402
from predictor.ir import BACKWARD, FORWARD, Op, TensorSpec  # noqa: E402
from predictor.jobfile import read_job  # noqa: E402
from predictor.ops import FORMULAS  # noqa: E402
from predictor.passes import steps_of  # noqa: E402
from predictor.stack import find_stack  # noqa: E402
from predictor.workload import count  # noqa: E402


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def flop(graph, train=True):
    """Matrix flop forward and backward."""
    steps = steps_of(graph, train)
    return tuple(
        sum(k.work.matrix_flop for step in steps if step.phase == phase for k in step.kernels)
        for phase in (FORWARD, BACKWARD)
    )


def recomputed(graph):
    return sum(k.work.recompute_flop for step in steps_of(graph, True) for k in step.kernels)


def unpriced(graph):
    return {op.name for op in graph.ops} - FORMULAS.keys()


def mlp_loss(params, x, labels):
    """Plain two-layer classifier."""
    hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
    logits = hidden @ params["w2"]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def mlp_inputs(b=32):
    params = {"w1": shape(64, 256), "b1": shape(256), "w2": shape(256, 10)}
    return params, shape(b, 64), shape(b, dtype=jnp.int32)


def test_mlp():
    b = 32
    graph = read_jax(mlp_loss, mlp_inputs(b))
    first, second = 2 * b * 64 * 256, 2 * b * 256 * 10
    assert flop(graph) == (first + second, first + 2 * second)  # no gradient for x
    assert graph.parameter_count == 64 * 256 + 256 + 256 * 10
    assert [p.name for p in graph.parameters] == ["b1", "w1", "w2"]
    assert (graph.batch, graph.tokens_per_sample) == (b, None)
    assert graph.input_byte == 4 * b * 64 + 4 * b
    assert not unpriced(graph)
    assert flop(read_jax(mlp_loss, mlp_inputs(b), train=False), train=False) == (first + second, 0)


def test_the_job_sets_the_batch():
    again = read_jax(mlp_loss, mlp_inputs(32), batch=8)
    assert (again.batch, flop(again)) == (8, flop(read_jax(mlp_loss, mlp_inputs(8))))


def conv(x, weight, stride, groups=1, padding="SAME"):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, weight, (stride, stride), padding, dimension_numbers=dims, feature_group_count=groups
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients(stride, padding):
    b, side, c = 4, 16, 8

    def loss(params, x):
        x = jax.nn.relu(conv(x, params["first"], 1))
        x = jax.nn.relu(conv(x, params["grouped"], stride, groups=4, padding=padding))
        x = conv(x, params["depthwise"], 1, groups=16)
        return jnp.mean(lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"))

    params = {"first": shape(3, 3, 3, c), "grouped": shape(3, 3, c // 4, 16), "depthwise": shape(3, 3, 1, 16)}
    graph = read_jax(loss, (params, shape(b, side, side, 3)))
    out = (side if padding == "SAME" else side - 2 + stride - 1) // stride
    first = 2 * (b * side**2 * c) * 9 * 3
    grouped = 2 * (b * out**2 * 16) * 9 * (c // 4)
    depthwise = 2 * (b * out**2 * 16) * 9
    forward = first + grouped + depthwise
    assert flop(graph) == (forward, 2 * forward - first)
    assert not unpriced(graph)
    kinds = [k.kind for s in steps_of(graph, True) for k in s.kernels if k.work.matrix_flop]
    assert kinds.count("depthwise") == 3
    assert "conv-channels-last" in kinds


def block(x, w, heads):
    """One pre-norm transformer block on [b, s, width]."""
    b, s, width = x.shape
    y = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    q, k, v = jnp.split((y @ w["qkv"]).reshape(b, s, heads, -1), 3, axis=-1)
    scores = jnp.einsum("bshd,bthd->bhst", q, k) / (width // heads) ** 0.5
    scores = jnp.where(jnp.tril(jnp.ones((s, s), bool)), scores, -jnp.inf)
    y = jnp.einsum("bhst,bthd->bshd", jax.nn.softmax(scores), v).reshape(b, s, width)
    x = x + y @ w["out"]
    return x + jax.nn.gelu(x @ w["up"]) @ w["down"]


def transformer_loss(layers, heads=4, remat=False, scan=True):
    step = jax.checkpoint(block, static_argnums=2) if remat else block

    def loss(params, ids):
        x = params["table"][ids]
        if scan:
            x, _ = lax.scan(lambda x, w: (step(x, w, heads), None), x, params["blocks"])
        else:
            for i in range(layers):
                x = step(x, jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], params["blocks"]), heads)
        logits = x @ params["table"].T
        return -jnp.mean(jax.nn.log_softmax(logits)[..., 0])

    return loss


def transformer_inputs(layers, b=2, s=16, width=32, vocabulary=50):
    blocks = {
        "qkv": shape(layers, width, 3 * width),
        "out": shape(layers, width, width),
        "up": shape(layers, width, 4 * width),
        "down": shape(layers, 4 * width, width),
    }
    return {"table": shape(vocabulary, width), "blocks": blocks}, shape(b, s, dtype=jnp.int32)


def transformer_flop(layers, b=2, s=16, width=32, vocabulary=50):
    """Products of the weights and of all s*s scores: plain JAX masks afterwards."""
    per_layer = 2 * b * s * (3 + 1 + 4 + 4) * width**2 + 2 * 2 * b * s * s * width
    return layers * per_layer, 2 * b * s * width * vocabulary


@pytest.mark.parametrize("layers", [1, 7])
def test_scan_over_layers_is_multiplied_out(layers):
    graph = read_jax(transformer_loss(layers), transformer_inputs(layers))
    blocks, head = transformer_flop(layers)
    assert flop(graph) == (blocks + head, 2 * (blocks + head))
    assert graph.tokens_per_sample == 16
    assert graph.parameter_count == layers * 12 * 32**2 + 50 * 32
    assert not unpriced(graph)


def test_scan_equals_the_written_out_loop():
    scanned = read_jax(transformer_loss(3), transformer_inputs(3))
    written = read_jax(transformer_loss(3, scan=False), transformer_inputs(3))
    assert flop(scanned) == flop(written)


@pytest.mark.parametrize("scan", [True, False])
def test_what_checkpoint_computes_again_is_not_the_models(scan):
    layers = 3
    graph = read_jax(transformer_loss(layers, remat=True, scan=scan), transformer_inputs(layers))
    blocks, head = transformer_flop(layers)
    assert flop(graph) == (blocks + head, 2 * (blocks + head))
    # All of a block is computed again but its last product, whose result no gradient needs.
    down = 2 * 2 * 16 * 4 * 32**2
    assert recomputed(graph) == blocks - layers * down


def test_nested_calls_and_scans():
    def loss(params, x):
        def inner(x, w):
            return lax.scan(lambda x, _: (jax.jit(jnp.dot)(x, w), None), x, None, length=5)[0], None

        return jnp.sum(lax.scan(inner, x, params)[0])

    b, width = 4, 8
    graph = read_jax(loss, (shape(3, width, width), shape(b, width)))
    product = 2 * b * width**2
    # Every product has both gradients; x of the very first one is carried, so it has them too.
    assert flop(graph) == (15 * product, 30 * product)


def test_dead_code_costs_nothing():
    def loss(params, x):
        _ = (x @ params) @ params
        return jnp.sum(x @ params)

    graph = read_jax(loss, (shape(8, 8), shape(2, 8)))
    assert flop(graph) == (2 * 2 * 8 * 8, 2 * 2 * 8 * 8)


def test_a_condition_counts_its_larger_branch():
    def loss(params, x):
        y = lax.cond(x[0, 0] > 0, lambda: x @ params @ params, lambda: x)
        return jnp.sum(y)

    graph = read_jax(loss, (shape(8, 8), shape(2, 8)), train=False)
    assert flop(graph, train=False) == (2 * 2 * 2 * 8 * 8, 0)
    assert "conditions" in [topic for topic, _, _ in graph.notes]


def test_ragged_products_are_taken_as_balanced():
    def loss(params, x, sizes):
        return jnp.sum(lax.ragged_dot(x, params, sizes))

    graph = read_jax(loss, (shape(4, 16, 32), shape(64, 16), shape(4, dtype=jnp.int32)), train=False)
    assert flop(graph, train=False) == (2 * 64 * 16 * 32, 0)


def test_bytes_of_a_product_and_of_a_broadcast():
    x = TensorSpec((4, 8), "bfloat16")
    weight, y = TensorSpec((8, 6), "bfloat16"), TensorSpec((4, 6), "bfloat16")
    (kernel,) = FORMULAS["jax.dot_general"](
        Op("jax.dot_general", (x, weight), (y,), {"dimension_numbers": (((1,), (0,)), ((), ()))})
    )
    assert kernel.dims == (1, 4, 6, 8)
    assert (kernel.work.read_byte, kernel.work.write_byte) == (2 * (32 + 48), 2 * 24)

    def loss(params, x):
        return jnp.sum(x + jnp.broadcast_to(params, (1000, 64)))

    graph = read_jax(loss, (shape(64), shape(1000, 64)), train=False)
    (added,) = [s for s in steps_of(graph, False) if s.op.name == "jax.add"]
    assert added.kernels[0].work.read_byte == 4 * (1000 * 64 + 64)


FILE = """
import jax, jax.numpy as jnp

def build(width):
    return {"w": jnp.zeros((width, width)), "scale": jnp.ones(width)}

def example_inputs(batch_size=4, seq_len=16):
    params = jax.eval_shape(lambda: build(32))
    return params, jax.ShapeDtypeStruct((batch_size, seq_len, 32), jnp.float32)

def loss(params, x):
    return jnp.mean((x @ params["w"]) * params["scale"])
"""


def test_named_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    source = f"jax:{path}:loss"
    assert runs_code(source)
    graph = load_graph(source, ReadOptions(batch=8, seq_len=5, precision="bf16"))
    assert flop(graph) == (2 * 8 * 5 * 32**2, 2 * 8 * 5 * 32**2)
    assert {t.dtype for op in graph.ops for t in op.inputs if "float" in t.dtype} == {"bfloat16"}
    work = count(graph, find_stack("compiled-2"), True)
    assert work.bytes_by_formula == 1.0
    assert loads(dumps(to_plain(graph)), "graph")["ops"]  # plain enough to be kept on disk
    job = tmp_path / "job.toml"
    job.write_text('model = "jax:net.py:loss"\nhardware = "h100"\n')
    assert read_job(job, allow_code=True)["model"] == source
    with pytest.raises(InputError, match="read that code"):
        read_job(job)
    with pytest.raises(InputError, match="image_size 5 has no effect"):
        load_graph(source, ReadOptions(image_size=5))
    with pytest.raises(InputError, match="has no function 'los'; did you mean 'loss'"):
        load_graph(f"jax:{path}:los", ReadOptions())


def test_python_door():
    params, *batch = mlp_inputs(32)
    graph = load_graph(mlp_loss, ReadOptions(batch=16, inputs=(params, *batch)))
    assert graph.origin["frontend"] == "jax"
    assert graph.batch == 16


def test_nothing_is_run_or_allocated():
    """A petabyte of weights is traced, and no device array is made."""
    params = {"w1": shape(2**22, 2**24), "b1": shape(2**24), "w2": shape(2**24, 10)}
    graph = read_jax(mlp_loss, (params, shape(4, 2**22), shape(4, dtype=jnp.int32)))
    assert flop(graph)[0] == 2 * 4 * (2**46 + 2**24 * 10)
    assert not jax.live_arrays()


def test_frontends_do_not_import_jax():
    code = "import sys, predictor.frontends; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_what_cannot_be_counted_is_refused_by_name():
    def endless(params, x):
        return jnp.sum(lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ params, x))

    def by_value(params, x):
        return jnp.sum(x @ params) if x[0, 0] > 0 else 0.0

    def wrong(params, x):
        return x @ params

    inputs = (shape(8, 8), shape(2, 8))
    for function, given, kind, message in (
        (endless, inputs, UnsupportedError, "while loop"),
        (by_value, inputs, UnsupportedError, "depends on data"),
        (wrong, inputs, InputError, "scalar"),
        (wrong, (shape(8, 8), shape(2, 7)), InputError, "line"),
        (wrong, (shape(8, 8),), InputError, "at least one batch"),
        (wrong, (shape(8, 8), "x"), InputError, "hold a str"),
    ):
        train = function is not endless
        with pytest.raises(kind, match=message):
            read_jax(function, given, train=train)
