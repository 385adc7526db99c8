"""Formulas against arithmetic spelled out here."""

import pytest

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import FORMULAS, GRADIENTS, by_bytes, channels_last, formula


def tensor(*shape, dtype="float32", stride=()):
    return TensorSpec(shape, dtype, stride)


def cost(name, inputs, outputs, **attrs):
    return FORMULAS[name](Op(name, tuple(inputs), tuple(outputs), attrs))


def test_matmul():
    (kernel,) = cost("aten.mm", [tensor(4, 8), tensor(8, 16)], [tensor(4, 16)])
    assert kernel.work == Work(
        matrix_flop=2 * 4 * 8 * 16, read_byte=4 * (4 * 8 + 8 * 16), write_byte=4 * 4 * 16
    )
    assert kernel.dims == (1, 4, 16, 8)


def test_batched_matmul_counts_every_product():
    (kernel,) = cost("aten.bmm", [tensor(3, 4, 8), tensor(3, 8, 16)], [tensor(3, 4, 16)])
    assert kernel.work.matrix_flop == 3 * 2 * 4 * 8 * 16
    assert kernel.dims == (3, 4, 16, 8)


def test_addmm_reads_what_it_adds():
    (kernel,) = cost("aten.addmm", [tensor(16), tensor(4, 8), tensor(8, 16)], [tensor(4, 16)])
    assert kernel.work.matrix_flop == 2 * 4 * 8 * 16
    assert kernel.work.read_byte == 4 * (16 + 4 * 8 + 8 * 16)


def conv(x, w, y, groups=1, transposed=False):
    (kernel,) = cost("aten.convolution", [x, w], [y], groups=groups, transposed=transposed)
    return kernel


def test_convolution_is_one_filter_per_output():
    kernel = conv(tensor(2, 3, 8, 8), tensor(16, 3, 3, 3), tensor(2, 16, 6, 6))
    assert kernel.work.matrix_flop == 2 * (2 * 16 * 6 * 6) * (3 * 3 * 3)
    assert kernel.dims == (1, 2 * 6 * 6, 16, 3 * 3 * 3)
    assert kernel.kind == "conv"


def test_grouped_convolution_meets_its_group_alone():
    kernel = conv(tensor(2, 8, 8, 8), tensor(16, 2, 3, 3), tensor(2, 16, 6, 6), groups=4)
    assert kernel.work.matrix_flop == 2 * (2 * 16 * 6 * 6) * (2 * 3 * 3)
    assert kernel.dims[0] == 4


def test_depthwise_convolution_is_a_kind_of_its_own():
    kernel = conv(tensor(2, 8, 8, 8), tensor(8, 1, 3, 3), tensor(2, 8, 6, 6), groups=8)
    assert kernel.kind == "depthwise"
    assert kernel.work.matrix_flop == 2 * (2 * 8 * 6 * 6) * (3 * 3)


def test_transposed_convolution_is_one_filter_per_input():
    kernel = conv(tensor(2, 8, 4, 4), tensor(8, 5, 2, 2), tensor(2, 5, 8, 8), transposed=True)
    assert kernel.work.matrix_flop == 2 * (2 * 8 * 4 * 4) * (5 * 2 * 2)


def test_channels_last_is_read_from_strides():
    assert channels_last(tensor(2, 3, 8, 8, stride=(192, 1, 24, 3)))
    assert not channels_last(tensor(2, 3, 8, 8, stride=(192, 64, 8, 1)))


@pytest.mark.parametrize(
    ("mask", "products"), [((True, True, True), 2), ((False, True, False), 1), ((True, False, False), 1)]
)
def test_convolution_backward_does_what_its_mask_asks(mask, products):
    inputs = [tensor(2, 16, 6, 6), tensor(2, 3, 8, 8), tensor(16, 3, 3, 3)]
    kernels = cost("aten.convolution_backward", inputs, [], groups=1, transposed=False, output_mask=mask)
    forward = 2 * (2 * 16 * 6 * 6) * (3 * 3 * 3)
    assert sum(k.work.matrix_flop for k in kernels) == products * forward
    assert [k.kind for k in kernels].count("reduce") == int(mask[2])


