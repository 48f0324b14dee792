"""Answers that break, and clients that leave (spec 01 section 6.7, 02 section 9.1 no. 3)."""

from __future__ import annotations

import json
import time

import pytest

from lib import env
from lib.fake_worker import replying
from lib.gateway import Gateway, chat
from lib.rawhttp import Body, RawConn, post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually

HOLD = 65536
CHAT_STREAM = post("/v1/chat/completions", chat(stream=True))
CHAT = post("/v1/chat/completions", chat())
HEALTH = request_bytes("GET", "/health")
FIRST = b'data: {"n": 1}\n\n'


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    return shared_site.fake()


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    """No retries and no breaker, so that each break is seen as it is."""
    return shared_site.gateway("--disable-retries", "--disable-circuit-breaker",
                               workers=[worker])


def cut(x, how: str) -> None:
    x.sleep(0.05)  # what was sent is read before a reset could overtake it
    x.rst() if how == "rst" else x.close()


def read_stream(conn: RawConn, raw: bytes = CHAT_STREAM) -> Body:
    conn.send(raw)
    head = conn.read_head()
    assert head.status == 200
    return conn.body_of(head).read_to_end()


def check_openai_event(data: bytes, kind: str, code: str) -> None:
    assert data.startswith(b"data: ") and data.endswith(b"\n\n"), data
    assert data.count(b"\n") == 2, data
    event = json.loads(data[6:])
    assert list(event) == ["error"]
    assert list(event["error"]) == ["type", "code", "message", "param"]
    assert event["error"]["type"] == kind
    assert event["error"]["code"] == code
    assert event["error"]["message"]
    assert event["error"]["param"] is None


# --- break at an event border -----------------------------------------------------------------

@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/generate"])
def test_break_at_a_border_ends_with_an_error_event(gateway: Gateway, worker, path, how):
    def script(x):
        x.stream()
        x.chunk(FIRST)
        cut(x, how)
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn, post(path, {"model": "m", "stream": True}))
        assert body.complete, body.state
        assert body.data.startswith(FIRST)
        check_openai_event(bytes(body.data[len(FIRST):]), "Bad Gateway",
                           "upstream_stream_broken")
        assert b"[DONE]" not in body.data
        conn.send(HEALTH)
        assert conn.read_answer().body == b"OK", "the client's connection is kept"


@pytest.mark.parametrize("tail", [b"data: par", b"data: whole but no blank line\n", b"d",
                                  b"data: " + b"t" * (HOLD - 100)])
def test_held_tail_is_dropped(gateway: Gateway, worker, tail: bytes):
    def script(x):
        x.stream()
        x.chunk(FIRST + tail)
        cut(x, "fin")
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn)
        assert body.complete
        check_openai_event(bytes(body.data[len(FIRST):]), "Bad Gateway",
                           "upstream_stream_broken")


def test_break_in_the_middle_of_a_chunk(gateway: Gateway, worker):
    def script(x):
        x.stream()
        x.chunk(FIRST)
        x.sleep(0.05)
        x.send(b"100\r\ndata: half a chu")
        cut(x, "fin")
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn)
        assert body.complete
        check_openai_event(bytes(body.data[len(FIRST):]), "Bad Gateway",
                           "upstream_stream_broken")


def test_bad_chunk_framing_counts_as_a_break(gateway: Gateway, worker):
    def script(x):
        x.stream()
        x.chunk(FIRST)
        x.sleep(0.05)
        x.send(b"zz\r\nnonsense")
        x.wait_gone(5)
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn)
        assert body.complete
        check_openai_event(bytes(body.data[len(FIRST):]), "Bad Gateway",
                           "upstream_stream_broken")


def test_break_after_the_head(gateway: Gateway, worker):
    """The head has gone, no event yet: the stream is at a border."""
    def script(x):
        x.stream()
        x.sleep(0.2)
        cut(x, "fin")
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn)
        assert body.complete
        check_openai_event(bytes(body.data), "Bad Gateway", "upstream_stream_broken")


def test_messages_form(gateway: Gateway, worker):
    first = b'event: message_start\ndata: {"type": "message_start"}\n\n'

    def script(x):
        x.stream()
        x.chunk(first)
        cut(x, "fin")
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn, post("/v1/messages", {"model": "m", "stream": True}))
        assert body.complete
        kind, data, *rest = bytes(body.data[len(first):]).decode().split("\n")
        assert (kind, rest) == ("event: error", ["", ""])
        event = json.loads(data.removeprefix("data: "))
        assert event == {"type": "error", "error": {"type": "api_error",
                                                    "message": event["error"]["message"]}}
        assert event["error"]["message"]


def test_responses_form(gateway: Gateway, worker):
    first = b'event: response.created\ndata: {"type": "response.created"}\n\n'

    def script(x):
        x.stream()
        x.chunk(first)
        cut(x, "rst")
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn, post("/v1/responses", {"model": "m", "stream": True}))
        assert body.complete
        kind, data, *rest = bytes(body.data[len(first):]).decode().split("\n")
        assert (kind, rest) == ("event: error", ["", ""])
        event = json.loads(data.removeprefix("data: "))
        assert event == {"type": "error", "code": "upstream_stream_broken",
                         "message": event["message"], "param": None}
        assert event["message"]


