"""A worker whose every byte is scripted, and which records every byte it gets.

Each connection has a thread. A request goes to a script: a function that gets an Exchange and
writes whatever it likes (or nothing, or cuts the line). What the gateway asks for by itself
(health, discovery) is answered by default routes, so that a test scripts only its own traffic.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .ports import Port

REASONS = {200: "OK", 204: "No Content", 302: "Found", 400: "Bad Request", 401: "Unauthorized",
           404: "Not Found", 408: "Request Timeout", 422: "Unprocessable Entity",
           429: "Too Many Requests", 500: "Internal Server Error", 501: "Not Implemented",
           502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}
# What the gateway may ask for on its own; kept apart in Worker.requests.
OWN_CALLS = {"/health", "/server_info", "/get_server_info", "/model_info", "/get_model_info",
             "/v1/models", "/version", "/v1/loads", "/get_load", "/metrics"}


@dataclass
class Request:
    raw_head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    raw_body: bytes
    connection: int
    number_on_connection: int
    time: float = field(default_factory=time.monotonic)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) <= 1, f"{name} came {len(found)} times: {found}"
        return found[0] if found else None

    def names(self) -> set[str]:
        return {key.lower() for key, _ in self.headers}

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def json(self) -> dict:
        return json.loads(self.body)


class Exchange:
    """One request and the bytes that answer it; handed to a script."""

    def __init__(self, worker: FakeWorker, sock: socket.socket, request: Request) -> None:
        self.worker = worker
        self.sock = sock
        self.request = request
        self.keep = True
        self.sent = 0
        self.chunked = False

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.sent += len(data)

    def head(self, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def reply(self, status: int = 200, body: bytes | dict | list | str = b"",
              headers: Iterable[tuple[str, str]] = (),
              content_type: str | None = "application/json") -> None:
        """A whole answer with Content-Length."""
        if isinstance(body, str):
            body = body.encode()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = [("content-type", content_type)] if content_type else []
        if status != 204:
            extra.append(("content-length", str(len(data))))
        self.head(status, [*extra, *headers])
        self.send(data)

    def stream(self, headers: Iterable[tuple[str, str]] = (), status: int = 200,
               content_type: str = "text/event-stream") -> None:
        """The head of a chunked answer; go on with chunk() or event(), finish with end()."""
        self.head(status, [("content-type", content_type), ("transfer-encoding", "chunked"),
                           *headers])
        self.chunked = True

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, data: str | dict) -> bytes:
        text = data if isinstance(data, str) else json.dumps(data)
        event = f"data: {text}\n\n".encode()
        self.chunk(event)
        return event

    def end(self, trailers: bytes = b"") -> None:
        self.send(b"0\r\n" + trailers + b"\r\n")

    def close(self) -> None:
        """FIN: the connection ends here, in the middle of whatever it was."""
        self.keep = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def rst(self) -> None:
        self.keep = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_gone(self, within: float = 30.0) -> float | None:
        """Waits until the gateway ends this connection; the moment it did, or None."""
        self.keep = False
        limit = time.monotonic() + within
        while time.monotonic() < limit and not self.worker.stopping.is_set():
            self.sock.settimeout(0.1)
            try:
                if self.sock.recv(65536) == b"":
                    return self.note_gone()
            except TimeoutError:
                continue
            except OSError:
                return self.note_gone()
        return None

    def note_gone(self) -> float:
        moment = time.monotonic()
        self.worker.gone_at.append(moment)
        return moment

    def sleep(self, seconds: float) -> None:
        self.worker.stopping.wait(seconds)


Script = Callable[[Exchange], None]


def replying(status: int = 200, body: bytes | dict | list | str = b"{}",
             headers: Iterable[tuple[str, str]] = (),
             content_type: str | None = "application/json") -> Script:
    return lambda x: x.reply(status, body, headers, content_type)


def hanging(x: Exchange) -> None:
    """Reads the request, answers nothing, waits until the gateway gives up."""
    x.wait_gone(60.0)


def closing(x: Exchange) -> None:
    x.close()


def resetting(x: Exchange) -> None:
    x.rst()


def sending(raw: bytes, then_close: bool = True) -> Script:
    """Answers with exactly these bytes."""
    def script(x: Exchange) -> None:
        x.send(raw)
        if then_close:
            x.close()
    return script


def streaming(*events: str | dict, done: bool = True) -> Script:
    def script(x: Exchange) -> None:
        x.stream()
        for event in events:
            x.event(event)
        if done:
            x.event("[DONE]")
        x.end()
    return script


class FakeWorker:
    """Listens at once. script answers whatever no route and no queued script takes."""

    def __init__(self, script: Script | None = None, model: str = "fake-model",
                 owned_by: str = "sglang", host: str = "127.0.0.1",
                 port: Port | None = None) -> None:
        self.model = model
        self.owned_by = owned_by
        self.host = host
        self.port = port or Port(host=host)
        self.script = script or self.canned
        self.routes: dict[str, Script] = {
            "/health": replying(200, b"OK", content_type="text/plain"),
            "/health_generate": replying(200, b"OK", content_type="text/plain"),
            "/server_info": replying(200, {"version": "0.0-fake"}),
            "/get_server_info": replying(200, {"version": "0.0-fake"}),
            "/model_info": replying(200, {"model_path": model, "is_generation": True}),
            "/get_model_info": replying(200, {"model_path": model, "is_generation": True}),
            "/v1/models": self.models,
            "/version": replying(404, b"", content_type=None),
            "/v1/loads": replying(404, b"", content_type=None),
            "/get_load": replying(404, b"", content_type=None),
            "/metrics": replying(404, b"", content_type=None),
        }
        self.queue: deque[Script] = deque()
        self.log: list[Request] = []
        self.gone_at: list[float] = []
        self.errors: list[str] = []
        self.open: dict[int, socket.socket] = {}
        self.accepted = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.listener: socket.socket | None = None
        self.start()

    # --- life ---------------------------------------------------------------------------------

    def start(self, backlog: int = 512) -> FakeWorker:
        """Listens (again)."""
        assert self.listener is None
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, int(self.port)))
        self.listener.listen(backlog)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        return self

    def stop_listening(self) -> None:
        """From now on connecting is refused; open connections live on."""
        if self.listener:
            listener, self.listener = self.listener, None
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def drop_connections(self, reset: bool = True) -> None:
        with self.lock:
            socks = list(self.open.values())
        for sock in socks:
            try:
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                    struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def die(self) -> None:
        """What a killed worker looks like: connections gone, nobody listens."""
        self.stop_listening()
        self.drop_connections()

    def close(self) -> list[str]:
        self.stopping.set()
        self.die()
        self.port.release()
        return self.errors

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def set_health(self, good: bool) -> None:
        self.routes["/health"] = replying(200 if good else 503, b"OK" if good else b"sick",
                                          content_type="text/plain")

    # --- what came ----------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """What clients sent: everything but the gateway's own calls."""
        with self.lock:
            return [r for r in self.log if not (r.method == "GET" and r.path in OWN_CALLS)]

    def seen(self, path: str) -> list[Request]:
        with self.lock:
            return [r for r in self.log if r.path == path]

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def clear(self) -> None:
        with self.lock:
            self.log.clear()
            self.gone_at.clear()

    @property
    def connections(self) -> int:
        with self.lock:
            return len(self.open)

    # --- serving ------------------------------------------------------------------------------

    def models(self, x: Exchange) -> None:
        x.reply(200, {"object": "list", "data": [
            {"id": self.model, "object": "model", "owned_by": self.owned_by}]})

    def canned(self, x: Exchange) -> None:
        """A small answer that names this worker."""
        x.reply(200, {"object": "fake", "worker": int(self.port), "path": x.request.path})

    def accept(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                number = next(self.numbers)
                self.accepted += 1
                self.open[number] = sock
            threading.Thread(target=self.serve, args=(number, sock), daemon=True).start()

    def serve(self, number: int, sock: socket.socket) -> None:
        reader = Reader(sock)
        try:
            for turn in itertools.count(1):
                request = reader.request(number, turn)
                if request is None:
                    return
                with self.lock:
                    self.log.append(request)
                x = Exchange(self, sock, request)
                self.answer(x)
                if not x.keep or "close" in ",".join(request.all("connection")).lower():
                    return
                sock.settimeout(None)
        except OSError:
            pass
        except Exception as err:
            self.errors.append(f"fake worker {self.port}: {type(err).__name__}: {err}")
        finally:
            with self.lock:
                self.open.pop(number, None)
            sock.close()

    def answer(self, x: Exchange) -> None:
        route = self.routes.get(x.request.path)
        if route:
            route(x)
            return
        with self.lock:
            script = self.queue.popleft() if self.queue else self.script
        script(x)


class Reader:
    """Strict reading of requests; what is not well formed is an error of the gateway."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def more(self) -> bool:
        data = self.sock.recv(1 << 18)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            if not self.more():
                return None
        out, _, self.buffer = self.buffer.partition(mark)
        return out

    def exactly(self, count: int) -> bytes:
        parts = [self.buffer[:count]]
        self.buffer = self.buffer[count:]
        missing = count - len(parts[0])
        while missing:
            data = self.sock.recv(min(missing, 1 << 20))
            if not data:
                raise ConnectionError("request body broke off")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def request(self, connection: int, turn: int) -> Request | None:
        raw = self.until(b"\r\n\r\n")
        if raw is None:
            return None
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        if version != "HTTP/1.1":
            raise ValueError(f"version {version!r}")
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
                raise ValueError(f"header line {line!r}")
            headers.append((name, value.strip()))
        request = Request(raw + b"\r\n\r\n", method, target, headers, b"", b"", connection, turn)
        request.body, request.raw_body = self.body(request)
        return request

    def body(self, request: Request) -> tuple[bytes, bytes]:
        coding, length = request.get("transfer-encoding"), request.get("content-length")
        if coding and length:
            raise ValueError("both transfer-encoding and content-length")
        if coding:
            return self.chunks()
        data = self.exactly(int(length)) if length else b""
        return data, data

    def chunks(self) -> tuple[bytes, bytes]:
        body, raw = b"", b""
        while True:
            line = self.until(b"\r\n")
            if line is None:
                raise ConnectionError("request body broke off")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data = self.exactly(size + 2)
            body += data[:-2]
            raw += line + b"\r\n" + data
        trailer = b""
        while (line := self.until(b"\r\n")) != b"":
            if line is None:
                raise ConnectionError("request trailers broke off")
            trailer += line + b"\r\n"
        return body, raw + b"0\r\n" + trailer + b"\r\n"
