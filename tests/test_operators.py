"""Formulas of recurrent layers, regions, transforms and pools against arithmetic spelled out here."""

import pytest
import torch
from torch import nn

from predictor.frontends import ReadOptions, load_graph
from predictor.ir import BACKWARD, FORWARD, Op, TensorSpec
from predictor.ops import FORMULAS


def tensor(*shape, dtype="float32", stride=()):
    return TensorSpec(shape, dtype, stride)


def cost(name, inputs, outputs, **attrs):
    return FORMULAS[name](Op(name, tuple(inputs), tuple(outputs), attrs))


def matrix_flop(graph, phase):
    return sum(k.work.matrix_flop for op in graph.ops if op.phase == phase for k in FORMULAS[op.name](op))


# Recurrent layers

STEPS, BATCH, WIDTH, HIDDEN = 5, 3, 16, 8
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(WIDTH, HIDDEN, **options)

    def forward(self, x):
        return self.layer(x)[0]


def recurrent_graph(kind, precision="fp32", train=True, **options):
    inputs = torch.zeros(STEPS, BATCH, WIDTH)
    return load_graph(
        Recurrent(kind, **options), ReadOptions(inputs=inputs, train=train, precision=precision)
    )


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_meet_input_and_state_at_every_step(kind, biases, directions):
    graph = recurrent_graph(kind, num_layers=2, bias=biases, bidirectional=directions == 2)
    gates = GATES[kind] * HIDDEN
    first = 2 * STEPS * BATCH * gates * (WIDTH + HIDDEN)
    second = 2 * STEPS * BATCH * gates * (directions * HIDDEN + HIDDEN)
    assert matrix_flop(graph, FORWARD) == directions * (first + second)
    assert matrix_flop(graph, BACKWARD) == 2 * directions * (first + second)


def test_a_projected_state_is_smaller_and_costs_a_product():
    graph = recurrent_graph(nn.LSTM, proj_size=2, train=False)
    gates = 4 * HIDDEN
    assert matrix_flop(graph, FORWARD) == 2 * STEPS * BATCH * (gates * (WIDTH + 2) + 2 * HIDDEN)


def test_state_products_run_once_a_step():
    graph = recurrent_graph(nn.LSTM, train=False)
    (op,) = [op for op in graph.ops if op.name == "predictor.recurrent"]
    dims = [kernel.dims for kernel in FORMULAS[op.name](op) if kernel.kind == "matmul"]
    assert dims == [(1, STEPS * BATCH, 4 * HIDDEN, WIDTH), (STEPS, BATCH, 4 * HIDDEN, HIDDEN)]


def test_a_recurrent_layer_keeps_its_gates_for_the_backward_pass():
    def result_byte(train):
        graph = recurrent_graph(nn.LSTM, train=train)
        (op,) = [op for op in graph.ops if op.name == "predictor.recurrent"]
        return sum(t.byte for t in op.outputs)

    # Four gates, the cell and the state of every step.
    assert result_byte(True) - result_byte(False) == 4 * STEPS * BATCH * HIDDEN * 6


def test_recurrent_layers_run_in_half_under_autocast():
    graph = recurrent_graph(nn.GRU, precision="amp-bf16")
    assert {op.inputs[0].dtype for op in graph.ops if op.name.startswith("predictor.rec")} == {"bfloat16"}


class Packed(Recurrent):
    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 4, 2]), enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]


def test_packed_sequences_count_at_full_length():
    packed = load_graph(Packed(nn.LSTM), ReadOptions(inputs=torch.zeros(STEPS, BATCH, WIDTH)))
    padded = recurrent_graph(nn.LSTM)
    assert matrix_flop(packed, FORWARD) == matrix_flop(padded, FORWARD)
    assert matrix_flop(packed, BACKWARD) == matrix_flop(padded, BACKWARD)
    assert {op.name for op in packed.ops} <= FORMULAS.keys()


def test_the_results_of_recurrent_layers_have_the_shapes_pytorch_gives():
    for kind in GATES:
        for options in ({}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True}):
            module = Recurrent(kind, **options)
            x = torch.zeros(STEPS, BATCH, WIDTH)
            graph = load_graph(module, ReadOptions(inputs=x, train=False))
            assert graph.ops[-1].outputs[0].shape == tuple(module(x).shape)


# Regions, boxes, deformable convolutions


def test_regions_mix_four_neighbours_per_point():
    features, rois, y = tensor(2, 16, 50, 50), tensor(100, 5), tensor(100, 16, 7, 7)
    (kernel,) = cost("torchvision.roi_align", [features, rois], [y], sampling_ratio=2)
    assert kernel.work.vector_flop == 100 * 16 * 7 * 7 * (2 * 2) * 4 * 2
    assert kernel.work.read_byte == features.byte + rois.byte


