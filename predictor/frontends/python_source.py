"""Import the Python file or package that a user names; this runs their code."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from predictor.errors import InputError, PredictorError


def import_source(prefix: str) -> ModuleType:
    """The module of "net.py" or "package.module"; InputError says what failed, with the line of the file."""
    return _file(Path(prefix)) if prefix.endswith(".py") else _package(prefix)


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"model file '{path}' does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"model file '{path}' cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except PredictorError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: {line_of(error, str(path))}{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def line_of(error: BaseException, path: str) -> str:
    """ "line 12: " of the user's file, when the error passed through it."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"line {lines[-1]}: " if lines else ""


def _package(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"package '{name}' cannot be imported: {error}; is it installed here?") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"importing '{name}' failed: {type(error).__name__}: {error}") from error
