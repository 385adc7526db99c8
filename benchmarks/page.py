"""Sections of benchmarks/README.md: each script writes its own, between its own marks."""

from pathlib import Path

README = Path(__file__).resolve().parent / "README.md"


def replace_section(name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name -->`` and ``<!-- /name -->``; other sections stay as they are."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = README.read_text(encoding="utf-8")
    if page.count(first) != 1 or page.count(last) != 1:
        raise SystemExit(f"{README.name} needs one {first} and one {last}")
    head, _, rest = page.partition(first)
    _, _, tail = rest.partition(last)
    README.write_text(f"{head}{first}\n\n{text.strip()}\n\n{last}{tail}", encoding="utf-8")