# --- break where no clean end is possible -----------------------------------------------------

def test_break_inside_a_relayed_event_aborts(gateway: Gateway, worker):
    """Past 64 KiB the tail went out: only an abort keeps the client from half a JSON."""
    def script(x):
        x.stream()
        x.chunk(FIRST + b"data: " + b"z" * (4 * HOLD))
        x.sleep(0.3)
        x.close()
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn)
        assert body.state == "rst"
        assert b"upstream_stream_broken" not in body.data


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_stream_with_content_length_aborts(gateway: Gateway, worker, how: str):
    def script(x):
        x.head(200, [("content-type", "text/event-stream"), ("content-length", "5000")])
        x.send(FIRST)
        cut(x, how)
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn)
        assert body.state in ("rst", "fin")


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_large_whole_answer_aborts(gateway: Gateway, worker, framing: str):
    def script(x):
        if framing == "length":
            x.head(200, [("content-type", "application/json"),
                         ("content-length", str(8 * HOLD))])
            x.send(b"j" * (4 * HOLD))
        else:
            x.stream(content_type="application/json")
            x.chunk(b"j" * (4 * HOLD))
        x.sleep(0.3)
        x.close()
    worker.queue.append(script)
    with gateway.raw() as conn:
        body = read_stream(conn, CHAT)
        assert body.state in ("rst", "fin")
        assert b"error" not in body.data


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_small_whole_answer_that_breaks_is_502(gateway: Gateway, worker, framing, how):
    def script(x):
        if framing == "length":
            x.head(200, [("content-type", "application/json"), ("content-length", "100")])
            x.send(b'{"half":')
        else:
            x.stream(content_type="application/json")
            x.chunk(b'{"half":')
        cut(x, how)
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(CHAT)
        answer = conn.read_answer()
        assert answer.status == 502
        assert answer.error()["code"] == "read_response_body_failed"
        conn.send(HEALTH)
        assert conn.read_answer().body == b"OK"


def test_small_whole_answer_that_breaks_is_retried(site: Site):
    def breaks(x):
        x.head(200, [("content-type", "application/json"), ("content-length", "100")])
        x.send(b'{"half":')
        cut(x, "fin")
    bad, good = site.fake(breaks), site.fake(replying(200, b'{"good":1}'))
    gateway = site.gateway("--policy", "round_robin", workers=[bad, good])
    for _ in range(4):
        answer = gateway.chat()
        assert (answer.status_code, answer.content) == (200, b'{"good":1}')
    assert bad.requests


def test_stream_is_never_retried_once_its_head_has_gone(site: Site):
    def breaks(x):
        x.stream()
        x.chunk(FIRST)
        cut(x, "fin")
    workers = [site.fake(breaks), site.fake(breaks)]
    gateway = site.gateway(workers=workers)
    with gateway.raw() as conn:
        assert read_stream(conn).complete
    assert sum(len(w.requests) for w in workers) == 1


# --- deadlines of a stream --------------------------------------------------------------------

def drip(x) -> None:
    """Events for ever."""
    x.stream()
    while not x.worker.stopping.is_set():
        x.chunk(FIRST)
        x.sleep(0.1)


def check_deadline(gateway: Gateway, least: float, most: float) -> None:
    with gateway.raw() as conn:
        watch = Stopwatch()
        body = read_stream(conn)
        assert least <= watch() < most
        assert body.complete
        last = bytes(body.data)[body.data.rindex(b"data: "):]
        check_openai_event(last, "Gateway Timeout", "call_upstream_timeout")
        conn.send(HEALTH)
        assert conn.read_answer().body == b"OK"


def test_request_timeout_covers_the_stream(site: Site):
    gateway = site.gateway("--request-timeout-secs", "1", workers=[site.fake(drip)])
    check_deadline(gateway, 0.9, 2.5)


def test_stream_idle_timeout(site: Site):
    def stops(x):
        x.stream()
        x.chunk(FIRST)
        x.wait_gone(30)
    worker = site.fake(stops)
    gateway = site.gateway("--stream-idle-timeout-secs", "1", workers=[worker])
    check_deadline(gateway, 0.9, 2.5)
    eventually(lambda: worker.gone_at, 2, what="upstream closed")


def test_stream_idle_timeout_lets_a_live_stream_go_on(site: Site):
    def slow(x):
        x.stream()
        for _ in range(8):
            x.chunk(FIRST)
            x.sleep(0.3)
        x.end()
    gateway = site.gateway("--stream-idle-timeout-secs", "1", workers=[site.fake(slow)])
    with gateway.raw() as conn:
        assert bytes(read_stream(conn).data) == FIRST * 8


# --- the client leaves ------------------------------------------------------------------------

LEAVE = ["close", "rst", "shutdown_write"]


def soon() -> float:
    return 0.2 * env.patience()


