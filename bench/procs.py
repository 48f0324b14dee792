"""Processes of the benchmark: build the helpers, start and stop by pid, pin, read memory."""

import contextlib
import os
import random
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
BUILD = ROOT / "build-bench"
PROGRAMS = {
    "relay": ["relay.c", "net.c"],
    "backend": ["backend.c", "net.c", "http.c"],
    "load": ["load.c", "net.c", "http.c", "hist.c"],
}


class BenchError(Exception):
    """Something that ends one measurement with a message, not with a traceback."""


def build_helpers():
    """Compiles what is older than its sources; one line of cc each."""
    BUILD.mkdir(exist_ok=True)
    sources = [p.stat().st_mtime for p in BENCH.glob("*.[ch]")]
    for name, files in PROGRAMS.items():
        out = BUILD / name
        if out.exists() and out.stat().st_mtime > max(sources):
            continue
        command = [os.environ.get("CC", "cc"), "-std=gnu17", "-O2", "-g", "-Wall", "-Wextra"]
        command += ["-o", str(out)] + [str(BENCH / f) for f in files]
        print("bench:", shlex.join(["cc", "-o", name, *files]), flush=True)
        subprocess.run(command, check=True, timeout=120)


def raise_descriptor_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 20000 if hard == resource.RLIM_INFINITY else min(hard, 20000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def free_port():
    """A port that is free now, below the range from which the kernel takes source ports."""
    for _ in range(200):
        port = random.randint(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchError("no free port between 20000 and 32000")


nice = 0  # of every process of the benchmark; run.py sets it


def placed(cpu):
    """What a child does before it becomes its program: it takes its CPU and its priority.

    Where the kernel groups processes by session, nice counts within a session only, and the
    session's own priority has to be set too: so every child starts a session."""
    def place():
        os.sched_setaffinity(0, {cpu})
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            with contextlib.suppress(OSError):
                Path("/proc/self/autogroup").write_text(str(nice))
    return place


class Process:
    """A child on one CPU; its output goes to a file that is shown when it fails."""

    def __init__(self, argv, cpu, log, env=None):
        self.argv = [str(a) for a in argv]
        self.log = log
        self.started = time.monotonic()
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd="/",
                start_new_session=True, preexec_fn=placed(cpu))

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def pids(self):
        """Its own and those of all processes below it."""
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    todo += [int(p) for p in path.read_text().split()]
        return found

    def rss(self):
        """Resident bytes of all its processes; smaps_rollup is exact where VmRSS lags behind."""
        return sum(rss_of(pid) for pid in self.pids())

    def log_tail(self):
        text = Path(self.log).read_text(errors="replace").strip()
        return text[-600:] if text else "(no output)"

    def stop(self):
        if self.alive():
            below = self.pids()[1:]
            self.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(3)
            if self.alive():
                self.child.kill()
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self.child.wait(5)


def rss_of(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def http_status(port, request, timeout=2.0):
    """Status of one raw request on a connection of its own, 0 when there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as s:
            s.sendall(request)
            line = s.recv(4096).split(b"\r\n", 1)[0].split()
            return int(line[1]) if len(line) > 1 else 0
    except (OSError, ValueError):
        return 0


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()


def chat():
    body = b'{"messages":[{"role":"user","content":"hello"}],"model":"bench","stream":false}'
    head = ("POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


def wait_until(process, port, request, limit, pause=0.02):
    """Waits until the request is answered with 200. Returns the seconds since the start."""
    while time.monotonic() - process.started < limit:
        if not process.alive():
            raise BenchError(f"ended at once: {process.log_tail()}")
        if http_status(port, request) == 200:
            return time.monotonic() - process.started
        time.sleep(pause)
    raise BenchError(f"not ready within {limit} s: {process.log_tail()}")


def which(program):
    """As shutil.which, with the folders of system programs added."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
    return shutil.which(program, path=path)


def first_line(argv, timeout=10):
    """First line that a command prints, for versions; empty when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""
