"""Spec 01 sections 5.1 to 5.4 and 6.2: what reaches a worker and what comes back."""

from __future__ import annotations

import json
import re

import pytest

from lib import routes
from lib.fake_worker import replying, streaming
from lib.gateway import Gateway, chat
from lib.rawhttp import chunked, post, request_bytes
from lib.routes import Row
from lib.site import Site

# All that a worker may see when the client sent nothing of the allow-list.
GATEWAY_SETS = {"host", "content-type", "content-length", "accept-encoding", "connection",
                "x-request-id"}


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    return shared_site.fake()


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway("--policy", "round_robin", workers=[worker])


# --- the body (6.2) ---------------------------------------------------------------------------

ODD_BODIES = {
    "spaces": b' {\r\n\t"model" : "m" ,"messages":[ ] }\n\n',
    "order": b'{"z":1,"model":"m","a":2,"messages":[]}',
    "escapes": rb'{"model":"\u006d","messages":[],"x":"\u00e9\/\ud83d\ude00"}',
    "utf8": '{"model":"é😀","messages":[]}'.encode(),
    "numbers": b'{"model":"m","messages":[],"big":123456789012345678901234567890,'
               b'"f":1.10,"e":1E+2,"z":-0}',
    "unknown": b'{"model":"m","messages":[],"extra_body":{"deep":[[[]]]},"x-1":null}',
    "nulls": b'{"model":"m","messages":[],"temperature":null,"regex":null,"stream":null,'
             b'"ignore_eos":false,"separate_reasoning":true,"skip_special_tokens":false}',
    "twice": b'{"model":"m","messages":[],"n":1,"n":2}',
    "no model": b'{"messages":[]}',
    "odd model": b'{"model":17,"messages":"text"}',
    "empty": b"{}",
    "unknown model": b'{"model":"nobody-serves-this","messages":[]}',
    "field rules": b'{"model":"m","messages":[],"n":99,"temperature":-5}',
    "64k": b'{"model":"m","messages":[],"pad":"' + b"p" * 65536 + b'"}',
    "1M": b'{"model":"m","messages":[{"role":"user","content":"' + b"x " * 600_000 + b'"}]}',
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_body_goes_on_verbatim(gateway: Gateway, worker, name: str):
    body = ODD_BODIES[name]
    worker.clear()
    assert gateway.post("/v1/chat/completions", body).status_code == 200
    assert worker.last.body == body
    assert worker.last.get("content-length") == str(len(body))
    assert worker.last.get("transfer-encoding") is None


@pytest.mark.parametrize("row", routes.INFERENCE, ids=lambda r: r.path)
def test_every_endpoint_sends_the_client_bytes(gateway: Gateway, worker, row: Row):
    body = json.dumps({**row.body, "unknown_key": {"a": [1, None]}}, indent=3).encode()
    worker.clear()
    gateway.post(row.path, body)
    assert worker.last.body == body


@pytest.mark.parametrize("pieces", [1, 7, 400])
def test_chunked_body_arrives_as_one(gateway: Gateway, worker, pieces: int):
    body = ODD_BODIES["escapes"] * 1
    body = body[:-1] + b',"pad":"' + b"q" * 30_000 + b'"}'
    step = len(body) // pieces + 1
    parts = [body[i:i + step] for i in range(0, len(body), step)]
    worker.clear()
    raw = request_bytes("POST", "/v1/chat/completions", [
        ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"),
        ("Trailer", "X-Sum")], chunked(*parts, extension=";k=v", trailers="X-Sum: 1\r\n"))
    assert gateway.exchange(raw).status == 200
    assert worker.last.body == body
    assert worker.last.get("content-length") == str(len(body))
    assert not {"transfer-encoding", "trailer", "x-sum"} & worker.last.names()


# --- request headers (5.1) --------------------------------------------------------------------

DROPPED = [
    ("Accept", "text/x-mark"), ("Accept-Encoding", "gzip, br"), ("Accept-Language", "de-mark"),
    ("User-Agent", "mark/1.0"), ("Cookie", "mark=1"), ("X-Api-Key", "mark-key"),
    ("Referer", "http://mark.test/"), ("Origin", "http://mark.test"), ("X-Custom", "mark"),
    ("X-Forwarded-For", "10.1.2.3"), ("Forwarded", "for=mark"), ("TE", "trailers"),
    ("Keep-Alive", "timeout=77"), ("Proxy-Authorization", "Basic mark"),
    ("X-SMG-Target-Worker", ""), ("X-SMG-Priority", "bulk"), ("OpenAI-Organization", "mark"),
    ("anthropic-version", "mark"), ("X-Request-Ids", "mark"), ("Upgrade", "mark"),
]
FORWARDED = [
    ("X-Request-Id", "id-1"), ("X-Correlation-Id", "id-2"), ("X-Trace-Id", "id-3"),
    ("Request-Id", "id-4"), ("X-Request-Id-Parent", "id-5"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "a=1,b=2"), ("X-SMG-Routing-Key", "route 7"),
    ("Authorization", "Bearer client-own-key"),
]


def test_plain_request_carries_only_what_the_gateway_sets(gateway: Gateway, worker):
    worker.clear()
    body = json.dumps(chat()).encode()
    assert gateway.exchange(post("/v1/chat/completions", body)).status == 200
    seen = worker.last
    assert seen.names() <= GATEWAY_SETS, seen.names() - GATEWAY_SETS
    assert seen.get("host") == f"127.0.0.1:{worker.port}"
    assert seen.get("content-type") == "application/json"
    assert seen.get("content-length") == str(len(body))
    assert seen.get("accept-encoding") == "identity"
    assert seen.raw_head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


def test_allow_list(gateway: Gateway, worker):
    worker.clear()
    raw = post("/v1/chat/completions", chat(), [
        ("Content-Type", "application/json; charset=utf-8"), *DROPPED, *FORWARDED])
    assert gateway.exchange(raw).status == 200
    seen = worker.last
    for name, value in FORWARDED:
        assert seen.all(name) == [value], name
    allowed = GATEWAY_SETS | {name.lower() for name, _ in FORWARDED}
    assert seen.names() <= allowed, seen.names() - allowed
    assert b"mark" not in seen.raw_head
    assert seen.get("content-type") == "application/json"
    assert seen.get("accept-encoding") == "identity"


@pytest.mark.parametrize("name", [name for name, _ in FORWARDED])
def test_header_names_have_no_case(gateway: Gateway, worker, name: str):
    worker.clear()
    raw = post("/v1/chat/completions", chat(), [(name.upper(), "v-1")])
    assert gateway.exchange(raw).status == 200
    assert worker.last.all(name) == ["v-1"]


def test_connection_cannot_name_headers_away(gateway: Gateway, worker):
    """A client may not use Connection to cut what the gateway must send."""
    worker.clear()
    raw = post("/v1/chat/completions", chat(), [
        ("Connection", "content-length, content-type, host, x-custom"), ("X-Custom", "1")])
    assert gateway.exchange(raw).status == 200
    assert {"host", "content-length", "content-type"} <= worker.last.names()
    assert "x-custom" not in worker.last.names()


def test_value_that_is_no_text_is_skipped(gateway: Gateway, worker):
    worker.clear()
    raw = post("/v1/chat/completions", chat(), [("X-Correlation-Id", "caf\xe9"),
                                                ("X-Trace-Id", "fine")])
    answer = gateway.exchange(raw)
    assert answer.status == 200
    assert "x-correlation-id" not in worker.last.names()
    assert worker.last.get("x-trace-id") == "fine"
    assert answer.head.get("x-request-id") == "fine"


def test_worker_base_with_a_path_and_slash(site: Site):
    worker = site.fake()
    worker.routes["/base/health"] = worker.routes["/health"]
    gateway = site.gateway("--worker-urls", f"{worker.url}/", wait="live")
    gateway.wait_ready(1)
    gateway.chat()
    assert worker.last.target == "/v1/chat/completions"


# --- Authorization (D3, 5.2) ------------------------------------------------------------------

GATEWAY_KEY, WORKER_KEY = "gateway-secret-1", "worker-secret-2"
# gateway key, worker key, how the worker came, what the client sends, what the worker sees
AUTHORIZATION = [
    (None, None, "cli", None, None),
    (None, None, "cli", "Bearer own", "Bearer own"),
    (None, None, "cli", "Basic dXNlcjpwdw==", "Basic dXNlcjpwdw=="),
    (None, WORKER_KEY, "rest", None, f"Bearer {WORKER_KEY}"),
    (None, WORKER_KEY, "rest", "Bearer own", f"Bearer {WORKER_KEY}"),
    (GATEWAY_KEY, None, "cli", f"Bearer {GATEWAY_KEY}", f"Bearer {GATEWAY_KEY}"),
    (GATEWAY_KEY, None, "cli", f"bearer {GATEWAY_KEY}", f"Bearer {GATEWAY_KEY}"),
    (GATEWAY_KEY, None, "rest", f"Bearer {GATEWAY_KEY}", None),
    (GATEWAY_KEY, None, "rest", f"bEARER {GATEWAY_KEY}", None),
    (GATEWAY_KEY, WORKER_KEY, "rest", f"Bearer {GATEWAY_KEY}", f"Bearer {WORKER_KEY}"),
]


@pytest.mark.parametrize(("gateway_key", "worker_key", "way", "client", "expected"),
                         AUTHORIZATION)
def test_authorization_on_the_data_plane(site: Site, gateway_key, worker_key, way, client,
                                         expected):
    worker = site.fake()
    flags = ["--api-key", gateway_key] if gateway_key else []
    gateway = site.gateway(*flags, workers=[worker] if way == "cli" else [])
    if way == "rest":
        gateway.add(worker, **({"api_key": worker_key} if worker_key else {}))
    worker.clear()
    headers = {"authorization": client} if client else {}
    answer = gateway.client.post("/v1/chat/completions", json=chat(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert worker.last.all("authorization") == ([expected] if expected else [])


@pytest.mark.parametrize("path", ["/get_model_info", "/get_server_info", "/health_generate"])
def test_authorization_on_public_proxies(site: Site, path: str):
    worker = site.fake()
    gateway = site.gateway("--api-key", GATEWAY_KEY)
    gateway.add(worker)
    for sent, expected in [(None, []), (f"Bearer {GATEWAY_KEY}", []),
                           (f"bearer {GATEWAY_KEY}", []), ("Bearer other", ["Bearer other"])]:
        worker.clear()
        answer = gateway.client.get(path, headers={"authorization": sent} if sent else {})
        assert answer.status_code == 200
        asked = [request for request in worker.log if request.path != "/health"]
        assert asked[-1].all("authorization") == expected, sent


def test_gateway_calls_carry_the_worker_key(site: Site):
    worker = site.fake()
    for path in ("/flush_cache", "/start_profile", "/stop_profile"):
        worker.routes[path] = replying(200, b"ok", content_type="text/plain")
    worker.routes["/metrics"] = replying(200, b"# TYPE x gauge\nx 1\n",
                                         content_type="text/plain")
    worker.routes["/v1/loads"] = replying(200, {"loads": []})
    gateway = site.gateway("--api-key", GATEWAY_KEY, "--health-check-interval-secs", "1")
    gateway.add(worker, api_key=WORKER_KEY)
    for path in ("/flush_cache", "/start_profile", "/stop_profile"):
        assert gateway.post(path).status_code == 200
    gateway.get("/get_loads")
    gateway.get("/engine_metrics")
    paths = {request.path for request in worker.log}
    assert paths >= {"/health", "/flush_cache", "/start_profile", "/stop_profile", "/v1/loads",
                     "/metrics"}
    for request in worker.log:
        assert request.all("authorization") == [f"Bearer {WORKER_KEY}"], request.path


# --- response headers (5.3) -------------------------------------------------------------------

HOP_BY_HOP = [("Keep-Alive", "timeout=5"), ("Proxy-Authenticate", "Basic"),
              ("Proxy-Authorization", "x"), ("TE", "trailers"), ("Trailers", "x"),
              ("Upgrade", "h2c"), ("Content-Encoding", "identity"), ("Host", "worker.test")]
KEPT = [("Server", "uvicorn"), ("Date", "Tue, 04 Nov 2025 10:05:37 GMT"),
        ("X-Custom", "kept, as is"), ("X-RateLimit-Remaining", "7"), ("ETag", '"abc"'),
        ("Cache-Control", "no-store"), ("Retry-After", "3")]
COOKIES = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("set-cookie", "a=3")]


@pytest.mark.parametrize("streamed", [False, True])
def test_response_headers(gateway: Gateway, worker, streamed: bool):
    extra = [*HOP_BY_HOP, *KEPT, *COOKIES, ("X-Request-Id", "the-worker-says")]
    if streamed:
        def script(x):
            x.stream(extra)
            x.event("[DONE]")
            x.end()
        worker.queue.append(script)
    else:
        worker.queue.append(replying(200, b'{"a":1}', extra))
    answer = gateway.exchange(post("/v1/chat/completions", chat(stream=streamed),
                                   [("X-Request-Id", "mine")]))
    names = answer.head.names()
    for name, _ in HOP_BY_HOP:
        assert name.lower() not in names, name
    for name, value in KEPT:
        assert answer.head.all(name) == [value], name
    assert answer.head.all("set-cookie") == [value for _, value in COOKIES]
    assert answer.head.all("x-request-id") == ["mine"]
    assert "x-smg-error-code" not in names
    assert answer.body == (b"data: [DONE]\n\n" if streamed else b'{"a":1}')


def test_last_of_repeated_headers_is_there(gateway: Gateway, worker):
    worker.queue.append(replying(200, b"{}", [("X-Twice", "1"), ("X-Twice", "2")]))
    answer = gateway.exchange(post("/v1/chat/completions", chat()))
    assert answer.head.get("x-twice") == "2"


ERRORS = [(400, b'{"error":{"message":"bad","code":400}}', "application/json"),
          (401, b"no", "text/plain"), (403, b"", None), (404, b"{}", "application/json"),
          (418, b"teapot \xff\x00", "application/x-odd"), (422, b"[1]", "application/json"),
          (501, b"x", "text/plain; charset=latin-1"),
          (500, b"oops", "text/plain"), (503, b'{"busy":true}', "application/json")]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("status", "body", "media"), ERRORS)
def test_worker_error_is_relayed_unchanged(site: Site, status, body, media, streamed):
    worker = site.fake(replying(status, body, [("X-Why", "because")], media))
    gateway = site.gateway("--disable-retries", workers=[worker])
    answer = gateway.exchange(post("/v1/chat/completions", chat(stream=streamed)))
    assert answer.status == status
    assert answer.body == body
    assert answer.head.get("content-type") == media
    assert answer.head.get("x-why") == "because"
    assert answer.head.get("x-smg-error-code") is None


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body(gateway: Gateway, worker, status: int):
    worker.queue.append(replying(status, b"", content_type=None))
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat()))
        assert conn.read_answer("POST").status == status
        conn.send(request_bytes("GET", "/liveness"))
        assert conn.read_answer().body == b"OK"


