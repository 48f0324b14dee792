"""An HTTP/1.1 client that sends exactly what it is told and shows exactly what came back."""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass, field

from . import env

MAX_HEAD = 1 << 20


class Ended(Exception):
    """The peer ended the connection (how: "fin" or "rst") before the awaited bytes came."""

    def __init__(self, how: str, got: bytes) -> None:
        super().__init__(f"connection ended by {how} after {got[:200]!r}")
        self.how = how
        self.got = got


@dataclass
class Head:
    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    raw: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str, default: str | None = None) -> str | None:
        found = self.all(name)
        return found[-1] if found else default

    def names(self) -> set[str]:
        return {key.lower() for key, _ in self.headers}


@dataclass
class Answer:
    head: Head
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Head] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.head.status

    def json(self) -> dict:
        return json.loads(self.body)

    def error(self) -> dict:
        return self.json()["error"]


def parse_head(raw: bytes) -> Head:
    lines = raw.decode("latin-1").split("\r\n")
    version, status, *reason = lines[0].split(" ", 2)
    headers = []
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
    return Head(version, int(status), reason[0] if reason else "", headers, raw)


class RawConn:
    """One client connection. Times are limits; they grow with env.patience()."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 10.0,
                 recv_buffer: int | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if recv_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
        self.timeout = timeout
        self.sock.settimeout(timeout * env.patience())
        self.sock.connect((host, int(port)))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.ended: str | None = None

    def __enter__(self) -> RawConn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def rst(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def shutdown_write(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def send(self, data: bytes | str) -> RawConn:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def fill(self, timeout: float | None = None) -> bool:
        """Reads once into the buffer. False: ended or (with a timeout given) nothing came."""
        if self.ended:
            return False
        self.sock.settimeout((self.timeout if timeout is None else timeout) * env.patience()
                             if timeout != 0 else 0.0)
        try:
            data = self.sock.recv(1 << 18)
        except (TimeoutError, BlockingIOError):
            if timeout is None:
                raise TimeoutError(f"nothing came; buffer {bytes(self.buffer[:200])!r}") from None
            return False
        except OSError:
            self.ended = "rst"
            return False
        if not data:
            self.ended = "fin"
            return False
        self.buffer += data
        return True

    def need(self, ready: int | bytes) -> int:
        """Reads until the buffer has so many bytes or holds the mark; returns the mark's end."""
        while True:
            if isinstance(ready, int):
                if len(self.buffer) >= ready:
                    return ready
            else:
                at = self.buffer.find(ready)
                if at >= 0:
                    return at + len(ready)
                assert len(self.buffer) < MAX_HEAD, "line or head without end"
            if not self.fill():
                raise Ended(self.ended or "?", bytes(self.buffer))

    def take(self, count: int) -> bytes:
        out = bytes(self.buffer[:count])
        del self.buffer[:count]
        return out

    def read_head(self) -> Head:
        return parse_head(self.take(self.need(b"\r\n\r\n")))

    def read_answer(self, method: str = "GET") -> Answer:
        """The next final response whole, in strict framing; 1xx heads go to .interim."""
        interim = []
        head = self.read_head()
        while 100 <= head.status < 200 and head.status != 101:
            interim.append(head)
            head = self.read_head()
        body = Body(self, head, method)
        body.read_to_end()
        assert body.complete, f"body broke off: {body.state} after {len(body.data)} bytes"
        return Answer(head, bytes(body.data), body.trailers, interim)

    def body_of(self, head: Head, method: str = "GET") -> Body:
        return Body(self, head, method)

    def wait_end(self, within: float = 5.0) -> str | None:
        """Reads until the peer ends the connection: "fin", "rst", or None if it stays open."""
        limit = time.monotonic() + within * env.patience()
        while not self.ended and time.monotonic() < limit:
            self.fill(max(0.001, (limit - time.monotonic()) / env.patience()))
        return self.ended

    def quiet(self, lasting: float) -> bool:
        """True when for that long nothing arrives and the connection stays open."""
        limit = time.monotonic() + lasting
        while time.monotonic() < limit:
            left = limit - time.monotonic()
            if self.fill(max(0.001, left / env.patience())) or self.ended:
                return False
        return not self.buffer


