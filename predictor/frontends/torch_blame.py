"""Where in a model a recording failed, and what its owner can do about it."""

from types import TracebackType

from torch import nn
from torch._subclasses.fake_tensor import UnsupportedOperatorException

_MEMORY = ("data pointer", "data_ptr", "invalid python storage", ".numpy()", "numpy array")
_LIBRARY = ("/torch/", "/predictor/frontends/")


def place_of(error: BaseException, module: nn.Module) -> str:
    """ " in 'layers.3' (Block, model.py line 12)": the innermost module that was running, or ""."""
    names = {id(part): name for name, part in module.named_modules()}
    found = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        own = frame.f_code.co_varnames[:1]  # "self", whatever it is called
        part = frame.f_locals.get(own[0]) if own else None
        if id(part) in names and isinstance(part, nn.Module):
            file = frame.f_code.co_filename
            if not any(folder in file for folder in _LIBRARY):
                name = names[id(part)] or "the model itself"
                line = f"{file.rsplit('/', 1)[-1]} line {trace.tb_lineno}"
                found = f" in '{name}' ({type(part).__name__}, {line})"
        trace = trace.tb_next
    return found


def advice(error: BaseException) -> str:
    """The next step for the failures of code that reaches past PyTorch's operators, else ""."""
    text = str(error)
    if isinstance(error, UnsupportedOperatorException):
        name = str(error.func).removesuffix(".default").replace(".", "::")
        return (
            "a prediction needs the shape of its result: "
            f"register it with @torch.library.register_fake('{name}')"
        )
    if any(word in text for word in _MEMORY):
        return (
            "code outside PyTorch asked for a tensor's memory and there is none; wrap it with "
            "@torch.library.custom_op and give its shapes with register_fake, or put PyTorch operators of "
            "the same work in its place"
        )
    if "CUDA" in text or "cuda" in text:
        return "nothing runs on a device here; leave out what queries or drives one"
    return ""