@pytest.mark.parametrize("given", ["text/event-stream; charset=utf-8", "application/json",
                                   "text/plain"])
def test_media_type_of_a_stream_is_forced(gateway: Gateway, worker, given: str):
    def script(x):
        x.stream(content_type=given)
        x.event({"n": 1})
        x.end()
    worker.queue.append(script)
    answer = gateway.exchange(post("/v1/chat/completions", chat(stream=True)))
    assert answer.head.all("content-type")[0].startswith("text/event-stream")
    assert len(answer.head.all("content-type")) == 1
    assert answer.body == b'data: {"n": 1}\n\n'


# --- request ids (5.4) ------------------------------------------------------------------------

PREFIXES = {
    "/v1/chat/completions": "chatcmpl-", "/v1/completions": "cmpl-", "/generate": "gnt-",
    "/v1/responses": "resp-", "/v1/messages": "msg_", "/v1/embeddings": "req-",
    "/v1/rerank": "req-", "/rerank": "req-", "/v1/classify": "req-",
}


@pytest.mark.parametrize("path", PREFIXES)
def test_generated_id(gateway: Gateway, worker, path: str):
    seen = set()
    for _ in range(3):
        worker.clear()
        got = gateway.post(path, {"model": "m", "query": "q"}).headers["x-request-id"]
        assert re.fullmatch(re.escape(PREFIXES[path]) + "[A-Za-z0-9]{24}", got), got
        assert worker.last.get("x-request-id") == got
        seen.add(got)
    assert len(seen) == 3


