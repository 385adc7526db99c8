"""Fast Fourier transforms."""

from predictor.ir import Op, Work
from predictor.ops import Kernel, compute_dtype, formula


def transform_flop(length: int) -> int:
    """Flop per element of a complex transform of this length: 5 log2(length), the log rounded up.

    Source: Cooley and Tukey, Math. Comp. 19, 1965; the count used by FFTW's benchmarks.

    >>> transform_flop(1024)
    50
    """
    return 5 * (length - 1).bit_length()


@formula("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def transform(op: Op) -> tuple[Kernel, ...]:
    """One pass over memory per transformed axis; a real end makes the transform half as large.

    The larger side of a real transform is the real one: n values, against n/2 + 1 complex ones.
    """
    x, y = op.inputs[0], op.outputs[0]
    real = op.name != "aten._fft_c2c"
    full = y if op.name == "aten._fft_c2r" else x
    axes = op.attrs["dim"]
    flop = sum(transform_flop(full.shape[axis]) for axis in axes) * full.elements // (2 if real else 1)
    between = min(x.byte, y.byte) * (len(axes) - 1)
    work = Work(vector_flop=flop, read_byte=x.byte + between, write_byte=y.byte + between)
    return (Kernel("elementwise", work, compute_dtype(op)),)
