"""All that one test (or one module) has running; closing it judges how everything ended."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from . import env
from .fake_worker import FakeWorker, Script
from .gateway import Gateway, MockWorker
from .ports import Port
from .process import child_environment


class Site:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gateways: list[Gateway] = []
        self.mocks: list[MockWorker] = []
        self.fakes: list[FakeWorker] = []
        self.ports: list[Port] = []
        self.closed = False

    def gateway(self, *flags: object, **kw: object) -> Gateway:
        """Starts a gateway; it is stopped with SIGTERM at the end and must then exit with 0."""
        name = f"gateway{len(self.gateways)}"
        gateway = Gateway.__new__(Gateway)
        self.gateways.append(gateway)
        gateway.__init__(self.directory, name, *flags, **kw)  # type: ignore[misc]
        return gateway

    def mock(self, *flags: object, count: int = 1) -> MockWorker:
        name = f"mock{len(self.mocks)}"
        mock = MockWorker.__new__(MockWorker)
        self.mocks.append(mock)
        mock.__init__(self.directory, name, *flags, count=count)  # type: ignore[misc]
        return mock

    def fake(self, script: Script | None = None, **kw: object) -> FakeWorker:
        fake = FakeWorker(script, **kw)  # type: ignore[arg-type]
        self.fakes.append(fake)
        return fake

    def unused_port(self) -> Port:
        """A port on which connecting is refused."""
        port = Port()
        self.ports.append(port)
        return port

    def run(self, *argv: object, environ: dict[str, str] | None = None,
            timeout: float = 10.0) -> subprocess.CompletedProcess:
        """Runs the binary to its end, for option tests."""
        return subprocess.run(
            [*env.PREFIX, str(env.BINARY), *[str(a) for a in argv]], capture_output=True,
            text=True, timeout=timeout * env.patience(), stdin=subprocess.DEVNULL,
            cwd=self.directory, env=child_environment(environ), check=False)

    def need_flag(self, flag: str) -> None:
        """Skips, visibly, while the part that brings the flag has not landed."""
        refused = self.run("--help").stdout.partition("not available in this version")[2]
        if re.search(rf"{flag}\b(?!-)", refused):
            pytest.skip(f"{flag} is refused in this version: its part has not landed")

    def report(self, limit: int = 6000) -> list[tuple[str, str]]:
        """(title, text) of every process's output, for the report of a failed test."""
        out = []
        for process in [*self.gateways, *self.mocks]:
            if hasattr(process, "child"):
                state = "running" if process.alive() else f"exit {process.child.returncode}"
                out.append((f"{process.name} ({state}): {' '.join(process.argv)}",
                            f"{process.stdout()[-limit:]}\n--- stderr ---\n"
                            f"{process.stderr()[-limit:]}"))
        return out

    def close(self) -> list[str]:
        """Gateways first, so that they end while their workers still answer."""
        if self.closed:
            return []
        self.closed = True
        faults = []
        for process in [*self.gateways, *self.mocks]:
            if hasattr(process, "child"):
                faults += process.close()
        for fake in self.fakes:
            faults += fake.close()
        for port in self.ports:
            port.release()
        return faults
