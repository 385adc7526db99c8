"""The ``<id>.fit.json`` of a user's own device: what is in it, where it goes, what its profile then says."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from predictor.calibrate.fit_user import Rates
from predictor.calibrate.kernel_tables import sha256
from predictor.calibrate.measurements import Measured
from predictor.calibrate.step_factors import StepFactors
from predictor.errors import InputError
from predictor.kernels.residual import Lattice, pack
from predictor.profile import own_profiles_dir, profiles_dir

MADE_BY = "predictor calibrate fit"
# What a fit of steps wrote: factors on the rates beside them.
STEP_KEYS = frozenset(("steps", "steps_from"))
_STATUS = re.compile(r'^status\s*=\s*"spec-only"', re.MULTILINE)


def shipped_fit(id_: str) -> dict[str, Any] | None:
    """The fit of this chip that comes with the program."""
    return _load(profiles_dir() / f"{id_}.fit.json")


def own_fit(id_: str) -> dict[str, Any] | None:
    """The user's own fit of this chip."""
    return _load(own_fit_path(id_))


def own_fit_path(id_: str) -> Path:
    """Where predictions look for it first."""
    return own_profiles_dir() / f"{id_}.fit.json"


def _load(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; move it away and fit again") from None
    return found


def kernels_part(path: Path, rows: Sequence[Measured], rates: Rates) -> dict[str, Any]:
    """What a file of measured kernels adds to a fit."""
    first = rows[0]
    versions = ", ".join(f"{name} {value}" for name, value in _versions(first) if value)
    found: dict[str, Any] = {
        "rates": {name: [_digits(v), _digits(sd)] for name, (v, sd) in rates.values.items()},
        "covariance": {
            "names": list(rates.names),
            "matrix": [[_digits(x) for x in row] for row in rates.covariance.tolist()],
        },
        "quantiles": {k: [_digits(q) for q in qs] for k, qs in rates.quantiles.items()},
        "source": f"{len(rows)} kernels measured on '{first.device}' ({versions})",
        "sha256": sha256([path]),
        "notes": list(rates.notes),
        "loops": [_loop(row) for row in rows if row.kind == "sustained"],
        "launch_s": {r.key.partition("/")[2]: _digits(r.time_s) for r in rows if r.kind == "launch"},
    }
    if rates.residual is not None:
        found["residual"] = packed(rates.residual)
    if rates.sustained is not None:
        found["sustained"] = [_digits(x) for x in rates.sustained]
    return found


def packed(lattice: Lattice) -> dict[str, Any]:
    """Residuals as a fit file holds them."""
    sides = {side: [int(x) for x in getattr(lattice, side)] for side in "mnk"}
    return {**sides, "units": lattice.units, "value": pack(lattice.value)}


def _versions(row: Measured) -> tuple[tuple[str, str], ...]:
    return ("driver", row.driver), ("PyTorch", row.torch), ("", row.runtime)


def _loop(row: Measured) -> dict[str, Any]:
    """Power and clock of one long loop, for whoever fits power."""
    work = row.kernel.work
    return {
        "key": row.key,
        "flop_per_s": _digits(work.matrix_flop / row.time_s),
        "byte_per_s": _digits((work.read_byte + work.write_byte) / row.time_s),
        "watts": row.watts,
        "clock_hz": row.clock_hz,
        "limit_w": row.limit_w,
    }


def steps_part(
    path: Path, factors: StepFactors, notes: Sequence[str], before: Mapping[str, Any]
) -> dict[str, Any]:
    """What measured steps add: ``steps`` as predictions read it, and where it is from.

    before  the content that predictions used when the steps were compared with them
    """
    return {
        "steps": factors.as_table(before.get("steps")),
        "steps_from": {"rows": len(factors.misses), "sha256": sha256([path]), "notes": list(notes)},
    }


def whole(id_: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The file: what is known already of the chip, replaced part by part.

    A fit of steps alone keeps the rates that were there. The user's own steps are dropped, as they were
    compared with other rates. What the shipped fit says of kernels' residuals stays.
    """
    found: dict[str, Any] = {"source": ""}
    found |= shipped_fit(id_) or {}
    found |= {key: value for key, value in (own_fit(id_) or {}).items() if key not in STEP_KEYS}
    for part in parts:
        found |= part
    if not found["source"]:
        found["source"] = "measured steps"
    as_of = datetime.now(UTC).date().isoformat()
    return {**found, "id": id_, "made_by": MADE_BY, "as_of": as_of}


@contextmanager
def installed(id_: str, content: Mapping[str, Any]) -> Iterator[None]:
    """Let predictions use ``content`` as the user's own fit for a while."""
    path = own_fit_path(id_)
    before = path.read_bytes() if path.is_file() else None
    try:
        write_fit(path, content, force=True)
        yield
    finally:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)


def write_fit(path: Path, content: Mapping[str, Any], force: bool) -> None:
    """Write it whole; a file that this command did not make is kept unless ``force``."""
    there = _load(path)
    if there is not None and there.get("made_by") != MADE_BY and not force:
        raise InputError(
            f"{path} exists and was not made by this command; add --force to replace it, or give -o FILE"
        )
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def mark_fitted(profile: Path) -> bool:
    """Turn ``status`` of a user's own profile to "fitted"; whether anything was changed."""
    text = profile.read_text(encoding="utf-8")
    changed, count = _STATUS.subn('status = "fitted"', text, count=1)
    if count:
        profile.write_text(changed, encoding="utf-8")
    return bool(count)


def _digits(value: float) -> float:
    """Four digits, which is more than any of it means."""
    return float(f"{value:.4g}")