class Body:
    """A response body read piece by piece.

    state: "open", "complete", or how it broke ("fin", "rst", "bad framing: ...").
    """

    def __init__(self, conn: RawConn, head: Head, method: str = "GET") -> None:
        self.conn = conn
        self.data = bytearray()
        self.trailers: list[tuple[str, str]] = []
        self.state = "open"
        self.pieces = 0
        self.at_chunk_end = False
        codings = ",".join(head.all("transfer-encoding")).lower()
        lengths = set(head.all("content-length"))
        assert len(lengths) <= 1, f"several content-length: {lengths}"
        assert not (codings and lengths), "both transfer-encoding and content-length"
        if method == "HEAD" or head.status in (204, 304) or 100 <= head.status < 200:
            self.kind, self.left = "none", 0
            self.state = "complete"
        elif codings:
            assert codings == "chunked", codings
            self.kind, self.left = "chunked", 0
        elif lengths:
            self.kind, self.left = "length", int(lengths.pop())
            self.state = "complete" if self.left == 0 else "open"
        else:
            self.kind, self.left = "eof", 0

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    def pump(self, timeout: float | None = None) -> bool:
        """Decodes what is there and reads once if that is nothing. True: data or end came."""
        if self.state != "open":
            return False
        before = len(self.data)
        self.decode()
        if len(self.data) > before or self.state != "open":
            return True
        if not self.conn.fill(timeout):
            if self.conn.ended:
                clean = self.kind == "eof" and self.conn.ended == "fin"
                self.state = "complete" if clean else self.conn.ended
            return bool(self.conn.ended)
        self.decode()
        return True

    def decode(self) -> None:
        if self.kind == "eof":
            self.data += self.conn.take(len(self.conn.buffer))
        elif self.kind == "length":
            part = self.conn.take(min(self.left, len(self.conn.buffer)))
            self.data += part
            self.left -= len(part)
            if self.left == 0:
                self.state = "complete"
        else:
            while self.state == "open" and self.decode_chunk():
                pass

    def decode_chunk(self) -> bool:
        """One step of chunked coding from the buffer; False when more bytes are needed."""
        buffer = self.conn.buffer
        if self.left > 0:
            part = self.conn.take(min(self.left, len(buffer)))
            self.data += part
            self.left -= len(part)
            self.at_chunk_end = self.left == 0
            return bool(part)
        if self.at_chunk_end:
            if len(buffer) < 2:
                return False
            if self.conn.take(2) != b"\r\n":
                self.state = "bad framing: no CRLF after chunk"
                return False
            self.pieces += 1
            self.at_chunk_end = False
        eol = buffer.find(b"\r\n")
        if eol < 0:
            return False
        digits = bytes(buffer[:eol]).split(b";")[0]
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            self.state = f"bad framing: chunk size {digits!r}"
            return False
        if int(digits, 16) == 0:
            return self.decode_end(eol)
        self.left = int(digits, 16)
        self.conn.take(eol + 2)
        return True

    def decode_end(self, eol: int) -> bool:
        buffer = self.conn.buffer
        if buffer[eol + 2:eol + 4] == b"\r\n":
            end = eol + 4
        else:
            at = buffer.find(b"\r\n\r\n", eol)
            if at < 0:
                return False
            for line in bytes(buffer[eol + 2:at]).decode("latin-1").split("\r\n"):
                name, _, value = line.partition(":")
                self.trailers.append((name, value.strip()))
            end = at + 4
        del buffer[:end]
        self.state = "complete"
        return True

    def read_to_end(self, within: float | None = None) -> Body:
        limit = time.monotonic() + (within or self.conn.timeout) * env.patience()
        while self.state == "open":
            if time.monotonic() > limit:
                raise TimeoutError(f"no end of body; {len(self.data)} bytes so far")
            self.pump()
        return self

    def read_until(self, ready: int | bytes, within: float | None = None) -> bytes:
        """Reads until that many bytes or that mark is in the data; returns the data so far."""
        limit = time.monotonic() + (within or self.conn.timeout) * env.patience()
        while True:
            have = len(self.data) >= ready if isinstance(ready, int) else ready in self.data
            if have:
                return bytes(self.data)
            left = limit - time.monotonic()
            if self.state != "open" or left <= 0:
                raise AssertionError(f"body {self.state} without {ready!r}: "
                                     f"{len(self.data)} bytes, end {bytes(self.data[-200:])!r}")
            self.pump(max(0.001, left / env.patience()))

    def drain_for(self, seconds: float) -> bytes:
        """Everything that arrives within the time."""
        limit = time.monotonic() + seconds
        while self.state == "open" and time.monotonic() < limit:
            self.pump(max(0.001, (limit - time.monotonic()) / env.patience()))
        return bytes(self.data)


def request_bytes(method: str, target: str, headers: list[tuple[str, str]] | None = None,
                  body: bytes | None = None, host: str = "gateway.test",
                  version: str = "HTTP/1.1") -> bytes:
    """A plain request; Host and Content-Length are added unless the caller gives them."""
    given = {name.lower() for name, _ in headers or []}
    lines = [f"{method} {target} {version}"]
    if "host" not in given:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers or []]
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def post(target: str, body: bytes | dict, headers: list[tuple[str, str]] | None = None,
         **kw: str) -> bytes:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    all_headers = list(headers or [])
    if "content-type" not in {name.lower() for name, _ in all_headers}:
        all_headers.insert(0, ("Content-Type", "application/json"))
    return request_bytes("POST", target, all_headers, data, **kw)


def chunked(*pieces: bytes, extension: str = "", trailers: str = "") -> bytes:
    """The pieces in chunked coding, last chunk included."""
    out = b"".join(f"{len(p):x}{extension}\r\n".encode() + p + b"\r\n" for p in pieces)
    return out + b"0\r\n" + trailers.encode() + b"\r\n"


def exchange(port: int, raw: bytes, method: str = "POST", timeout: float = 10.0) -> Answer:
    """One request on a connection of its own."""
    with RawConn(port, timeout=timeout) as conn:
        return conn.send(raw).read_answer(method)
