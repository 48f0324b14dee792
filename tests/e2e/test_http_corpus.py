"""Framing: the shared corpus of HTTP/1.1 requests, and cases of our own.

What two parsers could read differently is answered 400 and the connection closed; nothing of it
reaches a worker, and nothing after the fault is served.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass

import pytest

from lib import env
from lib.gateway import Gateway
from lib.rawhttp import Answer, RawConn, chunked, request_bytes
from lib.site import Site

PARSE_ERRORS = {400, 408, 413, 414, 417, 431, 505}
CLOSED_WITHIN = 3.0


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes
    expect: str
    statuses: tuple[int, ...] = ()
    requests: int = 1

    @property
    def truncated(self) -> bool:
        return "truncated" in self.name


def corpus() -> list[Case]:
    path = env.data_file("http", "requests.jsonl")
    if path is None:
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Case(r["name"], base64.b64decode(r["raw_base64"]), r["expect"],
                 tuple(r.get("statuses", ())), r.get("requests", 1)) for r in rows]


CORPUS = corpus()
# Every short faulty request, and some of the others, whose check has to wait for silence.
SHORT = [case for case in CORPUS if len(case.raw) < 200]
BYTE_BY_BYTE = [c for c in SHORT if c.expect == "400"] + [c for c in SHORT
                                                          if c.expect != "400"][::4]


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    return shared_site.fake()


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway(workers=[worker])




def read_answers(conn: RawConn, limit: int) -> list[Answer]:
    """Up to limit answers; stops at the connection's end or when nothing more comes."""
    answers: list[Answer] = []
    while len(answers) < limit and (conn.buffer or conn.fill(1.0 if answers else 5.0)):
        answers.append(conn.read_answer())
    return answers


def is_json_fault(answer: Answer) -> bool:
    """A well-framed request whose body is no JSON: for the corpus that is "accepted"."""
    return answer.status == 400 and b"json_parse_error" in answer.body


def check_refused(conn: RawConn, case: Case) -> None:
    allowed = case.statuses or (400,)
    answers = read_answers(conn, 2)
    assert answers, "no answer"
    first = answers[0]
    assert first.status in allowed, first
    tolerated = set(allowed) - PARSE_ERRORS - {501}
    if tolerated and (first.status in tolerated or is_json_fault(first)):
        return
    assert len(answers) == 1, f"served after the fault: {answers[1]}"
    assert conn.wait_end(CLOSED_WITHIN), "the connection stayed open"
    if first.status == 400:
        assert first.error()["code"] == "bad_request"
    assert first.error()["param"] is None


def check_accepted(conn: RawConn, case: Case) -> None:
    answers = read_answers(conn, case.requests + 1)
    assert len(answers) == case.requests, answers
    for answer in answers:
        if case.statuses:
            assert answer.status in case.statuses, answer
        else:
            assert answer.status not in PARSE_ERRORS, answer


def check_closed(conn: RawConn, case: Case) -> None:
    answers = read_answers(conn, 2)
    if case.truncated:
        assert len(answers) <= 1
        assert all(a.status in (case.statuses or (400,)) for a in answers), answers
    else:
        assert len(answers) == 1, answers
        assert answers[0].status not in PARSE_ERRORS
    assert conn.wait_end(CLOSED_WITHIN), "the connection stayed open"


CHECKS = {"400": check_refused, "accept": check_accepted, "close": check_closed}


def run_case(gateway: Gateway, worker, case: Case) -> None:
    worker.clear()
    with gateway.raw() as conn:
        conn.send(case.raw)
        if case.truncated:
            conn.shutdown_write()
        CHECKS[case.expect](conn, case)
    assert worker.requests == [], "something reached a worker"
    assert gateway.get("/liveness").text == "OK"


@pytest.mark.skipif(not CORPUS, reason=f"no http/requests.jsonl under {env.TESTDATA}/data")
@pytest.mark.parametrize("case", CORPUS, ids=lambda c: c.name)
def test_corpus(gateway: Gateway, worker, case: Case):
    run_case(gateway, worker, case)


