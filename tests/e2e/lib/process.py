"""A child process with its output in files; stopped by pid, checked for sanitizer reports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from . import env

SANITIZER = re.compile(
    r"ERROR: (Address|Leak|Memory|Thread)Sanitizer|WARNING: ThreadSanitizer"
    r"|runtime error: |DEADLYSIGNAL|Segmentation fault|^panic|assertion .* failed",
    re.MULTILINE,
)
SANITIZER_DEFAULTS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


def child_environment(extra: dict[str, str] | None) -> dict[str, str]:
    """The caller's environment without proxies and log filters, plus sanitizer defaults."""
    unwanted = ("http_proxy", "https_proxy", "all_proxy", "rust_log", "sgl_log", "no_color")
    out = {k: v for k, v in os.environ.items() if k.lower() not in unwanted}
    for name, value in SANITIZER_DEFAULTS.items():
        out.setdefault(name, value)
    return out | (extra or {})


class Process:
    """argv is started at once; its output goes to <dir>/<name>.out and .err."""

    def __init__(self, argv: list[str], directory: Path, name: str,
                 environ: dict[str, str] | None = None) -> None:
        self.name = name
        self.argv = [*env.PREFIX, *argv]
        self.out_path = directory / f"{name}.out"
        self.err_path = directory / f"{name}.err"
        self.expected_exit: int | None = 0
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                cwd=directory, env=child_environment(environ))

    @property
    def pid(self) -> int:
        return self.child.pid

    def alive(self) -> bool:
        return self.child.poll() is None

    def must_live(self) -> None:
        """Ends any waiting for a process that has ended."""
        if not self.alive():
            pytest.fail(f"{self.name} ended with {self.child.returncode}: {self.logs()[-2000:]}")

    def stdout(self) -> str:
        return self.out_path.read_text("utf-8", "replace")

    def stderr(self) -> str:
        return self.err_path.read_text("utf-8", "replace")

    def logs(self) -> str:
        return self.stdout() + self.stderr()

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def wait_exit(self, within: float = 10.0) -> int:
        """The exit status; kills the process and fails when it does not end in time."""
        try:
            return self.child.wait(within * env.patience())
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"{self.name} did not exit within {within} s") from None

    def stop(self, within: float = 15.0) -> int:
        if self.alive():
            self.child.send_signal(signal.SIGTERM)
        return self.wait_exit(within)

    def kill(self) -> None:
        """SIGKILL, for tests that want a dead worker; its exit status is not judged."""
        self.expected_exit = None
        self.child.kill()
        self.child.wait()

    def close(self) -> list[str]:
        """Stops the process if it runs and returns what was wrong with it."""
        faults = []
        died = not self.alive()
        try:
            status = self.stop()
            if self.expected_exit is not None and status != self.expected_exit:
                when = "had ended" if died else "ended on SIGTERM"
                faults.append(f"{self.name} {when} with status {status}, "
                              f"{self.expected_exit} expected")
        except AssertionError as err:
            faults.append(str(err))
        found = SANITIZER.search(self.stderr())
        if found:
            faults.append(f"{self.name}: report on stderr: {found.group(0)!r}")
        return faults

    def status_field(self, field: str) -> int:
        """A kB figure of /proc/PID/status, in bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE).group(1)) * 1024

    def rss(self) -> int:
        return self.status_field("VmRSS")

    def settled_rss(self, quiet: float = 0.5, within: float = 10.0) -> int:
        """RSS once it has not shrunk any more for a moment."""
        limit = time.monotonic() + within
        last = self.rss()
        while time.monotonic() < limit:
            time.sleep(quiet)
            now = self.rss()
            if abs(now - last) < 64 * 1024:
                return now
            last = now
        return last

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))
