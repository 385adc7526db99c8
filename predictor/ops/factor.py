"""Factorisations of matrices, and what is solved with them: one column after the other."""

from dataclasses import replace

from predictor.ir import Op
from predictor.ops import Kernel, compute_dtype, formula, streamed


def lu_flop(n: int) -> int:
    """LU of an n x n matrix [flop]: step k divides n - k entries and updates (n - k)^2 by a multiply-add.

    n (n - 1)/2 + n (n - 1)(2 n - 1)/3

    Source: Golub and Van Loan, "Matrix Computations", 4th edition, section 3.2.

    >>> lu_flop(2)
    3
    """
    return n * (n - 1) // 2 + n * (n - 1) * (2 * n - 1) // 3


def _in_order(op: Op, flop: int) -> tuple[Kernel, ...]:
    """A kernel whose steps wait for each other."""
    return (Kernel("scan", replace(streamed(op), vector_flop=flop), compute_dtype(op)),)


@formula("aten._linalg_slogdet", "aten._linalg_det", "aten.linalg_lu_factor_ex")
def factor(op: Op) -> tuple[Kernel, ...]:
    """[..., n, n]: the LU factors of each matrix; its determinant is their diagonal's product."""
    (x, *_) = op.inputs
    n = x.shape[-1]
    return _in_order(op, x.elements // max(n * n, 1) * lu_flop(n))


@formula("aten.linalg_lu_solve")
def solve(op: Op) -> tuple[Kernel, ...]:
    """LU [..., n, n], pivots, B [..., n, r]: two triangular systems, n (n - 1) + n^2 flop a column of B."""
    n, right = op.inputs[0].shape[-1], op.inputs[-1]
    return _in_order(op, right.elements // max(n, 1) * (2 * n * n - n))
