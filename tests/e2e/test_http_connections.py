"""Connections: keep-alive, pipelining, HEAD, Expect, chunked answers, HTTP/1.0, many at once."""

from __future__ import annotations

import json
import threading
import time

import pytest

from lib.fake_worker import sending
from lib.gateway import Gateway, chat
from lib.rawhttp import RawConn, chunked, post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually

HEALTH = request_bytes("GET", "/health")


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    def echo(x):
        sent = x.request.json()
        x.sleep(sent.get("pause", 0))
        x.reply(200, {"n": sent.get("n")})
    return shared_site.fake(echo)


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway(workers=[worker])


def numbered(number: int, pause: float = 0, pad: int = 0) -> bytes:
    return post("/v1/chat/completions", {"n": number, "pause": pause, "pad": "p" * pad})


# --- keep-alive and pipelining ----------------------------------------------------------------

def test_one_connection_many_requests(gateway: Gateway):
    with gateway.raw() as conn:
        for number in range(200):
            conn.send(numbered(number))
            assert conn.read_answer().json() == {"n": number}
        assert conn.quiet(0.1)


def test_pipelined_answers_come_in_order(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send(numbered(1, pause=0.4) + HEALTH + numbered(2) + HEALTH + numbered(3))
        assert conn.read_answer().json() == {"n": 1}
        assert conn.read_answer().body == b"OK"
        assert conn.read_answer().json() == {"n": 2}
        assert conn.read_answer().body == b"OK"
        assert conn.read_answer().json() == {"n": 3}


def test_pipelined_requests_run_one_after_another(gateway: Gateway, worker):
    """The second one is not sent on while the first is being answered."""
    worker.clear()
    with gateway.raw() as conn:
        conn.send(numbered(1, pause=0.4) + numbered(2))
        eventually(lambda: len(worker.requests) == 1, 5)
        time.sleep(0.2)
        assert len(worker.requests) == 1
        conn.read_answer()
        conn.read_answer()
        assert [r.json()["n"] for r in worker.requests] == [1, 2]


def test_deep_pipeline(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send(HEALTH * 500)
        for _ in range(500):
            assert conn.read_answer().body == b"OK"


@pytest.mark.parametrize("pad", [30_000, 100_000])
def test_pipeline_past_the_read_ahead(gateway: Gateway, pad: int):
    """More than 64 KiB wait behind a slow request: read later, none lost."""
    count = 12
    with gateway.raw() as conn:
        raw = numbered(0, pause=0.5) + b"".join(numbered(n, pad=pad) for n in range(1, count))
        sender = threading.Thread(target=conn.send, args=(raw,))
        sender.start()
        for number in range(count):
            assert conn.read_answer().json() == {"n": number}
        sender.join()


def test_pipelined_behind_a_stream(gateway: Gateway, worker):
    def script(x):
        x.stream()
        for number in range(3):
            x.event({"n": number})
            x.sleep(0.05)
        x.end()
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=True)) + HEALTH)
        assert conn.read_answer().body.count(b"data: ") == 3
        assert conn.read_answer().body == b"OK"


@pytest.mark.parametrize("value", ["close", "Close", "foo, close", "keep-alive, close"])
def test_connection_close_is_obeyed(gateway: Gateway, value: str):
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", {"n": 1}, [("Connection", value)]) + HEALTH)
        answer = conn.read_answer()
        assert answer.json() == {"n": 1}
        assert answer.head.get("connection", "").lower() == "close"
        assert conn.wait_end(3) == "fin"
        assert not conn.buffer


def test_request_in_single_bytes(gateway: Gateway):
    with gateway.raw() as conn:
        for byte in numbered(7):
            conn.send(bytes([byte]))
        assert conn.read_answer().json() == {"n": 7}


# --- HTTP/1.0 ---------------------------------------------------------------------------------

def test_http10_closes_after_the_answer(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", {"n": 1}, version="HTTP/1.0") + HEALTH)
        answer = conn.read_answer()
        assert answer.json() == {"n": 1}
        assert answer.head.get("transfer-encoding") is None
        assert conn.wait_end(3)
        assert not conn.buffer


def test_http10_without_host(gateway: Gateway):
    assert gateway.exchange(b"GET /health HTTP/1.0\r\n\r\n", "GET").body == b"OK"


def test_http10_client_gets_a_stream_without_chunks(gateway: Gateway, worker):
    def script(x):
        x.stream()
        x.event("one")
        x.event("two")
        x.end()
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=True), version="HTTP/1.0"))
        head = conn.read_head()
        assert head.get("transfer-encoding") is None
        body = conn.body_of(head).read_to_end()
        assert bytes(body.data) == b"data: one\n\ndata: two\n\n"
        assert body.complete and conn.ended == "fin"


# --- HEAD and Expect --------------------------------------------------------------------------

