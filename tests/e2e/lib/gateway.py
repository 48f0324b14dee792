"""The gateway under test and the mock workers of the same binary."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.parse import quote

import httpx

from . import env
from .metrics import Metrics
from .ports import Port, row_of_ports
from .process import Process
from .rawhttp import Answer, RawConn, exchange, request_bytes
from .wait import eventually

# What every test gets unless it says otherwise: quick to start and to stop.
DEFAULTS = {
    "--host": "127.0.0.1",
    "--prometheus-host": "127.0.0.1",
    "--worker-startup-check-interval": "1",
    "--shutdown-grace-period-secs": "10",
    "--shutdown-settle-secs": "0",
}


def url_of(worker: object) -> str:
    return worker if isinstance(worker, str) else worker.url  # type: ignore[attr-defined]


def chat(content: str = "hello", model: str = "fake-model", **more: object) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


class Gateway(Process):
    """A running gateway. flags win over DEFAULTS; workers are put into --worker-urls."""

    def __init__(self, directory: Path, name: str, *flags: object, workers: list | tuple = (),
                 command: tuple[str, ...] = (), environ: dict[str, str] | None = None,
                 wait: str | None = "ready", prefix: tuple[str, ...] = ()) -> None:
        self.port = Port()
        self.metrics_port = Port()
        given = [str(flag) for flag in flags]
        argv = [*prefix, str(env.BINARY), *command]
        for flag, value in DEFAULTS.items():
            if flag not in given:
                argv += [flag, value]
        if "--port" not in given:
            argv += ["--port", str(self.port)]
        if "--prometheus-port" not in given:
            argv += ["--prometheus-port", str(self.metrics_port)]
        if workers:
            argv += ["--worker-urls", *[url_of(w) for w in workers]]
        super().__init__([*argv, *given], directory, name, environ)
        host = given[given.index("--host") + 1] if "--host" in given else "127.0.0.1"
        self.host = host.strip("[]")
        self.key = given[given.index("--api-key") + 1] if "--api-key" in given else None
        self.client = httpx.Client(base_url=self.base, trust_env=False,
                                   timeout=20.0 * env.patience())
        if wait == "ready":
            self.wait_ready(len(workers))
        elif wait == "live":
            self.wait_live()

    @property
    def base(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    # --- waiting ------------------------------------------------------------------------------

    def wait_live(self, within: float = 10.0) -> None:
        def live() -> bool:
            self.must_live()
            try:
                return self.get("/liveness").status_code == 200
            except httpx.TransportError:
                return False
        eventually(live, within, what="liveness")

    def wait_ready(self, count: int, within: float = 15.0) -> None:
        """Until count workers are in and healthy (0: until it listens)."""
        self.wait_live()
        if count:
            eventually(lambda: self.readiness().get("healthy_workers") == count, within,
                       what=f"{count} healthy workers")

    def readiness(self) -> dict:
        return self.get("/readiness").json()

    # --- asking -------------------------------------------------------------------------------

    def auth(self, headers: dict | None) -> dict:
        given = dict(headers or {})
        if self.key and "authorization" not in {k.lower() for k in given}:
            given["authorization"] = f"Bearer {self.key}"
        return given

    def get(self, path: str, headers: dict | None = None, **kw: object) -> httpx.Response:
        return self.client.get(path, headers=self.auth(headers), **kw)

    def post(self, path: str, body: object = None, headers: dict | None = None,
             **kw: object) -> httpx.Response:
        """body: bytes go as they are, anything else as JSON; content-type JSON unless given."""
        extra = self.auth(headers)
        if body is not None:
            if "content-type" not in {k.lower() for k in extra}:
                extra["content-type"] = "application/json"
            kw["content"] = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, headers=extra, **kw)

    def call(self, method: str, path: str, headers: dict | None = None,
             **kw: object) -> httpx.Response:
        return self.client.request(method, path, headers=self.auth(headers), **kw)

    def chat(self, content: str = "hello", headers: dict | None = None,
             **more: object) -> httpx.Response:
        return self.post("/v1/chat/completions", chat(content, **more), headers)

    def raw(self, **kw: object) -> RawConn:
        return RawConn(int(self.port), host=self.host, **kw)  # type: ignore[arg-type]

    def exchange(self, raw: bytes, method: str = "POST", timeout: float = 10.0) -> Answer:
        return exchange(int(self.port), raw, method, timeout)

    def raw_request(self, method: str, target: str,
                    headers: list[tuple[str, str]] | None = None,
                    body: bytes | None = None) -> Answer:
        """For targets that a client library would rewrite."""
        return self.exchange(request_bytes(method, target, headers, body), method)

    # --- the fleet ----------------------------------------------------------------------------

    def workers(self) -> list[dict]:
        return self.get("/workers").json()["workers"]

    def worker(self, which: object) -> dict:
        """WorkerInfo by URL (or by anything with .url)."""
        url = url_of(which)
        for info in self.workers():
            if info["url"] == url:
                return info
        raise AssertionError(f"{url} is not registered: {self.workers()}")

    def load(self, which: object) -> int:
        return self.worker(which)["load"]

    def add(self, which: object, wait: bool = True, **spec: object) -> str:
        """POST /workers; returns the id. wait: until it is registered and healthy."""
        answer = self.post("/workers", {"url": url_of(which), **spec})
        assert answer.status_code == 202, answer.text
        if wait:
            eventually(lambda: self.worker(which)["is_healthy"], 10, what="worker registered")
        return answer.json()["worker_id"]

    def remove(self, which: object, wait: bool = True) -> None:
        url = url_of(which)
        answer = self.call("DELETE", f"/workers/{quote(url, safe='')}")
        assert answer.status_code == 202, answer.text
        if wait:
            eventually(lambda: url not in [w["url"] for w in self.workers()], 15,
                       what="worker gone")

    def metrics(self) -> Metrics:
        answer = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False,
                           timeout=20 * env.patience())
        assert answer.status_code == 200, answer.text
        return Metrics(answer.text)

    # --- the end ------------------------------------------------------------------------------

    def expect_exit(self, status: int | None) -> None:
        """Tells the fixture that another exit status than 0 is right (None: any)."""
        self.expected_exit = status

    def terminate(self, number: int = signal.SIGTERM) -> None:
        self.signal(number)

    def close(self) -> list[str]:
        self.client.close()
        faults = super().close()
        self.port.release()
        self.metrics_port.release()
        return faults


class MockWorker(Process):
    """`sluice mock-worker`; with count > 1 its ports are consecutive."""

    def __init__(self, directory: Path, name: str, *flags: object, count: int = 1) -> None:
        self.ports = row_of_ports(count)
        argv = [str(env.BINARY), "mock-worker", "--host", "127.0.0.1",
                "--port", str(self.ports[0])]
        if count > 1:
            argv += ["--count", str(count)]
        super().__init__([*argv, *[str(flag) for flag in flags]], directory, name)
        for url in self.urls:
            eventually(lambda url=url: self.healthy(url), 10, what=f"{url} healthy")

    def healthy(self, url: str) -> bool:
        self.must_live()
        try:
            return httpx.get(f"{url}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def url(self) -> str:
        return self.urls[0]

    def faults(self, url: str | None = None, **settings: object) -> None:
        """POST /mock/faults."""
        answer = httpx.post(f"{url or self.url}/mock/faults", json=settings, trust_env=False)
        assert answer.status_code == 200, answer.text

    def reset(self, url: str | None = None) -> None:
        answer = httpx.post(f"{url or self.url}/mock/reset", trust_env=False)
        assert answer.status_code == 200, answer.text

    def seen(self, url: str | None = None) -> dict:
        return httpx.get(f"{url or self.url}/mock/requests", trust_env=False).json()

    def close(self) -> list[str]:
        faults = super().close()
        for port in self.ports:
            port.release()
        return faults
