"""Waiting for a state instead of sleeping for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from . import env

T = TypeVar("T")


def eventually(probe: Callable[[], T], within: float = 5.0, every: float = 0.02,
               what: str = "") -> T:
    """Calls probe until it returns something true and returns that; fails with the last seen.

    AssertionError and OSError of the probe count as "not yet".
    """
    limit = time.monotonic() + within * env.patience()
    last: object = None
    while True:
        try:
            last = probe()
            if last:
                return last  # type: ignore[return-value]
        except (AssertionError, OSError) as err:
            last = err
        if time.monotonic() >= limit:
            raise AssertionError(f"not within {within} s: {what or probe}; last: {last!r}")
        time.sleep(every)


def steady(probe: Callable[[], object], lasting: float) -> None:
    """Asserts that probe stays true for the whole time."""
    limit = time.monotonic() + lasting
    while time.monotonic() < limit:
        assert probe(), "did not last"
        time.sleep(0.02)


class Stopwatch:
    """Seconds since it was made or reset."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self.start