@pytest.mark.skipif(not CORPUS, reason=f"no http/requests.jsonl under {env.TESTDATA}/data")
@pytest.mark.parametrize("case", BYTE_BY_BYTE, ids=lambda c: c.name)
def test_corpus_byte_by_byte(gateway: Gateway, worker, case: Case):
    """How the bytes are cut into packets must not change the verdict."""
    worker.clear()
    with gateway.raw() as conn:
        try:
            head_end = case.raw.find(b"\r\n\r\n") + 4
            for at in range(len(case.raw)):
                if at == head_end:
                    time.sleep(0.03)  # the head is surely read before its body comes
                conn.send(case.raw[at:at + 1])
        except OSError:
            pass  # refused before the last byte: the answer is read below
        if case.truncated:
            conn.shutdown_write()
        CHECKS[case.expect](conn, case)
    assert worker.requests == []


# --- cases of our own -------------------------------------------------------------------------

BODY = b'{"model":"m","messages":[]}'
SMUGGLED = b"POST /v1/completions HTTP/1.1\r\nHost: evil\r\nContent-Length: 2\r\n\r\n{}"


def chat_with(*lines: str, body: bytes = BODY, length: bool = True) -> bytes:
    """POST chat with these header lines; body and its Content-Length after them."""
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: gateway.test", *lines]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


