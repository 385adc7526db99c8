"""Matrix products and their gradients."""

from dataclasses import replace
from math import prod

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, formula, gradient, wanted

# A complex product is four real ones, in the type of its parts.
_PARTS = {"complex64": "float32", "complex128": "float64"}


def product(g: int, m: int, n: int, k: int, dtype: str, read_byte: int, write_byte: int) -> Kernel:
    """``g`` products [m, k] @ [k, n]: 2*g*m*n*k flop."""
    real = 4 if dtype in _PARTS else 1
    work = Work(matrix_flop=2 * real * g * m * n * k, read_byte=read_byte, write_byte=write_byte)
    return Kernel("matmul", work, _PARTS.get(dtype, dtype), (real * g, m, n, k))


def _bytes(*tensors: TensorSpec) -> int:
    return sum(t.byte for t in tensors)


@formula("aten.mm", "aten.bmm", "aten._int_mm", "aten._scaled_mm")
def matmul(op: Op) -> tuple[Kernel, ...]:
    """[g, m, k] @ [g, k, n] -> [g, m, n]; two axes where g is 1."""
    a, b = op.inputs[:2]
    g = a.shape[0] if len(a.shape) == 3 else 1
    return (product(g, a.shape[-2], b.shape[-1], a.shape[-1], a.dtype, _bytes(a, b), _bytes(*op.outputs)),)


@formula("aten.addmm", "aten.baddbmm", "aten.addmm_", "aten.baddbmm_")
def add_matmul(op: Op) -> tuple[Kernel, ...]:
    """c + [g, m, k] @ [g, k, n]; the sum happens where the product is written."""
    c, a, b = op.inputs[:3]
    g = a.shape[0] if len(a.shape) == 3 else 1
    return (product(g, a.shape[-2], b.shape[-1], a.shape[-1], a.dtype, _bytes(a, b, c), _bytes(*op.outputs)),)


@formula("aten.addbmm", "aten.addbmm_")
def add_summed_matmul(op: Op) -> tuple[Kernel, ...]:
    """c + sum over g of [g, m, k] @ [g, k, n] -> [m, n]: g products, each added to the result in memory."""
    c, a, b = op.inputs[:3]
    g, m, k = a.shape
    return (product(g, m, b.shape[2], k, a.dtype, _bytes(a, b) + g * c.byte, g * _bytes(*op.outputs)),)


@formula("aten.addr", "aten.addr_")
def add_outer(op: Op) -> tuple[Kernel, ...]:
    """c + [m] outer [n] -> [m, n]: an elementwise pass of one multiply-add for each element."""
    y = op.outputs[0]
    work = Work(vector_flop=2 * y.elements, read_byte=_bytes(*op.inputs), write_byte=y.byte)
    return (Kernel("elementwise", work, y.dtype),)