@pytest.mark.parametrize("name", ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"])
def test_own_id_is_used_and_forwarded(gateway: Gateway, worker, name: str):
    worker.clear()
    answer = gateway.chat(headers={name: "My-Id_1/2:3"})
    assert answer.headers.get_list("x-request-id") == ["My-Id_1/2:3"]
    ids = {n: worker.last.all(n) for n in ("x-request-id", "x-correlation-id", "x-trace-id",
                                           "request-id") if worker.last.all(n)}
    assert ids == {name: ["My-Id_1/2:3"]}


def test_first_name_of_the_list_wins(gateway: Gateway, worker):
    order = ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"]
    for first in range(4):
        worker.clear()
        headers = {name: f"from-{name}" for name in reversed(order[first:])}
        assert gateway.chat(headers=headers).headers["x-request-id"] == f"from-{order[first]}"
        for name in order[first:]:
            assert worker.last.get(name) == f"from-{name}"


def test_own_list_of_names(site: Site):
    worker = site.fake()
    gateway = site.gateway("--request-id-headers", "x-mine", "X-Other", workers=[worker])
    both = gateway.chat(headers={"x-other": "o", "x-mine": "m"})
    assert both.headers["x-request-id"] == "m"
    assert worker.last.get("x-mine") == "m"
    assert worker.last.get("x-other") == "o"
    assert gateway.chat(headers={"x-other": "o"}).headers["x-request-id"] == "o"
    assert worker.last.all("x-mine") == []
    old = gateway.chat(headers={"x-request-id": "old-name", "x-trace-id": "t"})
    assert re.fullmatch("chatcmpl-[A-Za-z0-9]{24}", old.headers["x-request-id"])
    assert worker.last.get("x-request-id") == "old-name"
    assert worker.last.all("x-trace-id") == []


@pytest.mark.parametrize("value", ["i" * 300, "two words", "tab\there", "caf\xe9", ""])
def test_bad_id_is_not_echoed(gateway: Gateway, value: str):
    answer = gateway.exchange(post("/v1/chat/completions", chat(), [("X-Request-Id", value)]))
    got = answer.head.get("x-request-id")
    assert got == "invalid-request-id" or re.fullmatch("chatcmpl-[A-Za-z0-9]{24}", got), got


def test_id_is_on_every_answer(gateway: Gateway, site: Site):
    empty = site.gateway()
    answers = [gateway.get("/health"), gateway.get("/nope"), gateway.get("/v1/completions"),
               gateway.post("/v1/completions", b"{"), gateway.get("/workers"),
               gateway.get("/readiness"), gateway.post("/v1/tokenize", {}), empty.chat()]
    for answer in answers:
        assert answer.headers["x-request-id"], answer.request.url
    assert re.fullmatch("req-[A-Za-z0-9]{24}", answers[0].headers["x-request-id"])
    mine = gateway.call("GET", "/nope", {"x-request-id": "on-404"})
    assert mine.headers["x-request-id"] == "on-404"


def test_id_on_a_stream(gateway: Gateway, worker):
    worker.queue.append(streaming({"n": 1}))
    answer = gateway.chat(stream=True, headers={"x-correlation-id": "s-1"})
    assert answer.headers["x-request-id"] == "s-1"
