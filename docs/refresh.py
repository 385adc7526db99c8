"""Put real output behind the `<!-- output: COMMAND -->` marks of the pages.

    python docs/refresh.py [PAGE ...]

A test runs the same commands and compares.
"""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md"]
MARK = re.compile(r"(<!-- output: (?P<command>[^>]+) -->\n```text\n)(?P<output>.*?)(```)", re.DOTALL)


def output_of(command: str) -> str:
    """What a `predictor` command prints, run inside this process from the project's folder."""
    import contextlib
    import io
    import os

    from predictor.cli import main

    program, *arguments = shlex.split(command)
    if program != "predictor":
        raise ValueError(f"not a predictor command: {command}")
    out, before, argv = io.StringIO(), Path.cwd(), sys.argv
    os.chdir(ROOT)
    os.environ["COLUMNS"] = "100"
    sys.argv = [program, *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main()
    finally:
        os.chdir(before)
        sys.argv = argv
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def refreshed(page: str, run: Callable[[str], str] = output_of) -> str:
    """The page with every marked block replaced by what its command prints now."""
    return MARK.sub(lambda m: f"{m[1]}{run(m['command'])}{m[4]}", page)


if __name__ == "__main__":
    for path in [Path(p) for p in sys.argv[1:]] or PAGES:
        path.write_text(refreshed(path.read_text()))
