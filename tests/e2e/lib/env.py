"""What the run is told from outside: the binary, the test data, how patient to be."""

from __future__ import annotations

import functools
import os
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("SLUICE_BIN", ROOT / "build" / "sluice")).resolve()
TESTDATA = Path(os.environ.get("SLUICE_TESTDATA", ROOT.parent / "shared"))
CI = os.environ.get("SLUICE_CI") == "1"
# Put before the binary, for example "setarch -R" for ThreadSanitizer.
PREFIX = shlex.split(os.environ.get("SLUICE_PREFIX", ""))


@functools.cache
def sanitized() -> bool:
    """True when the binary carries a sanitizer: it is slow and its memory means nothing."""
    if PREFIX and "valgrind" in PREFIX[0]:
        return True
    blob = BINARY.read_bytes()
    return any(mark in blob for mark in (b"__asan_init", b"__tsan_init", b"__msan_init"))


def patience() -> float:
    """Factor on every time limit; limits that a spec names as upper bounds use it too."""
    default = 4.0 if BINARY.exists() and sanitized() else 1.0
    return float(os.environ.get("SLUICE_PATIENCE", default))


def data_file(*parts: str) -> Path | None:
    """A file of the shared test data, or None when this checkout has none beside it."""
    path = TESTDATA.joinpath("data", *parts)
    return path if path.exists() else None
