"""Limits and deadlines of the server side: 413, 414, 431, 408, idle, garbage (spec 01, 1.20)."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest

from lib.gateway import Gateway, chat
from lib.rawhttp import Answer, RawConn, chunked, post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually

LIMIT = 1000


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    return shared_site.fake()


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway("--max-payload-size", LIMIT, workers=[worker])


@pytest.fixture(scope="module")
def locked(shared_site: Site) -> Gateway:
    return shared_site.gateway("--max-payload-size", LIMIT, "--api-key", "k")


@pytest.fixture(scope="module")
def tight(shared_site: Site) -> Gateway:
    return shared_site.gateway("--max-header-bytes", 2000, "--max-headers", 5,
                               "--header-timeout-secs", 1, "--idle-timeout-secs", 1)


def check(answer: Answer, status: int, code: str, reason: str) -> None:
    assert answer.status == status, answer
    assert answer.error()["code"] == code
    assert answer.error()["type"] == reason
    assert answer.error()["param"] is None
    assert answer.head.get("x-smg-error-code") == code


# --- 413 --------------------------------------------------------------------------------------

def sized(length: int) -> bytes:
    frame = b'{"model":"m","pad":""}'
    return frame[:-2] + b"p" * (length - len(frame)) + frame[-2:]


def check_413(answer: Answer) -> None:
    assert answer.status == 413, answer
    assert answer.error()["code"] == "payload_too_large"
    assert answer.error()["type"] in ("Payload Too Large", "Content Too Large")
    assert answer.head.get("x-smg-error-code") == "payload_too_large"


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT])
def test_body_of_exactly_the_limit_passes(gateway: Gateway, worker, length: int):
    body = sized(length)
    assert gateway.exchange(post("/v1/chat/completions", body)).status == 200
    assert worker.last.body == body


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT])
def test_chunked_body_of_exactly_the_limit_passes(gateway: Gateway, worker, length: int):
    body = sized(length)
    raw = request_bytes("POST", "/v1/chat/completions", [
        ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")],
        chunked(body[:10], body[10:]))
    assert gateway.exchange(raw).status == 200
    assert worker.last.body == body


@pytest.mark.parametrize("length", [LIMIT + 1, 10**9, 2**62])
def test_413_by_content_length_before_the_body(gateway: Gateway, worker, length: int):
    worker.clear()
    with gateway.raw() as conn:
        conn.send(request_bytes("POST", "/v1/chat/completions", [
            ("Content-Type", "application/json"), ("Content-Length", str(length))]))
        watch = Stopwatch()
        check_413(conn.read_answer())
        assert watch() < 1.0
        assert conn.wait_end(5), "the connection stayed open"
    assert worker.requests == []


def test_413_is_readable_by_a_client_that_sends_everything(gateway: Gateway):
    """The answer must not be lost in a reset while the client still writes."""
    body = sized(2_000_000)
    for _ in range(5):
        with gateway.raw() as conn:
            with contextlib.suppress(OSError):
                conn.send(post("/v1/chat/completions", body))
            check_413(conn.read_answer())


@pytest.mark.parametrize("piece", [100, 900, 5000])
def test_413_while_chunks_arrive(gateway: Gateway, worker, piece: int):
    worker.clear()
    with gateway.raw() as conn:
        conn.send(request_bytes("POST", "/v1/chat/completions", [
            ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]))
        with contextlib.suppress(OSError):
            for _ in range(20_000 // piece):
                conn.send(f"{piece:x}\r\n".encode() + b"p" * piece + b"\r\n")
        check_413(conn.read_answer())
        assert conn.wait_end(5), "the connection stayed open"
    assert worker.requests == []


def test_413_comes_before_401(locked: Gateway):
    head = request_bytes("POST", "/v1/chat/completions", [("Content-Length", str(LIMIT + 1))])
    check_413(locked.exchange(head))
    small = request_bytes("POST", "/v1/chat/completions", [], b"{}")
    assert locked.exchange(small).status == 401


@pytest.mark.parametrize("path", ["/workers", "/flush_cache", "/nope", "/health"])
def test_413_holds_on_other_routes(gateway: Gateway, path: str):
    head = request_bytes("POST", path, [("Content-Length", str(LIMIT + 1))])
    with gateway.raw() as conn:
        conn.send(head)
        answer = conn.read_answer()
        assert answer.status in (413, 404, 405)
        assert conn.wait_end(5), "a body that is not read must end the connection"


# --- 431 and 414 ------------------------------------------------------------------------------

def check_refused(gateway: Gateway, raw: bytes, status: int, code: str, reason: str) -> None:
    with gateway.raw() as conn:
        with contextlib.suppress(OSError):
            conn.send(raw)
        check(conn.read_answer(), status, code, reason)
        assert conn.wait_end(5), "the connection stayed open"


FIELDS = (431, "headers_too_large", "Request Header Fields Too Large")


def padded(total: int) -> bytes:
    """A request whose head is exactly total bytes long."""
    raw = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Pad: \r\n\r\n"
    return raw.replace(b"X-Pad: ", b"X-Pad: " + b"p" * (total - len(raw)))


@pytest.mark.parametrize("total", [70_000, 200_000, 5_000_000])
def test_431_head_too_large(gateway: Gateway, total: int):
    check_refused(gateway, padded(total), *FIELDS)


def test_431_without_waiting_for_the_end(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send(padded(70_000)[:69_000])
        check(conn.read_answer(), *FIELDS)


def test_large_head_below_the_limit(gateway: Gateway):
    assert gateway.exchange(padded(60_000), "GET").status == 200


def test_431_too_many_lines(gateway: Gateway):
    lines = [(f"X-{n}", "v") for n in range(120)]
    check_refused(gateway, request_bytes("GET", "/health", lines), *FIELDS)
    lines = [(f"X-{n}", "v") for n in range(99)]
    assert gateway.exchange(request_bytes("GET", "/health", lines), "GET").status == 200


def test_431_flags(tight: Gateway):
    assert tight.exchange(padded(1900), "GET").status == 200
    check_refused(tight, padded(2200), *FIELDS)
    four = [(f"X-{n}", "v") for n in range(4)]
    assert tight.exchange(request_bytes("GET", "/health", four), "GET").status == 200
    check_refused(tight, request_bytes("GET", "/health", [*four, ("X-5", "v")]), *FIELDS)


@pytest.mark.parametrize("length", [8300, 20_000, 60_000])
def test_414_request_line_too_long(gateway: Gateway, length: int):
    raw = request_bytes("GET", "/health?" + "q" * length)
    check_refused(gateway, raw, 414, "uri_too_long", "URI Too Long")


def test_long_request_line_below_the_limit(gateway: Gateway):
    assert gateway.exchange(request_bytes("GET", "/health?" + "q" * 8000), "GET").status == 200


# --- 408 and idle -----------------------------------------------------------------------------

SLOW_HEAD = (408, "header_timeout", "Request Timeout")


@pytest.mark.parametrize("part", [b"G", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_408_head_that_does_not_end(tight: Gateway, part: bytes):
    with tight.raw() as conn:
        conn.send(part)
        watch = Stopwatch()
        check(conn.read_answer(), *SLOW_HEAD)
        assert 0.8 <= watch() < 3.0
        assert conn.wait_end(3)


def test_408_slow_loris(tight: Gateway):
    """Bytes that trickle do not push the deadline away."""
    with tight.raw() as conn:
        watch = Stopwatch()
        conn.send("GET /health HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(OSError):
            while not conn.fill(0.15):
                conn.send("a")
                assert watch() < 5.0, "a slow head was let live"
        check(conn.read_answer(), *SLOW_HEAD)
        assert 0.8 <= watch() < 3.0


def test_second_head_on_a_connection_has_the_deadline_too(tight: Gateway):
    with tight.raw() as conn:
        conn.send(request_bytes("GET", "/health"))
        assert conn.read_answer().body == b"OK"
        conn.send("GET /hea")
        check(conn.read_answer(), *SLOW_HEAD)


def test_many_slow_heads_do_not_block_others(tight: Gateway):
    conns = [tight.raw() for _ in range(200)]
    for conn in conns:
        conn.send("GET /health HTTP/1.1\r\nHo")
    watch = Stopwatch()
    assert tight.get("/health").text == "OK"
    assert watch() < 1.0
    for conn in conns:
        assert conn.wait_end(5)
        conn.close()


def test_slow_body_is_not_a_slow_head(site: Site):
    worker = site.fake()
    gateway = site.gateway("--header-timeout-secs", 1, workers=[worker])
    body = b'{"model":"m"}'
    raw = post("/v1/chat/completions", body)
    with gateway.raw() as conn:
        conn.send(raw[:-len(body)])
        for byte in body:
            time.sleep(0.15)
            conn.send(bytes([byte]))
        assert conn.read_answer().status == 200


def test_idle_connection_is_closed(tight: Gateway):
    with tight.raw() as conn:
        conn.send(request_bytes("GET", "/health"))
        conn.read_answer()
        watch = Stopwatch()
        assert conn.wait_end(4) == "fin"
        assert not conn.buffer, "an idle connection ends without a word"
        assert 0.7 <= watch() < 3.0


def test_connection_that_never_speaks_is_closed(tight: Gateway):
    with tight.raw() as conn:
        watch = Stopwatch()
        assert conn.wait_end(5)
        assert watch() >= 0.7


def test_idle_time_does_not_run_during_a_request(site: Site):
    worker = site.fake(lambda x: (x.sleep(2.5), x.reply(200, {})))
    gateway = site.gateway("--idle-timeout-secs", 1, "--header-timeout-secs", 1,
                           workers=[worker])
    assert gateway.exchange(post("/v1/chat/completions", chat())).status == 200


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_body_that_stops_is_given_up(site: Site):
    """06 section 5.5: body idle 30 s."""
    gateway = site.gateway(workers=[site.fake()])
    with gateway.raw(timeout=60) as conn:
        watch = Stopwatch()
        conn.send(post("/v1/chat/completions", b'{"model":"m"}')[:-4])
        assert conn.wait_end(50)
        assert 25 < watch() < 50


# --- garbage ----------------------------------------------------------------------------------

def garbage(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randint(1, 2000))
    if kind == 1:
        return b"\x16\x03\x01" + rng.randbytes(300)
    if kind == 2:
        return b"GET /" + rng.randbytes(50) + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    if kind == 3:
        return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + rng.randbytes(500)
    if kind == 4:
        return post("/v1/chat/completions", rng.randbytes(900))
    return post("/v1/chat/completions", b"x" * 4000)[:rng.randint(1, 3900)]


def throw(port: int, seed: int, count: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        with contextlib.suppress(OSError), RawConn(port, timeout=5) as conn:
            conn.send(garbage(rng))
            if rng.random() < 0.3:
                conn.rst()
            elif rng.random() < 0.5:
                conn.shutdown_write()
                conn.wait_end(2)


def bombard(gateway: Gateway, count: int, seed: int) -> None:
    threads = [threading.Thread(target=throw, args=(int(gateway.port), seed + n, count // 8))
               for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_garbage(site: Site, count: int) -> None:
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    bombard(gateway, max(400, count // 10), 1)
    before = gateway.settled_rss()
    bombard(gateway, count, 1000)
    after = gateway.settled_rss()
    assert after - before < 2 << 20, f"{before} -> {after}"
    assert gateway.chat().status_code == 200
    eventually(lambda: gateway.open_files() < 100, 10, what="descriptors given back")
    assert gateway.load(worker) == 0


@pytest.mark.rss
def test_garbage_leaves_memory_where_it_was(site: Site):
    check_garbage(site, 2000)


@pytest.mark.rss
@pytest.mark.slow
def test_much_garbage_leaves_memory_where_it_was(site: Site):
    check_garbage(site, 10_000)


def test_garbage_does_not_harm_others(site: Site):
    """No memory figure, so that it runs under sanitizers too."""
    gateway = site.gateway(workers=[site.fake()])
    bombard(gateway, 400, 7)
    assert gateway.chat().status_code == 200
