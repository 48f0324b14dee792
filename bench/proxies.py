"""The proxies under test: how each is found, configured and started.

Every one gets the same backend, one thread (or one worker process) on the same CPU, keep-alive on
both sides and no access log.
"""

import getpass
import shlex
import subprocess
import sys
from pathlib import Path

from procs import BUILD, ROOT, BenchError, Process, chat, first_line, free_port, wait_until, which

ROUTER_WHEEL = "sglang-router==0.3.2"

NGINX = """
daemon off;
user {user};
worker_processes 1;
error_log stderr error;
pid {dir}/nginx.pid;
events {{ worker_connections 19900; use epoll; }}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_header_buffer_size 8k; # head and body in one read
    client_body_buffer_size 256k;
    client_max_body_size 0;
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 128;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_read_timeout 600s;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://backend; }}
    }}
    server {{
        listen 127.0.0.1:{stream_port} backlog=4096;
        location / {{ proxy_pass http://backend; proxy_buffering off; }}
    }}
}}
"""

# http-no-delay: without it HAProxy holds the pieces of a chunked answer back to fill packets.
HAPROXY = """
global
    nbthread 1
    maxconn 15500
    no strict-limits
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
    option http-keep-alive
    http-reuse always
frontend plain
    bind 127.0.0.1:{port} backlog 4096
    default_backend workers
frontend streams
    bind 127.0.0.1:{stream_port} backlog 4096
    option http-no-delay
    default_backend stream_workers
backend workers
    server one 127.0.0.1:{backend}
backend stream_workers
    option http-no-delay
    server one 127.0.0.1:{backend}
"""


class Proxy:
    """One proxy: subclasses say why it cannot run here, and with which command it does."""

    name = ""
    start_limit = 15

    def __init__(self, settings):
        self.settings = settings
        self.process = None
        self.port = self.stream_port = 0
        self.rss_at_start = 0

    def missing(self):
        """Why it cannot be run here; empty when it can."""
        return ""

    def version(self):
        return ""

    def command(self, backend):
        raise NotImplementedError

    def two_ports(self):
        return False

    def start(self, backend, wrap=()):
        self.port = free_port()
        self.stream_port = free_port() if self.two_ports() else self.port
        argv = [*wrap, *self.command(backend)]
        log = self.settings.workdir / f"{self.name}.log"
        self.process = Process(argv, self.settings.proxy_cpu, log)
        try:
            wait_until(self.process, self.port, chat(), self.start_limit * (20 if wrap else 1))
        except BenchError:
            self.stop()
            raise
        self.rss_at_start = self.process.rss()

    def stop(self):
        if self.process:
            self.process.stop()

    def config_file(self, text, backend):
        path = self.settings.workdir / f"{self.name}.conf"
        path.write_text(text.format(user=getpass.getuser(), dir=self.settings.workdir,
                                    backend=backend, port=self.port,
                                    stream_port=self.stream_port))
        return path


class Direct(Proxy):
    """No proxy: the load generator talks to the backend. What is left of a latency when this is
    taken off is what a proxy added."""

    name = "direct"

    def start(self, backend, wrap=()):
        self.port = self.stream_port = backend

    def stop(self):
        pass


class Relay(Proxy):
    name = "relay"

    def command(self, backend):
        return [BUILD / "relay", "--port", self.port, "--backend", backend]


class Nginx(Proxy):
    name = "nginx"

    def missing(self):
        return "" if which("nginx") else "not installed"

    def version(self):
        return first_line([which("nginx"), "-v"])

    def two_ports(self):
        return True

    def command(self, backend):
        return [which("nginx"), "-c", self.config_file(NGINX, backend), "-e", "stderr",
                "-p", self.settings.workdir]


class Haproxy(Proxy):
    name = "haproxy"

    def missing(self):
        return "" if which("haproxy") else "not installed"

    def version(self):
        return first_line([which("haproxy"), "-v"])

    def two_ports(self):
        return True

    def command(self, backend):
        return [which("haproxy"), "-db", "-q", "-f", self.config_file(HAPROXY, backend)]


class SglangRouter(Proxy):
    """The Rust peer from its wheel, in a virtual environment of its own."""

    name = "sglang-router"
    start_limit = 90

    def python(self):
        return BUILD / "venv" / "bin" / "python"

    def has_wheel(self):
        if not self.python().exists():
            return False
        probe = [str(self.python()), "-c", "import sglang_router.launch_router"]
        return subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0

    def install(self):
        print(f"bench: installing {ROUTER_WHEEL} into {BUILD.name}/venv", flush=True)
        make = [sys.executable, "-m", "venv", str(BUILD / "venv")]
        pip = [str(self.python()), "-m", "pip", "install", "--quiet",
               "--disable-pip-version-check", "--only-binary", ":all:", ROUTER_WHEEL]
        for argv in (make, pip):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                return (done.stderr.strip().splitlines() or ["failed"])[-1]
        return ""

    def missing(self):
        try:
            if self.has_wheel():
                return ""
            if self.settings.no_install:
                return "the wheel is not installed (--no-install)"
            failure = self.install()
            return f"the wheel cannot be installed here: {failure}" if failure else ""
        except (OSError, subprocess.TimeoutExpired) as e:
            return f"the wheel cannot be installed here: {e}"

    def version(self):
        code = "import importlib.metadata as m; print('sglang-router', m.version('sglang-router'))"
        return first_line([str(self.python()), "-c", code])

    def command(self, backend):
        return [self.python(), "-m", "sglang_router.launch_router",
                "--worker-urls", f"http://127.0.0.1:{backend}", "--policy", "random",
                "--host", "127.0.0.1", "--port", self.port, "--prometheus-port", free_port(),
                "--prometheus-host", "127.0.0.1", "--worker-startup-check-interval", "1",
                "--log-level", "warn"]


class Sluice(Proxy):
    name = "sluice"

    def binary(self):
        return Path(self.settings.sluice or ROOT / "build" / "sluice").resolve()

    def missing(self):
        return "" if self.binary().exists() else f"{self.binary().name} is not built (make)"

    def version(self):
        return first_line([str(self.binary()), "--version"])

    def command(self, backend):
        return [self.binary(), "launch", "--worker-urls", f"http://127.0.0.1:{backend}",
                "--policy", "round_robin", "--host", "127.0.0.1", "--port", self.port,
                "--prometheus-host", "127.0.0.1", "--prometheus-port", free_port(),
                "--runtime-worker-threads", "1", "--log-level", "warn",
                *shlex.split(self.settings.sluice_args)]


ALL = [Direct, Relay, Nginx, Haproxy, SglangRouter, Sluice]
NAMES = [p.name for p in ALL]