def test_head_has_no_body_and_keeps_the_connection(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send(request_bytes("HEAD", "/v1/models") + request_bytes("HEAD", "/readiness")
                  + HEALTH)
        assert conn.read_answer("HEAD").status == 200
        assert conn.read_answer("HEAD").status == 200
        assert conn.read_answer().body == b"OK"


def expecting(body: bytes, **kw: object) -> tuple[bytes, bytes]:
    raw = post("/v1/chat/completions", body, [("Expect", "100-continue")], **kw)
    return raw[:len(raw) - len(body)], body


def test_expect_100_continue(gateway: Gateway):
    head, body = expecting(b'{"n":5}')
    with gateway.raw() as conn:
        conn.send(head)
        interim = conn.read_head()
        assert (interim.status, interim.headers) == (100, [])
        conn.send(body)
        assert conn.read_answer().json() == {"n": 5}
        conn.send(HEALTH)
        assert conn.read_answer().body == b"OK"


def test_expect_with_the_body_at_once(gateway: Gateway):
    head, body = expecting(b'{"n":6}')
    with gateway.raw() as conn:
        conn.send(head + body)
        answer = conn.read_answer()
        assert answer.json() == {"n": 6}
        assert len(answer.interim) <= 1


def test_expect_with_chunked_body(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send(request_bytes("POST", "/v1/chat/completions", [
            ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"),
            ("Expect", "100-Continue")]))
        assert conn.read_head().status == 100
        conn.send(chunked(b'{"n":', b"8}"))
        assert conn.read_answer().json() == {"n": 8}


def test_expect_is_not_sent_on(gateway: Gateway, worker):
    worker.clear()
    head, body = expecting(b'{"n":9}')
    gateway.exchange(head + body)
    assert "expect" not in worker.last.names()


def test_too_large_body_gets_no_100(site: Site):
    gateway = site.gateway("--max-payload-size", "100", wait="live")
    head, _ = expecting(b"x" * 101)
    with gateway.raw() as conn:
        conn.send(head)
        answer = conn.read_answer()
        assert answer.status == 413
        assert answer.interim == []


def test_expect_from_http10_is_ignored(gateway: Gateway):
    head, body = expecting(b'{"n":4}', version="HTTP/1.0")
    with gateway.raw() as conn:
        conn.send(head)
        assert conn.quiet(0.2)
        conn.send(body)
        answer = conn.read_answer()
        assert answer.interim == []
        assert answer.json() == {"n": 4}


# --- what workers send ------------------------------------------------------------------------

JSON = b'{"answer":"' + b"a" * 500 + b'"}'
HEAD_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
WORKER_ANSWERS = {
    "content-length": HEAD_OK + b"content-length: %d\r\n\r\n" % len(JSON) + JSON,
    "chunked": HEAD_OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(JSON[:99], JSON[99:]),
    "chunk extension": HEAD_OK + b"transfer-encoding: chunked\r\n\r\n"
                       + chunked(JSON, extension=";x=1"),
    "trailers": HEAD_OK + b"transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
                + chunked(JSON, trailers="x-sum: 1\r\nset-cookie: no=1\r\n"),
    "until close": HEAD_OK + b"\r\n" + JSON,
    "http/1.0": HEAD_OK.replace(b"1.1", b"1.0") + b"\r\n" + JSON,
    "http/1.0 with length": HEAD_OK.replace(b"1.1", b"1.0")
                            + b"content-length: %d\r\n\r\n" % len(JSON) + JSON,
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD_OK
                 + b"content-length: %d\r\n\r\n" % len(JSON) + JSON,
    "103 first": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + HEAD_OK
                 + b"content-length: %d\r\n\r\n" % len(JSON) + JSON,
    "no reason phrase": HEAD_OK.replace(b" OK", b"")
                        + b"content-length: %d\r\n\r\n" % len(JSON) + JSON,
}


@pytest.mark.parametrize("name", WORKER_ANSWERS)
def test_framing_of_worker_answers(gateway: Gateway, worker, name: str):
    worker.queue.append(sending(WORKER_ANSWERS[name]))
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", {"n": 1}) + HEALTH)
        answer = conn.read_answer()
        assert answer.status == 200
        assert answer.body == JSON
        assert answer.trailers == []
        assert answer.head.get("trailer") is None
        assert answer.head.get("set-cookie") is None
        if answer.head.get("content-length"):
            assert int(answer.head.get("content-length")) == len(JSON)
        assert conn.read_answer().body == b"OK"


def test_worker_answer_in_single_bytes(gateway: Gateway, worker):
    def script(x):
        for byte in WORKER_ANSWERS["chunked"]:
            x.send(bytes([byte]))
    worker.queue.append(script)
    assert gateway.chat().content == JSON


def test_large_answer_is_whole(gateway: Gateway, worker):
    big = json.dumps({"data": [f"{n:06}" for n in range(300_000)]}).encode()
    worker.queue.append(lambda x: x.reply(200, big))
    assert gateway.chat().content == big


# --- upstream connections ---------------------------------------------------------------------

def test_upstream_connections_are_reused(site: Site):
    worker = site.fake()
    gateway = site.gateway("--runtime-worker-threads", "1", workers=[worker])
    before = worker.accepted
    for _ in range(50):
        assert gateway.chat().status_code == 200
    assert worker.accepted - before <= 2


def test_no_idle_upstream_connections_when_told_so(site: Site):
    worker = site.fake()
    gateway = site.gateway("--upstream-idle-per-worker", "0", workers=[worker])
    before = worker.accepted
    for _ in range(5):
        assert gateway.chat().status_code == 200
    assert worker.accepted - before == 5
    eventually(lambda: worker.connections == 0, 5)


def test_idle_upstream_connection_is_let_go_after_four_seconds(site: Site):
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    gateway.chat()
    assert worker.connections >= 1
    eventually(lambda: worker.connections == 0, 8, what="idle upstream connections closed")


def test_upstream_limit_makes_requests_wait(site: Site):
    """--max-upstream-connections: all busy means waiting, then 503 after the connect timeout."""
    def slow(x):
        x.sleep(x.request.json()["pause"])
        x.reply(200, {})
    worker = site.fake(slow)
    gateway = site.gateway("--max-upstream-connections", "1", "--connect-timeout-secs", "1",
                           "--disable-retries", workers=[worker])
    with gateway.raw() as first, gateway.raw() as second:
        first.send(post("/v1/chat/completions", {"pause": 0.5}))
        eventually(lambda: len(worker.requests) == 1, 5)
        second.send(post("/v1/chat/completions", {"pause": 0}))
        assert first.read_answer().status == 200
        assert second.read_answer().status == 200
        first.send(post("/v1/chat/completions", {"pause": 3}))
        eventually(lambda: len(worker.requests) == 3, 5)
        watch = Stopwatch()
        second.send(post("/v1/chat/completions", {"pause": 0}))
        answer = second.read_answer()
        assert answer.status == 503
        assert answer.error()["code"] == "no_available_workers"
        assert 0.9 <= watch() < 2.5


# --- many connections -------------------------------------------------------------------------

@pytest.mark.parametrize("threads", ["1", "2", "4"])
def test_thread_counts(site: Site, threads: str):
    worker = site.fake()
    gateway = site.gateway("--runtime-worker-threads", threads, workers=[worker])
    conns = [gateway.raw() for _ in range(32)]
    for conn in conns:
        conn.send(post("/v1/chat/completions", chat()))
    assert {conn.read_answer().status for conn in conns} == {200}
    for conn in conns:
        conn.close()


def test_thousand_idle_connections_stay_usable(gateway: Gateway):
    conns = [gateway.raw() for _ in range(1000)]
    for conn in conns:
        conn.send(HEALTH)
    for conn in conns:
        assert conn.read_answer().body == b"OK"
    time.sleep(1.0)
    for number, conn in enumerate(conns):
        conn.send(numbered(number) if number % 10 == 0 else HEALTH)
    for number, conn in enumerate(conns):
        answer = conn.read_answer()
        assert answer.json() == {"n": number} if number % 10 == 0 else answer.body == b"OK"
    for conn in conns:
        conn.close()
    eventually(lambda: gateway.open_files() < 200, 5, what="descriptors given back")


@pytest.mark.rss
def test_idle_connections_are_cheap(site: Site):
    """The issue's figure is 2 KB each at 15,000 (the bench); here 1,000 under 4 KB each."""
    gateway = site.gateway()
    warm = [gateway.raw() for _ in range(50)]
    for conn in warm:
        conn.send(HEALTH)
        conn.read_answer()
        conn.close()
    before = gateway.settled_rss()
    conns = [gateway.raw() for _ in range(1000)]
    for conn in conns:
        conn.send(HEALTH)
    for conn in conns:
        conn.read_answer()
    held = gateway.settled_rss() - before
    for conn in conns:
        conn.close()
    assert held < 1000 * 4096, f"{held / 1000:.0f} bytes a connection"
    after = gateway.settled_rss() - before
    assert after < 6 << 20, after


def test_max_connections_makes_new_ones_wait(site: Site):
    gateway = site.gateway("--max-connections", "4", wait=None)
    eventually(lambda: RawConn(int(gateway.port)).close() or True, 10)
    held = []
    for _ in range(4):
        conn = gateway.raw()
        conn.send(HEALTH)
        assert conn.read_answer().body == b"OK"
        held.append(conn)
    eventually(lambda: gateway.metrics().value("sluice_accept_paused") == 1, 5)
    with gateway.raw() as waiting:
        waiting.send(HEALTH)
        assert waiting.quiet(0.4)
        held.pop().close()
        assert waiting.read_answer().body == b"OK"
    for conn in held:
        conn.close()
    eventually(lambda: gateway.metrics().value("sluice_accept_paused") == 0, 5)
    assert gateway.metrics().value("sluice_accept_pauses_total") >= 1
