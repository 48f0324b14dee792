"""Relay of answers (spec 01 section 6.7): at once, verbatim, with back pressure, bounded."""

from __future__ import annotations

import hashlib
import random
import threading
import time

import pytest

from lib import env, routes
from lib.gateway import Gateway, chat
from lib.rawhttp import Body, RawConn, chunked, post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually

HOLD = 65536
CHAT_STREAM = post("/v1/chat/completions", chat(stream=True))
CHAT = post("/v1/chat/completions", chat())
HEALTH = request_bytes("GET", "/health")


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    return shared_site.fake()


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway(workers=[worker])


class Gate:
    """Lets a script go on when the test has seen what it wanted."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wait(self) -> None:
        assert self.event.wait(60), "the test never opened the gate"

    def open(self) -> None:
        self.event.set()


def open_stream(gateway: Gateway, raw: bytes = CHAT_STREAM, **kw: object) -> tuple[RawConn, Body]:
    conn = gateway.raw(**kw)
    conn.send(raw)
    head = conn.read_head()
    assert head.status == 200
    return conn, conn.body_of(head)


# --- at once ----------------------------------------------------------------------------------

@pytest.mark.parametrize("path", sorted(routes.STREAMING))
def test_events_come_one_by_one(gateway: Gateway, worker, path: str):
    gates = [Gate() for _ in range(3)]

    def script(x):
        x.stream()
        for number, gate in enumerate(gates):
            x.event({"n": number})
            gate.wait()
        x.end()
    worker.queue.append(script)
    conn, body = open_stream(gateway, post(path, {"model": "m", "stream": True}))
    for number, gate in enumerate(gates):
        body.read_until(f'data: {{"n": {number}}}\n\n'.encode())
        assert body.data.count(b"data:") == number + 1
        gate.open()
    body.read_to_end()
    assert body.complete
    conn.close()


def test_head_comes_before_the_first_event(gateway: Gateway, worker):
    gate = Gate()

    def script(x):
        x.stream([("x-early", "yes")])
        gate.wait()
        x.event("late")
        x.end()
    worker.queue.append(script)
    conn = gateway.raw().send(CHAT_STREAM)
    head = conn.read_head()
    assert head.get("x-early") == "yes"
    gate.open()
    assert bytes(conn.body_of(head).read_to_end().data) == b"data: late\n\n"
    conn.close()


def test_first_event_is_not_delayed(gateway: Gateway, worker):
    """The gateway adds no timer of its own: 30 first events, each within milliseconds."""
    sent = []

    def script(x):
        x.stream()
        x.sleep(0.02)
        sent.append(time.monotonic())
        x.event("first")
        x.sleep(0.1)
        x.end()
    lags = []
    for _ in range(30):
        worker.queue.append(script)
        conn, body = open_stream(gateway)
        body.read_until(b"first")
        lags.append(time.monotonic() - sent[-1])
        body.read_to_end()
        conn.close()
    middle = sorted(lags)[15]
    assert middle < 0.01 * env.patience(), f"median {middle * 1000:.1f} ms"


def test_many_small_events_are_not_bunched_by_nagle(gateway: Gateway, worker):
    """A delayed-ACK stall would cost 40 ms each; 50 round trips in lock step show it."""
    step = threading.Semaphore(0)

    def script(x):
        x.stream()
        for number in range(50):
            x.event(str(number))
            assert step.acquire(timeout=60)
        x.end()
    worker.queue.append(script)
    conn, body = open_stream(gateway)
    watch = Stopwatch()
    for number in range(50):
        body.read_until(f"data: {number}\n\n".encode())
        step.release()
    assert watch() < 1.0 * env.patience()
    body.read_to_end()
    conn.close()


# --- verbatim ---------------------------------------------------------------------------------

STREAM = (
    b": a comment\n\n"
    b"event: message\ndata: {\"a\": 1}\nid: 7\n\n"
    b"data: line one\ndata: line two\n\n"
    b"data: crlf\r\n\r\n"
    b"data: mixed\r\n\n"
    b"retry: 1000\n\n\n\n"
    b"data:no space\n\n"
    + "data: {\"t\": \"é😀\u2028\"}\n\n".encode()
    + b"data: \xff\xfe not utf-8 \x00\n\n"
    b"data: " + b"x" * 5000 + b"\n\n"
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("seed", range(12))
def test_bytes_are_verbatim_however_they_are_cut(gateway: Gateway, worker, seed: int):
    rng = random.Random(seed)
    biggest = (1, 3, 20, 200, 6000)[seed % 5]

    def script(x):
        x.stream()
        at = 0
        while at < len(STREAM):
            step = rng.randint(1, biggest)
            wire = f"{len(STREAM[at:at + step]):X};x=y\r\n".encode()
            wire += STREAM[at:at + step] + b"\r\n"
            cut = rng.randint(1, len(wire))
            x.send(wire[:cut])
            if rng.random() < 0.02:
                x.sleep(0.002)
            x.send(wire[cut:])
            at += step
        x.end()
    worker.queue.append(script)
    answer = gateway.exchange(CHAT_STREAM)
    assert answer.body == STREAM


@pytest.mark.parametrize("framing", ["length", "close", "chunks"])
def test_stream_framings(gateway: Gateway, worker, framing: str):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"

    def script(x):
        if framing == "length":
            x.send(head + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM)
        elif framing == "close":
            x.send(head + b"\r\n" + STREAM)
            x.close()
        else:
            x.send(head + b"transfer-encoding: chunked\r\n\r\n"
                   + chunked(STREAM[:100], STREAM[100:]))
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(CHAT_STREAM + HEALTH)
        assert conn.read_answer().body == STREAM
        assert conn.read_answer().body == b"OK", "the connection goes on"


def test_stream_without_a_last_blank_line(gateway: Gateway, worker):
    """The unfinished tail goes out when the worker ends the answer properly."""
    def script(x):
        x.stream()
        x.chunk(b"data: whole\n\ndata: no blank line after me\n")
        x.end()
    worker.queue.append(script)
    answer = gateway.exchange(CHAT_STREAM)
    assert answer.body == b"data: whole\n\ndata: no blank line after me\n"


def test_empty_stream(gateway: Gateway, worker):
    def script(x):
        x.stream()
        x.end()
    worker.queue.append(script)
    answer = gateway.exchange(CHAT_STREAM)
    assert (answer.status, answer.body) == (200, b"")


def test_stream_null_means_whole(gateway: Gateway, worker):
    """`"stream": null` is false: the answer is held until it is complete."""
    gate = Gate()

    def script(x):
        x.head(200, [("content-type", "application/json"), ("content-length", "4")])
        x.send(b"{}")
        gate.wait()
        x.send(b"  ")
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=None)))
        assert conn.quiet(0.3)
        gate.open()
        assert conn.read_answer().body == b"{}  "


# --- what is held -----------------------------------------------------------------------------

def test_whole_events_go_out_the_tail_stays(gateway: Gateway, worker):
    gate = Gate()

    def script(x):
        x.stream()
        x.chunk(b"data: one\n\ndata: two\n\ndata: thr")
        gate.wait()
        x.chunk(b"ee\n\n")
        x.end()
    worker.queue.append(script)
    conn, body = open_stream(gateway)
    body.read_until(b"two\n\n")
    assert body.drain_for(0.3) == b"data: one\n\ndata: two\n\n"
    gate.open()
    body.read_to_end()
    assert bytes(body.data) == b"data: one\n\ndata: two\n\ndata: three\n\n"
    conn.close()


@pytest.mark.parametrize("border", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_event_border_split_over_chunks(gateway: Gateway, worker, border: bytes):
    gate = Gate()

    def script(x):
        x.stream()
        x.chunk(b"data: one" + border[:1])
        x.sleep(0.02)
        x.chunk(border[1:] + b"data: tw")
        gate.wait()
        x.chunk(b"o" + border)
        x.end()
    worker.queue.append(script)
    conn, body = open_stream(gateway)
    if border != b"\r\r":  # lone CR is legal SSE, but no worker sends it: it may be held
        body.read_until(b"data: one" + border)
        assert body.drain_for(0.2) == b"data: one" + border
    gate.open()
    body.read_to_end()
    assert bytes(body.data) == b"data: one" + border + b"data: two" + border
    conn.close()


def test_tail_past_64_kib_goes_out(gateway: Gateway, worker):
    gate = Gate()
    long = b"data: " + b"z" * (4 * HOLD)

    def script(x):
        x.stream()
        x.chunk(long)
        gate.wait()
        x.chunk(b"\n\n")
        x.end()
    worker.queue.append(script)
    conn, body = open_stream(gateway)
    body.read_until(len(long) - HOLD)
    gate.open()
    body.read_to_end()
    assert bytes(body.data) == long + b"\n\n"
    conn.close()


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("size", [1, 1000, HOLD - 1, HOLD])
def test_small_answer_is_complete_before_its_head(gateway: Gateway, worker, size, framing):
    gate = Gate()
    data = b"j" * size

    def script(x):
        if framing == "length":
            x.head(200, [("content-type", "application/json"),
                         ("content-length", str(size))])
            x.send(data[:-1])
            gate.wait()
            x.send(data[-1:])
        else:
            x.stream(content_type="application/json")
            if size > 1:
                x.chunk(data[:-1])
            gate.wait()
            x.chunk(data[-1:])
            x.end()
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(CHAT)
        assert conn.quiet(0.3), "bytes came before the answer was complete"
        gate.open()
        assert conn.read_answer().body == data


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_large_answer_is_relayed_as_it_comes(gateway: Gateway, worker, framing: str):
    gate = Gate()
    data = random.Random(1).randbytes(6 * HOLD)

    def script(x):
        if framing == "length":
            x.head(200, [("content-type", "application/json"),
                         ("content-length", str(len(data)))])
            x.send(data[:3 * HOLD])
            gate.wait()
            x.send(data[3 * HOLD:])
        else:
            x.stream(content_type="application/json")
            x.chunk(data[:3 * HOLD])
            gate.wait()
            x.chunk(data[3 * HOLD:])
            x.end()
    worker.queue.append(script)
    with gateway.raw() as conn:
        conn.send(CHAT)
        body = conn.body_of(conn.read_head())
        body.read_until(HOLD)
        gate.open()
        body.read_to_end()
        assert bytes(body.data) == data


# --- back pressure ----------------------------------------------------------------------------

MB = 1 << 20


class Flood:
    """A script that pushes total bytes as fast as they are taken, and counts them."""

    def __init__(self, total: int, event: bool) -> None:
        self.total = total
        self.event = event
        self.sent = 0
        self.digest = hashlib.sha256()

    def __call__(self, x) -> None:
        if self.event:
            x.stream()
        else:
            x.head(200, [("content-type", "application/json"),
                         ("content-length", str(self.total))])
        piece = b"data: " + b"y" * 16376 + b"\n\n"
        while self.sent < self.total:
            part = piece[:self.total - self.sent]
            if self.event:
                x.chunk(part)
            else:
                x.send(part)
            self.digest.update(part)
            self.sent += len(part)
        if self.event:
            x.end()


@pytest.mark.parametrize("event", [True, False], ids=["stream", "whole"])
def test_slow_reader_holds_the_worker_back(site: Site, event: bool):
    """What a slow client does not take stays in the sockets, not in the gateway."""
    flood = Flood(50 * MB, event)
    worker = site.fake(flood)
    gateway = site.gateway(workers=[worker])
    conn = gateway.raw(recv_buffer=65536)
    before = gateway.rss()
    conn.send(CHAT_STREAM if event else CHAT)
    body = conn.body_of(conn.read_head())
    time.sleep(1.0)
    stuck = eventually(lambda: still(flood), 10)
    assert stuck < 30 * MB, f"{stuck >> 20} MB left the worker while nobody read"
    grown = gateway.rss() - before
    if not env.sanitized():
        assert grown < 4 * MB, f"RSS grew by {grown >> 10} KiB"
    digest, length = hashlib.sha256(), 0
    while body.state == "open":
        body.pump()
        digest.update(body.data)
        length += len(body.data)
        body.data.clear()
    assert body.complete
    assert length == 50 * MB
    assert digest.digest() == flood.digest.digest()
    if not env.sanitized():
        assert gateway.rss() - before < 4 * MB
    conn.close()


def still(flood: Flood) -> int:
    seen = flood.sent
    time.sleep(0.3)
    return seen if flood.sent == seen else 0


def test_slow_reader_does_not_hold_others(site: Site):
    flood = Flood(50 * MB, True)
    worker = site.fake()
    worker.routes["/generate"] = flood
    gateway = site.gateway("--runtime-worker-threads", "1", workers=[worker])
    conn = gateway.raw(recv_buffer=65536)
    conn.send(post("/generate", {"text": "x", "stream": True}))
    conn.read_head()
    time.sleep(0.5)
    watch = Stopwatch()
    for _ in range(50):
        assert gateway.chat().status_code == 200
    assert watch() < 3.0 * env.patience()
    conn.close()


def test_many_streams_at_once(gateway: Gateway, worker):
    """200 streams of 20 events, each complete and its own."""
    def script(x):
        number = x.request.json()["n"]
        x.stream()
        for step in range(20):
            x.event({"n": number, "step": step})
        x.event("[DONE]")
        x.end()
    worker.routes["/v1/completions"] = script
    conns = []
    for number in range(200):
        conn = gateway.raw(timeout=30)
        conn.send(post("/v1/completions", {"n": number, "stream": True}))
        conns.append(conn)
    for number, conn in enumerate(conns):
        answer = conn.read_answer()
        expected = b"".join(b'data: {"n": %d, "step": %d}\n\n' % (number, step)
                            for step in range(20)) + b"data: [DONE]\n\n"
        assert answer.body == expected
        conn.close()
    del worker.routes["/v1/completions"]
    eventually(lambda: gateway.load(worker) == 0, 5)


def test_large_request_bodies_at_once(gateway: Gateway, worker):
    bodies = [b'{"model":"m","pad":"%d' % n + b"b" * (2 * MB) + b'"}' for n in range(8)]
    worker.clear()
    threads = [threading.Thread(target=gateway.exchange, kwargs={
        "raw": post("/v1/chat/completions", body), "timeout": 60.0}) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.body for r in worker.requests) == sorted(bodies)
    worker.clear()