def check_upstream_closed(gateway: Gateway, worker, left_at: float) -> None:
    gone = eventually(lambda: worker.gone_at, 5, every=0.005, what="upstream closed")[0]
    assert gone - left_at < soon(), f"upstream closed after {gone - left_at:.3f} s"
    eventually(lambda: gateway.load(worker) == 0, 2, what="load back to 0")


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("stream", [False, True])
def test_client_leaves_before_the_head(site: Site, leave: str, stream: bool):
    worker = site.fake(lambda x: x.wait_gone(30))
    gateway = site.gateway(workers=[worker])
    conn = gateway.raw().send(CHAT_STREAM if stream else CHAT)
    eventually(lambda: worker.requests, 5)
    assert gateway.load(worker) == 1
    left_at = time.monotonic()
    getattr(conn, leave)()
    check_upstream_closed(gateway, worker, left_at)
    assert len(worker.requests) == 1, "a request of a client that left is not retried"
    conn.close()


@pytest.mark.parametrize("leave", LEAVE)
def test_client_leaves_in_the_middle_of_a_stream(site: Site, leave: str):
    def script(x):
        x.stream()
        x.chunk(FIRST)
        x.wait_gone(30)
    worker = site.fake(script)
    gateway = site.gateway(workers=[worker])
    conn = gateway.raw().send(CHAT_STREAM)
    conn.body_of(conn.read_head()).read_until(FIRST)
    assert gateway.load(worker) == 1
    left_at = time.monotonic()
    getattr(conn, leave)()
    check_upstream_closed(gateway, worker, left_at)
    conn.close()


def test_client_leaves_in_the_middle_of_a_held_answer(site: Site):
    def script(x):
        x.head(200, [("content-type", "application/json"), ("content-length", "100")])
        x.send(b"{")
        x.wait_gone(30)
    worker = site.fake(script)
    gateway = site.gateway(workers=[worker])
    conn = gateway.raw().send(CHAT)
    eventually(lambda: worker.requests, 5)
    time.sleep(0.1)
    left_at = time.monotonic()
    conn.close()
    check_upstream_closed(gateway, worker, left_at)


def test_client_that_leaves_while_the_relay_is_stuck(site: Site):
    """Back pressure must not hide the client's end."""
    def script(x):
        x.stream()
        try:
            while True:
                x.chunk(b"data: " + b"y" * 60_000 + b"\n\n")
        finally:
            x.note_gone()
    worker = site.fake(script)
    gateway = site.gateway(workers=[worker])
    conn = gateway.raw(recv_buffer=65536)
    conn.send(CHAT_STREAM)
    conn.read_head()
    time.sleep(1.0)
    left_at = time.monotonic()
    conn.rst()
    check_upstream_closed(gateway, worker, left_at)


def test_client_leaves_during_the_back_off(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway("--retry-initial-backoff-ms", "2000", "--retry-jitter-factor", "0",
                           workers=[worker])
    conn = gateway.raw().send(CHAT)
    eventually(lambda: len(worker.requests) == 1, 5)
    time.sleep(0.2)
    conn.close()
    eventually(lambda: gateway.load(worker) == 0, 1)
    time.sleep(2.5)
    assert len(worker.requests) == 1, "the retry of a client that left was cancelled"


def test_clients_that_leave_are_no_breaker_outcome(site: Site):
    worker = site.fake()
    gateway = site.gateway("--cb-failure-threshold", "2", workers=[worker])
    for _ in range(6):
        worker.queue.append(lambda x: x.wait_gone(30))
        conn = gateway.raw().send(CHAT)
        before = len(worker.gone_at)
        eventually(lambda: not worker.queue, 5)
        conn.close()
        eventually(lambda before=before: len(worker.gone_at) > before, 5)
    assert gateway.chat().status_code == 200
    assert gateway.metrics().value("sgl_router_cb_outcomes_total", outcome="failure") == 0


def test_pipelined_bytes_are_no_sign_of_leaving(gateway: Gateway, worker):
    def script(x):
        x.stream()
        x.chunk(FIRST)
        x.sleep(0.4)
        x.chunk(FIRST)
        x.end()
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(CHAT_STREAM)
        time.sleep(0.1)
        conn.send(HEALTH)
        assert conn.read_answer().body == FIRST * 2
        assert conn.read_answer().body == b"OK"


def test_leaving_clients_leak_nothing(site: Site):
    """300 clients leave at any moment: loads at 0, descriptors given back."""
    def script(x):
        x.stream()
        for _ in range(20):
            x.chunk(FIRST)
            x.sleep(0.005)
        x.end()
    worker = site.fake(script)
    gateway = site.gateway(workers=[worker])
    for number in range(300):
        conn = gateway.raw().send(CHAT_STREAM)
        if number % 3:
            conn.fill(0.001 * (number % 50))
        conn.rst() if number % 2 else conn.close()
    eventually(lambda: gateway.load(worker) == 0, 10)
    eventually(lambda: gateway.open_files() < 150, 10)
    assert gateway.metrics().value("sgl_router_running_requests") == 0