REFUSED = {
    "te and cl": chat_with("Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "cl then te": chat_with("Content-Length: 5", "Transfer-Encoding: chunked", length=False,
                            body=b"0\r\n\r\n" + SMUGGLED),
    "te twice": chat_with("Transfer-Encoding: chunked", "Transfer-Encoding: chunked",
                          length=False, body=b"0\r\n\r\n" + SMUGGLED),
    "te gzip, chunked": chat_with("Transfer-Encoding: gzip, chunked", length=False,
                                  body=b"0\r\n\r\n"),
    "te chunked, gzip": chat_with("Transfer-Encoding: chunked, gzip", length=False,
                                  body=b"0\r\n\r\n"),
    "te on 1.0": b"POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "cl negative": chat_with("Content-Length: -1", length=False),
    "cl hex": chat_with("Content-Length: 0x10", length=False),
    "cl huge": chat_with("Content-Length: 99999999999999999999999", length=False),
    "cl 2^64": chat_with("Content-Length: 18446744073709551616", length=False),
    "cl differ": chat_with("Content-Length: 3", "Content-Length: 4", length=False),
    "chunk size huge": chat_with("Transfer-Encoding: chunked", length=False,
                                 body=b"fffffffffffffffff\r\n{}"),
    "chunk size 0x": chat_with("Transfer-Encoding: chunked", length=False,
                               body=b"0x2\r\n{}\r\n0\r\n\r\n"),
    "chunk without crlf": chat_with("Transfer-Encoding: chunked", length=False,
                                    body=b"2\r\n{}0\r\n\r\n"),
    "chunk lf": chat_with("Transfer-Encoding: chunked", length=False,
                          body=b"2\n{}\n0\n\n"),
    "nul in name": chat_with("X\x00Y: 1"),
    "space in name": chat_with("X Y: 1"),
    "space before colon": chat_with("X-Y : 1"),
    "fold": chat_with("X-Y: 1\r\n 2"),
    "bare cr": chat_with("X-Y: 1\r2"),
    "bare lf": chat_with("X-Y: 1\nZ: 2"),
    "nul in value": chat_with("X-Y: a\x00b"),
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "two hosts": chat_with("Host: b"),
    "lower case version": b"GET /health http/1.1\r\nHost: x\r\n\r\n",
    "version 1.2.3": b"GET /health HTTP/1.2.3\r\nHost: x\r\n\r\n",
    "version 3": b"GET /health HTTP/3.0\r\nHost: x\r\n\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "connect": b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test\r\n\r\n",
    "words": b"hello there, gateway\r\n\r\n",
    "binary": bytes(range(256)),
}
REFUSED_STATUSES = {
    "te gzip, chunked": (400, 501), "te chunked, gzip": (400, 501), "te twice": (400, 501),
    "version 3": (400, 505), "h2 preface": (400, 505), "version 1.2.3": (400, 505),
    "lower case version": (400, 505), "connect": (400, 404, 405, 501),
    "cl huge": (400, 413), "cl 2^64": (400, 413), "chunk size huge": (400, 413),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(gateway: Gateway, worker, name: str):
    run_case(gateway, worker, Case(name, REFUSED[name], "400",
                                   REFUSED_STATUSES.get(name, ())))


ACCEPTED = {
    "te case": chat_with("tRANSFER-eNCODING:  Chunked ", length=False, body=chunked(BODY)),
    "chunk extension": chat_with("Transfer-Encoding: chunked", length=False,
                                 body=chunked(BODY, extension=";a=b;c")),
    "trailers": chat_with("Transfer-Encoding: chunked", length=False,
                          body=chunked(BODY, trailers="X-A: 1\r\nX-B: 2\r\n")),
    "leading crlf": b"\r\n" + chat_with(),
    "tab around value": chat_with("X-Y:\t1\t"),
    "no space after colon": chat_with("X-Y:1"),
    "empty value": chat_with("X-Y:"),
    "obs-text value": chat_with("X-Y: caf\xe9"),
    "cl with zeros": chat_with(f"Content-Length: 000{len(BODY)}", length=False),
    "absolute form": chat_with().replace(b"POST /", b"POST http://gateway.test/", 1),
    "http/1.0": chat_with().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "percent in query": chat_with().replace(b"completions ", b"completions?a=%zz&b ", 1),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(gateway: Gateway, worker, name: str):
    worker.clear()
    answer = gateway.exchange(ACCEPTED[name])
    assert answer.status == 200, answer
    assert worker.last.body == BODY


def test_fault_after_good_requests(gateway: Gateway, worker):
    """Complete requests before the fault are answered, then 400, then the end."""
    worker.clear()
    with gateway.raw() as conn:
        conn.send(chat_with() + chat_with() + b"BAD REQUEST LINE\r\n\r\n" + SMUGGLED)
        assert conn.read_answer().status == 200
        assert conn.read_answer().status == 200
        assert conn.read_answer().status == 400
        assert conn.wait_end(CLOSED_WITHIN)
        assert not conn.buffer
    assert len(worker.requests) == 2


def test_fault_in_a_chunked_body_stops_the_request(gateway: Gateway, worker):
    worker.clear()
    with gateway.raw() as conn:
        conn.send(chat_with("Transfer-Encoding: chunked", length=False,
                            body=b"b\r\n" + BODY[:11] + b"\r\n"))
        assert conn.quiet(0.2)
        conn.send(b"zz\r\n" + BODY[11:] + b"\r\n0\r\n\r\n")
        assert conn.read_answer().status == 400
        assert conn.wait_end(CLOSED_WITHIN)
    assert worker.requests == []


def test_body_that_ends_early_is_not_sent_on(gateway: Gateway, worker):
    worker.clear()
    for leave in ("close", "rst", "shutdown_write"):
        conn = gateway.raw()
        conn.send(chat_with("Content-Length: 100", length=False))
        getattr(conn, leave)()
        if leave == "shutdown_write":
            assert conn.wait_end(CLOSED_WITHIN)
            conn.close()
    assert gateway.get("/health").status_code == 200
    assert worker.requests == []


def test_error_answer_has_the_object_and_closes(gateway: Gateway):
    answer = gateway.exchange(b"GET /health HTTP/1.1\r\n\r\n", "GET")
    assert answer.status == 400
    assert answer.error() == {"type": "Bad Request", "code": "bad_request",
                              "message": answer.error()["message"], "param": None}
    assert answer.error()["message"]
    assert answer.head.get("x-smg-error-code") == "bad_request"
    assert answer.head.get("connection", "").lower() == "close"


def test_next_connection_is_unharmed(gateway: Gateway, worker):
    """A fault on one connection does nothing to another that is in the middle of a request."""
    raw = chat_with()
    with gateway.raw() as good, gateway.raw() as bad:
        good.send(raw[:40])
        bad.send(REFUSED["binary"])
        assert bad.wait_end(CLOSED_WITHIN)
        good.send(raw[40:])
        assert good.read_answer().status == 200
        good.send(request_bytes("GET", "/liveness"))
        assert good.read_answer().status == 200