def test_a_few_regions_do_not_read_the_whole_image():
    features, rois, y = tensor(2, 16, 500, 500), tensor(1, 5), tensor(1, 16, 7, 7)
    (kernel,) = cost("torchvision.roi_align", [features, rois], [y], sampling_ratio=2)
    assert kernel.work.read_byte == 4 * (16 * 7 * 7 * (2 * 2) * 4) + rois.byte


def test_suppression_compares_every_pair_of_boxes():
    small, large = (
        cost("torchvision.nms", [tensor(n, 4), tensor(n)], [tensor(n, dtype="int64")])[0].work.vector_flop
        for n in (100, 200)
    )
    assert small / 15 == 100 * 99 / 2
    assert large / 15 == 200 * 199 / 2


def test_a_deformable_convolution_has_the_product_of_a_plain_one():
    x, weight, y = tensor(2, 8, 10, 10), tensor(16, 4, 3, 3), tensor(2, 16, 10, 10)
    offset, mask = tensor(2, 18, 10, 10), tensor(2, 9, 10, 10)
    inputs = [x, weight, offset, mask, tensor(16)]
    plain = cost("aten.convolution", [x, weight], [y], groups=2)[0].work.matrix_flop
    forward = cost("torchvision.deform_conv2d", inputs, [y], groups=2)
    backward = cost("torchvision._deform_conv2d_backward", [y, *inputs], [], groups=2)
    assert sum(k.work.matrix_flop for k in forward) == plain
    assert sum(k.work.matrix_flop for k in backward) == 2 * plain


# Transforms, complex products


def test_a_transform_takes_five_n_log_n():
    x = tensor(3, 1024, dtype="complex64")
    (kernel,) = cost("aten._fft_c2c", [x], [x], dim=(1,))
    assert kernel.work.vector_flop == 3 * 5 * 1024 * 10
    assert kernel.work.read_byte == 8 * 3 * 1024


def test_a_real_transform_is_half_as_large_either_way():
    real, half = tensor(3, 1024), tensor(3, 513, dtype="complex64")
    (there,) = cost("aten._fft_r2c", [real], [half], dim=(1,))
    (back,) = cost("aten._fft_c2r", [half], [real], dim=(1,))
    assert there.work.vector_flop == back.work.vector_flop == 3 * 5 * 1024 * 10 // 2


def test_a_determinant_is_an_elimination():
    """3 x 3: 2 divisions and 4 multiply-adds for the first column, 1 and 1 for the second."""
    x, pivots = tensor(5, 3, 3), tensor(5, 3, dtype="int32")
    (lu,) = cost("aten._linalg_slogdet", [x], [tensor(5), tensor(5), x, pivots])
    assert lu.work.vector_flop == 5 * (2 + 2 * 4 + 1 + 2 * 1)
    (solved,) = cost("aten.linalg_lu_solve", [x, pivots, tensor(5, 3, 2)], [tensor(5, 3, 2)])
    # Forward 0 + 1 + 2 multiply-adds, backward the same and a division a row.
    assert solved.work.vector_flop == 5 * 2 * (2 * 3 + 2 * 3 + 3)


def test_a_complex_product_is_four_real_ones():
    sides = [tensor(4, 8, dtype="complex64"), tensor(8, 16, dtype="complex64")]
    (kernel,) = cost("aten.mm", sides, [tensor(4, 16, dtype="complex64")])
    assert kernel.work.matrix_flop == 4 * 2 * 4 * 8 * 16
    assert kernel.dtype == "float32"


# Products of three, sums of products


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.layer = nn.Linear(4, 5), nn.Linear(4, 6), nn.Bilinear(5, 6, 7)

    def forward(self, x):
        return self.layer(self.left(x), self.right(x))


def test_a_bilinear_layer_multiplies_pair_by_pair():
    graph = load_graph(Bilinear(), ReadOptions(inputs=torch.zeros(3, 4)))
    b, n, i, j = 3, 7, 5, 6
    found = [op for op in graph.ops if op.name == "aten._trilinear"]
    flop = {
        op.outputs[0].shape: (op.phase, sum(k.work.matrix_flop for k in FORMULAS[op.name](op)))
        for op in found
    }
    whole = 2 * b * n * i * j
    assert flop == {
        (b, n): (FORWARD, whole + 2 * b * n * j),
        (b, i): (BACKWARD, whole + 2 * b * i * j),
        (b, j): (BACKWARD, whole + 2 * b * n * j),
        (n, i, j): (BACKWARD, whole),
    }
    for op in found:
        first, second = FORMULAS[op.name](op)
        assert first.work.read_byte == sum(t.byte for t in op.inputs[:2])
        assert second.work.read_byte == first.work.write_byte + op.inputs[2].byte
        assert second.work.write_byte == op.outputs[0].byte