def attention(name, causal, s=4, t=4, hq=2, hkv=2, d=8):
    q, k = tensor(3, hq, s, d), tensor(3, hkv, t, d)
    inputs = [q, k, k] if name == "predictor.attention" else [q, q, k, k, q, tensor(3, hq, s)]
    (kernel,) = cost(name, inputs, [q], is_causal=causal)
    return kernel.work


def test_attention_is_two_products():
    assert attention("predictor.attention", False).matrix_flop == 2 * 2 * (3 * 2 * 4 * 4) * 8


def test_causal_attention_computes_the_lower_triangle():
    assert attention("predictor.attention", True).matrix_flop == 2 * 2 * (3 * 2 * (4 * 5 // 2)) * 8


def test_causal_attention_over_fewer_queries_than_keys_stops_at_the_diagonal():
    assert attention("predictor.attention", True, s=2, t=6).matrix_flop == 4 * (3 * 2 * (1 + 2)) * 8


def test_causal_attention_over_more_queries_than_keys_sees_all_keys_after_them():
    assert (
        attention("predictor.attention", True, s=5, t=2).matrix_flop == 4 * (3 * 2 * (1 + 2 + 2 + 2 + 2)) * 8
    )


def test_grouped_heads_share_bytes_not_work():
    full, grouped = (attention("predictor.attention", False, hq=8, hkv=n) for n in (8, 2))
    assert grouped.matrix_flop == full.matrix_flop
    assert full.read_byte - grouped.read_byte == 2 * 4 * 3 * (8 - 2) * 4 * 8


def test_attention_backward_is_four_products_and_the_scores_again():
    forward = attention("predictor.attention", True)
    backward = attention("predictor.attention_backward", True)
    assert backward.matrix_flop == 2 * forward.matrix_flop
    assert backward.recompute_flop == forward.matrix_flop // 2


def test_experts_share_the_tokens():
    (kernel,) = cost("predictor.grouped_mm", [tensor(32, 8), tensor(4, 8, 16), tensor(4)], [tensor(32, 16)])
    assert kernel.work.matrix_flop == 2 * 32 * 8 * 16
    assert kernel.dims == (4, 8, 16, 8)


def test_views_move_nothing():
    assert cost("aten.view", [tensor(4, 8)], [tensor(32)]) == ()


def test_a_broadcast_input_is_read_once():
    row = tensor(4, 8, stride=(0, 1))
    (kernel,) = cost("aten.add", [row, tensor(4, 8)], [tensor(4, 8)])
    assert kernel.work.read_byte == 4 * 8 + 4 * 4 * 8


def test_embedding_reads_the_rows_it_needs():
    (kernel,) = cost("aten.embedding", [tensor(50000, 8), tensor(3, 5, dtype="int64")], [tensor(3, 5, 8)])
    assert kernel.work.read_byte == 4 * 3 * 5 * 8 + 8 * 3 * 5


def test_embedding_gradient_writes_the_whole_table():
    (kernel,) = cost(
        "aten.embedding_dense_backward", [tensor(3, 5, 8), tensor(3, 5, dtype="int64")], [tensor(50000, 8)]
    )
    assert kernel.work.write_byte >= 4 * 50000 * 8


def test_an_unknown_operator_moves_its_inputs_and_outputs():
    (kernel,) = by_bytes(Op("aten.unheard_of", (tensor(4),), (tensor(2),)))
    assert (kernel.kind, kernel.work.read_byte, kernel.work.write_byte) == ("unpriced", 16, 8)


def test_a_name_has_one_formula():
    with pytest.raises(ValueError, match=r"aten\.mm has two formulas"):
        formula("aten.mm")(by_bytes)


def test_gradients_are_of_operators_that_have_a_formula():
    assert set(GRADIENTS) <= set(FORMULAS)


def test_work_adds_up():
    assert Work(1, 2, 3, 4, 5) + Work(10, 20, 30, 40, 50) == Work(11, 22, 33, 44, 55)
