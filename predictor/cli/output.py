"""Results go to stdout or into a file, messages to stderr."""

import os
import shutil
import sys
from pathlib import Path

import typer

from predictor.errors import InputError, did_you_mean

FORMS = {"table": ".txt", "json": ".json", "markdown": ".md", "html": ".html"}


def check_output(path: Path | None, force: bool) -> None:
    """Refuse a place that cannot be written, before anything is computed."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"output folder '{path.parent}' does not exist; create it first")
    if path.exists() and not path.is_file():
        raise InputError(f"output '{path}' is not a plain file; give -o a file name")
    if path.exists() and not force:
        raise InputError(f"output '{path}' exists; add --force to replace it")


def choose_form(form: str | None, path: Path | None, accepted: tuple[str, ...] = tuple(FORMS)) -> str:
    """The format asked for, else the one that the output file's name ends in, else a table."""
    if form is None:
        suffix = path.suffix if path else ""
        return next((name for name in accepted if FORMS[name] == suffix), "table")
    if form not in accepted:
        raise InputError(
            f"--format is '{form}', accepted: {', '.join(accepted)}{did_you_mean(form, accepted)}"
        )
    return form


def styling(path: Path | None) -> tuple[bool, int | None]:
    """Whether to colour, and the width to fit: a terminal's, None elsewhere."""
    if path is not None or not sys.stdout.isatty():
        return False, None
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return not plain, shutil.get_terminal_size().columns


def deliver(text: str, path: Path | None = None, force: bool = False, quiet: bool = False) -> None:
    """Print the result, or write it whole into ``path`` and say so."""
    text = text.rstrip("\n") + "\n"
    if path is None:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
        return
    check_output(path, force)
    _write_whole(path.resolve(), text)
    if not quiet:
        typer.echo(f"wrote {path}", err=True)


def _write_whole(path: Path, text: str) -> None:
    """Write beside ``path`` and rename, so that no reader ever sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"output '{path}' cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