def test_a_weight_of_three_axes_takes_outer_products_first():
    x1, dy, x2, grad = tensor(3, 5), tensor(3, 7), tensor(3, 6), tensor(7, 5, 6)
    axes = {"expand1": (1, 3), "expand2": (2, 3), "expand3": (1, 2), "sumdim": (0,)}
    outer, product = cost("aten._trilinear", [x1, dy, x2], [grad], **axes)
    assert (outer.kind, outer.work.vector_flop) == ("elementwise", 3 * 7 * 5)
    assert outer.work.write_byte == 4 * 3 * 7 * 5
    assert product.dims == (7, 5, 6, 3)


def test_a_sum_of_products_meets_its_result_once_a_product():
    c, a, b = tensor(8, 9), tensor(4, 8, 5), tensor(4, 5, 9)
    (kernel,) = cost("aten.addbmm", [c, a, b], [c])
    (batched,) = cost("aten.bmm", [a, b], [tensor(4, 8, 9)])
    assert kernel.work.matrix_flop == batched.work.matrix_flop == 2 * 4 * 8 * 9 * 5
    assert kernel.work.write_byte == batched.work.write_byte == 4 * c.byte
    assert kernel.work.read_byte == batched.work.read_byte + 4 * c.byte


def test_an_outer_product_is_one_multiply_add_per_element():
    c, u, v = tensor(8, 9), tensor(8), tensor(9)
    (kernel,) = cost("aten.addr", [c, u, v], [c])
    assert (kernel.work.matrix_flop, kernel.work.vector_flop) == (0, 2 * 8 * 9)
    assert (kernel.work.read_byte, kernel.work.write_byte) == (c.byte + u.byte + v.byte, c.byte)


# Bytes


def test_the_backward_of_a_pool_does_not_read_what_went_in():
    dy, x, where = tensor(2, 8, 4, 4), tensor(2, 8, 8, 8), tensor(2, 8, 4, 4, dtype="int64")
    (kernel,) = cost("aten.max_pool2d_with_indices_backward", [dy, x, where], [x])
    assert kernel.work.read_byte == dy.byte + where.byte
    assert kernel.work.write_byte == x.byte
    (kernel,) = cost("aten._adaptive_avg_pool2d_backward", [dy, x], [x])
    assert kernel.work.read_byte == dy.byte


def test_a_padding_s_backward_reads_the_gradient_alone():
    dy, x = tensor(2, 8, 10, 10), tensor(2, 8, 8, 8)
    (kernel,) = cost("aten.reflection_pad2d_backward", [dy, x], [x])
    assert (kernel.work.read_byte, kernel.work.write_byte) == (dy.byte, x.byte)


def test_writing_by_index_reads_what_it_adds_to():
    target, index, rows = tensor(1000, 16), tensor(10, dtype="int64"), tensor(10, 16)
    (put,) = cost("aten.index_put_", [target, index, rows], [target])
    (add,) = cost("aten.index_put_", [target, index, rows], [target], accumulate=True)
    assert put.work.read_byte == rows.byte + index.byte
    assert add.work.read_byte == 2 * rows.byte + index.byte
    assert put.work.write_byte == add.work.write_byte == rows.byte


def test_one_value_fills_as_many_places_as_the_index_names():
    target, index = tensor(1000), tensor(10, dtype="int64")
    (kernel,) = cost("aten.index_put_", [target, index, tensor()], [target])
    assert kernel.work.write_byte == 4 * 10


def test_an_embedding_bag_reads_a_row_per_index_and_writes_one_per_bag():
    table, ids, bags = tensor(1000, 16), tensor(40, dtype="int64"), tensor(4, dtype="int64")
    (kernel,) = cost("aten._embedding_bag", [table, ids, bags], [tensor(4, 16)])
    assert kernel.work.read_byte == 4 * 40 * 16 + ids.byte + bags.byte
    assert kernel.work.write_byte == 4 * 4 * 16


def test_distances_count_three_flop_per_pair_and_coordinate():
    (kernel,) = cost("aten._cdist_forward", [tensor(5, 7), tensor(6, 7)], [tensor(5, 6)])
    assert kernel.work.vector_flop == 3 * 5 * 6 * 7


@pytest.mark.parametrize(("training", "reads"), [(True, 2), (False, 1)])
def test_batch_norm_reads_its_input_twice_only_for_its_statistics(training, reads):
    x, c = tensor(2, 8, 4, 4), tensor(8)
    (kernel,) = cost("aten.native_batch_norm", [x, c, c, c, c], [x, c, c], training=training)
    assert kernel.work.read_byte == reads * x.byte + 4 * c.byte
    (kernel,) = cost("aten.native_batch_norm_backward", [x, x, c, c, c], [x, c, c], train=training)
    assert kernel.work.read_byte == 2 * reads * x.byte + 3 * c.byte