@formula("aten._trilinear")
def trilinear(op: Op) -> tuple[Kernel, ...]:
    """sum over ``sumdim`` of a * b * c, each lacking the axes of its ``expand``: a bilinear layer.

    PyTorch loops over ``unroll_dim`` and multiplies pairs: a with b, summed over what c lacks, then c.
    Forward [b, i], [n, i, j], [b, j] -> [b, n]: 2*b*n*i*j + 2*b*n*j flop.

    Source: pytorch aten/src/ATen/native/Linear.cpp, _trilinear and sumproduct_pair.
    """
    a, b, c = op.inputs[:3]
    y = op.outputs[0]
    first, second, third = (
        _axes(tensor, op.attrs.get(f"expand{place}", ())) for place, tensor in enumerate((a, b, c), 1)
    )
    summed, loop = set(op.attrs["sumdim"]), op.attrs.get("unroll_dim", 1)
    early = summed - third.keys()
    between = {axis: size for axis, size in (first | second).items() if axis not in early}
    between_byte = prod(between.values()) * (y.byte // max(y.elements, 1))
    return (
        _pair(first, second, early, loop, y.dtype, _bytes(a, b), between_byte),
        _pair(between, third, summed - early, loop, y.dtype, between_byte + c.byte, y.byte),
    )


def _axes(tensor: TensorSpec, absent: tuple[int, ...]) -> dict[int, int]:
    """Size of every axis that a factor has, by its place among the axes of all factors."""
    places = (p for p in range(len(tensor.shape) + len(absent)) if p not in absent)
    return dict(zip(places, tensor.shape, strict=True))


def _pair(
    left: dict[int, int],
    right: dict[int, int],
    summed: set[int],
    loop: int,
    dtype: str,
    read_byte: int,
    write_byte: int,
) -> Kernel:
    """Two factors: a product where something is summed, else one multiplication for each element."""
    sizes = left | right
    if not summed:
        return Kernel("elementwise", Work(0, 0, prod(sizes.values()), read_byte, write_byte), dtype)
    sides = {"g": 1, "m": 1, "n": 1, "k": 1}
    for axis, size in sizes.items():
        alone = "m" if axis in left else "n"
        shared = axis in left and axis in right
        side = "g" if axis == loop else "k" if axis in summed else "g" if shared else alone
        sides[side] *= size
    return product(sides["g"], sides["m"], sides["n"], sides["k"], dtype, read_byte, write_byte)


@formula("aten.linear")
def linear(op: Op) -> tuple[Kernel, ...]:
    """[..., k] @ weight [n, k] transposed + bias [n] -> [..., n]."""
    x, weight = op.inputs[:2]
    n, k = weight.shape
    return (product(1, x.elements // max(k, 1), n, k, x.dtype, _bytes(*op.inputs), _bytes(*op.outputs)),)


@formula("aten.mv", "aten.addmv", "aten.addmv_", "aten.dot", "aten.vdot")
def matrix_vector(op: Op) -> tuple[Kernel, ...]:
    """[m, k] @ [k] -> [m], or [k] @ [k] -> []."""
    a, b = op.inputs[-2:]
    k = b.elements
    return (product(1, a.elements // max(k, 1), 1, k, a.dtype, _bytes(*op.inputs), _bytes(*op.outputs)),)


@formula("predictor.grouped_mm")
def grouped_matmul(op: Op) -> tuple[Kernel, ...]:
    """Rows [t, k] of e experts, each times its own [k, n]; the load is taken as balanced."""
    a, b = op.inputs[:2]
    e, k, n = b.shape
    kernel = product(1, a.shape[0], n, k, a.dtype, _bytes(a, b), _bytes(*op.outputs))
    return (replace(kernel, dims=(e, max(a.shape[0] // e, 1), n, k), family="experts"),)


@formula("predictor.grouped_mm_weight")
def grouped_matmul_weight(op: Op) -> tuple[Kernel, ...]:
    """Weight gradient of e experts: [k, t/e] @ [t/e, n] each."""
    a, grad = op.inputs[:2]
    e, k, n = op.outputs[0].shape
    kernel = product(1, k, n, a.shape[0], a.dtype, _bytes(a, grad), _bytes(*op.outputs))
    return (replace(kernel, dims=(e, k, n, max(a.shape[0] // e, 1)), family="experts-weight"),)


def _product_of(op: Op) -> tuple[TensorSpec, TensorSpec, int, int, int, int]:
    """The two factors and g, m, n, k of a product with leading axes that may broadcast."""
    a, b = op.inputs[:2]
    k = a.shape[-1]
    n = b.shape[-1] if len(b.shape) > 1 else 1
    if len(b.shape) <= 2:
        return a, b, 1, a.elements // max(k, 1), n, k
    m = a.shape[-2] if len(a.shape) > 1 else 1
    return a, b, prod(op.outputs[0].shape) // max(m * n, 1), m, n, k


@formula("onnx.MatMul")
def general_matmul(op: Op) -> tuple[Kernel, ...]:
    """[..., m, k] @ [..., k, n] with numpy broadcasting; a shared [k, n] makes one large product.

    A third input is a bias, added where the product is written.
    """
    a, _, g, m, n, k = _product_of(op)
    return (product(g, m, n, k, a.dtype, _bytes(*op.inputs), _bytes(*op.outputs)),)


@gradient("onnx.MatMul")
def general_matmul_gradient(op: Op) -> tuple[Kernel, ...]:
    """dA = dY @ B^T and dB = A^T @ dY, each with the flop of the forward product; db sums dY."""
    a, b, g, m, n, k = _product_of(op)
    return product_gradient(op, (a, b), (g, m, n, k))


def product_gradient(
    op: Op, factors: tuple[TensorSpec, TensorSpec], sides: tuple[int, int, int, int]
) -> tuple[Kernel, ...]:
    """Gradients of both factors and of a bias, those that are wanted."""
    (a, b), (g, m, n, k), y = factors, sides, op.outputs[0]
    needed = wanted(op)
    kernels = []
    if needed[0]:
        kernels.append(product(g, m, k, n, a.dtype, _bytes(y, b), a.byte))
    if needed[1]:
        kernels.append(product(g, k, n, m, a.dtype, _bytes(y, a), b.byte))
    if any(needed[2:]):
        work = Work(vector_flop=y.elements, read_byte=y.byte, write_byte=op.inputs[2].byte)
        kernels.append(Kernel("reduce", work, y.dtype))
    return tuple(kernels)


@formula("onnx.Gemm")
def gemm(op: Op) -> tuple[Kernel, ...]:
    """alpha A' B' + beta C with A' [m, k] and B' [k, n], either factor stored transposed."""
    return (product(*_gemm_sides(op), op.inputs[0].dtype, _bytes(*op.inputs), _bytes(*op.outputs)),)


@gradient("onnx.Gemm")
def gemm_gradient(op: Op) -> tuple[Kernel, ...]:
    """Two products and the sum for the bias."""
    return product_gradient(op, (op.inputs[0], op.inputs[1]), _gemm_sides(op))


def _gemm_sides(op: Op) -> tuple[int, int, int, int]:
    m, n = op.outputs[0].shape
    a = op.inputs[0].shape
    return 1, m, n, a[0] if op.attrs.get("transA") else a[1]
