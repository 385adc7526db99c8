"""Errors become one message on stderr and an exit code; nothing is swallowed."""

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from predictor.errors import InputError, PredictorError

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the number of the signal, as shells report it


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with its errors told to the user; a traceback is shown under ``--verbose`` alone."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except typer.Exit:
            raise
        except BaseException as error:
            if _interrupted(error):
                raise typer.Exit(INTERRUPTED) from None
            if options.get("verbose"):
                traceback.print_exception(error)
            raise typer.Exit(_tell(error)) from None

    return run


def _interrupted(error: BaseException | None) -> bool:
    """True for Ctrl-C, also where an import that it cut short turned it into another error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _tell(error: BaseException) -> int:
    """Print what went wrong; returns the exit code."""
    if isinstance(error, PredictorError):
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    if isinstance(error, SystemExit):
        typer.echo(
            f"error: the model's own code ended the program: sys.exit({error.code!r})\n"
            'put what it does as a script under: if __name__ == "__main__":',
            err=True,
        )
        return InputError.exit_code
    if isinstance(error, OSError):
        typer.echo(f"error: {error.filename or 'output'}: {error.strerror}", err=True)
        return InputError.exit_code
    first = (str(error).splitlines() or [""])[0]
    typer.echo(
        f"error: internal: {type(error).__name__}: {first}\n"
        "this is a fault of predictor; please report it with what the same command prints under -v",
        err=True,
    )
    return PredictorError.exit_code
