"""The helpers against themselves: what they report must be what happened on the wire."""

from __future__ import annotations

import random
import socket

import pytest

from lib.fake_worker import FakeWorker, closing, resetting, sending, streaming
from lib.metrics import Metrics
from lib.ports import Port, row_of_ports
from lib.rawhttp import RawConn, chunked, post, request_bytes
from lib.site import Site
from lib.wait import eventually


def test_reserved_port_refuses_and_can_be_served():
    port = Port()
    with pytest.raises(ConnectionRefusedError):
        RawConn(int(port))
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", int(port)))
    worker = FakeWorker(port=port)
    with RawConn(int(port)) as conn:
        conn.send(request_bytes("GET", "/health"))
        assert conn.read_answer().body == b"OK"
    assert worker.close() == []
    numbers = [int(p) for p in row_of_ports(4)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_worker_records_raw_bytes(site: Site):
    worker = site.fake()
    with RawConn(int(worker.port)) as conn:
        raw = post("/x?y=1", b'{ "a" : 1 }', [("X-One", "1"), ("X-One", "2")])
        conn.send(raw)
        assert conn.read_answer().json()["worker"] == int(worker.port)
        conn.send(b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                  + chunked(b"he", b"llo", extension=";a=b", trailers="X-T: 1\r\n"))
        conn.read_answer()
    first, second = worker.requests
    assert first.raw_head + first.raw_body == raw
    assert first.all("x-one") == ["1", "2"]
    assert (first.connection, first.number_on_connection) == (1, 1)
    assert (second.connection, second.number_on_connection) == (1, 2)
    assert second.body == b"hello"
    assert second.raw_body == chunked(b"he", b"llo", extension=";a=b", trailers="X-T: 1\r\n")


@pytest.mark.parametrize("seed", range(5))
def test_chunked_answer_in_any_pieces(site: Site, seed: int):
    rng = random.Random(seed)
    parts = [rng.randbytes(rng.randint(1, 3000)) for _ in range(20)]
    wire = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunked(*parts, trailers="X-End: yes\r\n"))

    def script(x):
        at = 0
        while at < len(wire):
            step = rng.randint(1, 700)
            x.send(wire[at:at + step])
            at += step
        x.keep = True

    worker = site.fake(script)
    with RawConn(int(worker.port)) as conn:
        for _ in range(2):
            conn.send(request_bytes("GET", "/x"))
            answer = conn.read_answer()
            assert answer.body == b"".join(parts)
            assert answer.trailers == [("X-End", "yes")]
    assert worker.accepted == 1


def body_state(worker: FakeWorker) -> tuple[str, bytes]:
    with RawConn(int(worker.port)) as conn:
        conn.send(request_bytes("GET", "/x"))
        body = conn.body_of(conn.read_head())
        body.read_to_end()
        return body.state, bytes(body.data)


def test_how_bodies_end(site: Site):
    head = b"HTTP/1.1 200 OK\r\n"
    cases = {
        head + b"Content-Length: 5\r\n\r\nabc": ("fin", b"abc"),
        head + b"Content-Length: 3\r\n\r\nabc": ("complete", b"abc"),
        head + b"\r\nabc": ("complete", b"abc"),
        head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n": ("fin", b"abc"),
        head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab": ("fin", b"ab"),
        head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n": ("complete", b"abc"),
        head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX": ("fin", b"abc"),
        head + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc":
            ("bad framing: chunk size b'0x3'", b""),
    }
    for wire, expected in cases.items():
        assert body_state(site.fake(sending(wire))) == expected, wire


def test_closing_and_resetting_are_told_apart(site: Site):
    for script, how in ((closing, "fin"), (resetting, "rst")):
        with RawConn(int(site.fake(script).port)) as conn:
            conn.send(request_bytes("GET", "/x"))
            assert conn.wait_end() == how


def test_worker_sees_the_client_go(site: Site):
    seen = []
    worker = site.fake(lambda x: seen.append(x.wait_gone(5)))
    for leave in ("close", "rst"):
        conn = RawConn(int(worker.port))
        conn.send(request_bytes("GET", "/x"))
        assert conn.quiet(0.1)
        getattr(conn, leave)()
    assert eventually(lambda: len(seen) == 2, 5) and all(seen)


def test_stopped_worker_refuses_and_comes_back(site: Site):
    worker = site.fake(streaming({"n": 1}))
    with RawConn(int(worker.port)) as conn:
        conn.send(request_bytes("GET", "/x"))
        assert conn.read_answer().body == b'data: {"n": 1}\n\ndata: [DONE]\n\n'
        worker.die()
        assert conn.wait_end()
    with pytest.raises(ConnectionRefusedError):
        RawConn(int(worker.port))
    worker.start()
    RawConn(int(worker.port)).close()


def test_metrics_reader():
    text = ("# HELP a_total things\n# TYPE a_total counter\na_total{w=\"x\"} 2\n"
            "a_total{w=\"y\"} 3\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\n"
            "h_bucket{le=\"+Inf\"} 2\nh_sum 1.5\nh_count 2\n")
    metrics = Metrics(text)
    assert metrics.value("a_total") == 5
    assert metrics.value("a_total", w="y") == 3
    assert metrics.names() == {"a_total", "h"}
    assert metrics.type_of("h") == "histogram"
    assert metrics.bounds("h") == [0.5, float("inf")]
    assert metrics.value("h_count") == 2
