"""Spec 01 sections 2.2, 2.3, 4.1, 4.2, 5.8: the route table and the answers around it."""

from __future__ import annotations

import json

import pytest

from lib import routes
from lib.fake_worker import replying
from lib.gateway import Gateway
from lib.routes import Row
from lib.site import Site

KEY = "gateway-key-for-tests"
RERANKED = [{"score": 0.9, "document": "a", "index": 0}, {"score": 0.1, "document": "b",
                                                          "index": 1}]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    fake = shared_site.fake()
    for path in ("/rerank", "/v1/rerank"):
        fake.routes[path] = replying(200, RERANKED)
    for path in ("/flush_cache", "/v1/responses/resp_1/cancel", "/start_profile", "/stop_profile"):
        fake.routes[path] = replying(200, b"done", content_type="text/plain")
    fake.routes["/get_load"] = replying(200, [{"num_tokens": 3}])
    fake.routes["/metrics"] = replying(200, b"# TYPE x gauge\nx 1\n", content_type="text/plain")
    return fake


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway(workers=[worker])


@pytest.fixture(scope="module")
def locked(shared_site: Site, worker) -> Gateway:
    return shared_site.gateway("--api-key", KEY, workers=[worker])


@pytest.fixture(scope="module")
def picky(shared_site: Site) -> Gateway:
    return shared_site.gateway("--cors-allowed-origins", "https://a.test", "https://b.test")


def ask(gateway: Gateway, row: Row, headers: dict | None = None):
    if row.body is not None:
        return gateway.call(row.method, row.path, headers, json=row.body)
    return gateway.call(row.method, row.path, headers)


def check_error(answer, status: int, reason: str, code: str) -> dict:
    """The object of 4.1: keys in order, type = reason phrase, param null, code in a header."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    outer = json.loads(answer.text, object_pairs_hook=list)
    assert [key for key, _ in outer] == ["error"], answer.text
    assert [key for key, _ in outer[0][1]] == ["type", "code", "message", "param"], answer.text
    error = answer.json()["error"]
    assert error["type"] == reason
    assert error["code"] == code
    assert error["param"] is None
    assert error["message"]
    assert answer.headers["x-smg-error-code"] == code
    return error


# --- routes of this build ---------------------------------------------------------------------

@pytest.mark.parametrize("row", routes.INFERENCE, ids=ids(routes.INFERENCE))
def test_inference_route_reaches_a_worker(gateway: Gateway, worker, row: Row):
    worker.clear()
    answer = ask(gateway, row)
    assert answer.status_code == 200, answer.text
    assert len(worker.requests) == 1
    sent = worker.requests[0]
    assert sent.method == "POST"
    assert sent.target == ("/v1/rerank" if row.path in routes.RERANK else row.path)
    if row.path in routes.RERANK:
        check_reranked(answer.json())
    else:
        assert answer.json() == {"object": "fake", "worker": int(worker.port), "path": row.path}


def check_reranked(got: dict) -> None:
    """6.8: the worker's array becomes an object."""
    assert set(got) == {"results", "model", "usage", "object", "id", "created"}
    assert got["object"] == "rerank"
    assert got["usage"] is None
    assert isinstance(got["created"], int)
    assert got["results"] == RERANKED


EXPECTED = {
    "GET /workers": 200, "POST /workers": 202, "GET /list_workers": 200,
    f"GET /workers/{routes.UUID}": 404, f"PUT /workers/{routes.UUID}": 404,
    f"PATCH /workers/{routes.UUID}": 404, f"DELETE /workers/{routes.UUID}": 404,
    "POST /add_worker": 400, "POST /remove_worker": 400,
}


@pytest.mark.parametrize("row", routes.ADMIN + routes.PUBLIC,
                         ids=ids(routes.ADMIN + routes.PUBLIC))
def test_own_route_answers(gateway: Gateway, row: Row):
    answer = ask(gateway, row)
    assert answer.status_code == EXPECTED.get(f"{row.method} {row.path}", 200), answer.text


@pytest.mark.parametrize("row", routes.LATER, ids=ids(routes.LATER))
def test_row_of_a_later_part_answers_501(gateway: Gateway, worker, row: Row):
    worker.clear()
    answer = ask(gateway, row)
    assert answer.status_code == 501, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    if row.text:
        assert answer.text == row.text
    else:
        assert answer.text.rstrip(".").endswith("not implemented"), answer.text
    assert worker.requests == []


def test_tables_hold_every_row_once():
    keys = [(row.method, row.path) for row in routes.NOW + routes.LATER]
    assert len(keys) == len(set(keys))


# --- unknown path, wrong method, HEAD ---------------------------------------------------------

@pytest.mark.parametrize("path", ["/", "/nope", "/v1", "/v1/", "/v1/chat", "/v1/chat/completions/x",
                                  "/V1/chat/completions", "/metrics", "/scheduler", "/healthz",
                                  "/workersx"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_path(gateway: Gateway, method: str, path: str):
    error = check_error(gateway.call(method, path), 404, "Not Found", "not_found")
    assert "\n" not in error["message"]


@pytest.mark.parametrize("path", sorted(routes.METHODS))
def test_wrong_method(gateway: Gateway, path: str):
    right = routes.METHODS[path]
    wrong = next(m for m in ("DELETE", "PUT", "POST", "GET") if m not in right)
    answer = gateway.call(wrong, path)
    check_error(answer, 405, "Method Not Allowed", "method_not_allowed")
    allowed = {m.strip() for m in answer.headers["allow"].split(",")}
    assert right <= allowed, allowed
    assert allowed - right <= {"HEAD", "OPTIONS"}, allowed
    if "GET" not in right:
        assert "HEAD" not in allowed


@pytest.mark.parametrize("path", sorted(r.path for r in routes.NOW if r.method == "GET"
                                        and routes.UUID not in r.path))
def test_head_works_where_get_does(gateway: Gateway, path: str):
    got = gateway.get(path)
    with gateway.raw() as conn:
        for _ in range(2):
            conn.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = conn.read_answer("HEAD")
            assert answer.status == got.status_code
            if answer.head.get("content-length") is not None:
                assert int(answer.head.get("content-length")) > 0 or got.content == b""
        conn.send("GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.read_answer().body == b"OK"


def test_head_of_post_route_is_405(gateway: Gateway):
    with gateway.raw() as conn:
        conn.send("HEAD /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = conn.read_answer("HEAD")
        assert answer.status == 405
        assert "POST" in answer.head.get("allow")
        assert conn.quiet(0.2), bytes(conn.buffer)


@pytest.mark.parametrize("method", ["BREW", "PROPFIND", "TRACE", "LOCK", "M-SEARCH"])
def test_odd_method_does_no_harm(gateway: Gateway, method: str):
    with gateway.raw() as conn:
        conn.send(f"{method} /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.read_answer().status in (400, 405, 501)
    assert gateway.get("/health").text == "OK"


def test_query_does_not_change_the_route(gateway: Gateway, worker):
    worker.clear()
    answer = gateway.post("/v1/completions?beta=true&x=%2F", {"prompt": "a"})
    assert answer.status_code == 200
    assert worker.last.path == "/v1/completions"


# --- who may call (2.1) -----------------------------------------------------------------------

ALL = routes.NOW + routes.LATER


@pytest.mark.parametrize("row", ALL, ids=ids(ALL))
def test_auth_class(locked: Gateway, row: Row):
    answer = ask(locked, row, {"authorization": "Bearer wrong"})
    if row.auth == "PUB":
        assert answer.status_code != 401
        return
    check_error(answer, 401, "Unauthorized", "invalid_api_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert ask(locked, row).status_code != 401


@pytest.mark.parametrize(("value", "good"), [
    (f"Bearer {KEY}", True), (f"bearer {KEY}", True), (f"BEARER {KEY}", True),
    (f"Bearer {KEY}x", False), (f"Bearer {KEY[:-1]}", False), (f"Bearer {KEY.upper()}", False),
    (f"Basic {KEY}", False), (KEY, False), ("Bearer", False), ("Bearer ", False), ("", False),
    (f"Bearer{KEY}", False),
])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/workers"])
def test_key_must_match_exactly(locked: Gateway, path: str, value: str, good: bool):
    headers = [("Authorization", value), ("Content-Type", "application/json")]
    if path == "/workers":
        answer = locked.raw_request("GET", path, headers)
    else:
        answer = locked.raw_request("POST", path, headers, b'{"model":"m","messages":[]}')
    assert answer.status == (200 if good else 401)


def test_without_authorization_header(locked: Gateway):
    answer = locked.client.post("/v1/chat/completions", json={"messages": []})
    check_error(answer, 401, "Unauthorized", "invalid_api_key")


def test_unauthorized_request_never_reaches_a_worker(locked: Gateway, worker):
    worker.clear()
    for row in routes.INFERENCE:
        ask(locked, row, {"authorization": "Bearer wrong"})
    assert worker.requests == []


# --- bodies that are refused at the edge (4.2, 6.2) -------------------------------------------

BAD_JSON = [b"", b"{", b'{"a":1,}', b"nonsense", b'{"a":1} x', b"\x00", b'{"a":"\xff"}',
            b"{'a':1}", b'{"a":01}', b'{"a":"\n"}', b'{"a":NaN}', b"[" * 100_000]


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda b: repr(b[:12]))
def test_malformed_json(gateway: Gateway, worker, body: bytes):
    worker.clear()
    answer = gateway.post("/v1/chat/completions", body)
    error = check_error(answer, 400, "invalid_request_error", "json_parse_error")
    assert error["message"].startswith(("JSON syntax error: ", "Invalid JSON data: "))
    assert worker.requests == []


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true", b'[{"model":"m"}]'])
@pytest.mark.parametrize("path", [row.path for row in routes.INFERENCE])
def test_json_that_is_no_object(gateway: Gateway, worker, path: str, body: bytes):
    worker.clear()
    answer = gateway.post(path, body)
    check_error(answer, 400, "invalid_request_error", "json_parse_error")
    assert worker.requests == []


BY_400 = {"/v1/chat/completions", "/v1/completions", "/rerank", "/v1/responses", "/v1/messages"}


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded",
                                   "multipart/form-data; boundary=x", "application/jsonx"])
@pytest.mark.parametrize("row", routes.INFERENCE, ids=ids(routes.INFERENCE))
def test_foreign_media_type(gateway: Gateway, worker, row: Row, media: str):
    worker.clear()
    answer = gateway.post(row.path, row.body, {"content-type": media})
    if row.path in BY_400:
        error = check_error(answer, 400, "invalid_request_error", "json_parse_error")
        assert error["message"] == "Missing Content-Type: application/json header"
    else:
        check_error(answer, 415, "Unsupported Media Type", "unsupported_media_type")
    assert worker.requests == []


@pytest.mark.parametrize("media", [None, "application/json", "application/json; charset=utf-8",
                                   "Application/JSON", "application/json;charset=UTF-8"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate"])
def test_json_media_type_or_none(gateway: Gateway, path: str, media: str | None):
    headers = {"content-type": media} if media else {}
    answer = gateway.client.post(path, content=b'{"messages":[],"text":"x"}', headers=headers)
    assert answer.status_code == 200, answer.text


# --- CORS (5.8) -------------------------------------------------------------------------------

def preflight(gateway: Gateway, origin: str, path: str = "/v1/chat/completions"):
    return gateway.client.options(path, headers={
        "origin": origin, "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type"})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/workers", "/health", "/nope"])
def test_preflight_without_a_list(gateway: Gateway, path: str):
    answer = preflight(gateway, "https://any.test", path)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "*"
    assert answer.headers["access-control-allow-headers"] == "*"
    assert answer.headers["access-control-max-age"] == "3600"


def test_preflight_needs_no_key(locked: Gateway):
    assert preflight(locked, "https://any.test").status_code in (200, 204)


def test_headers_without_a_list(gateway: Gateway, locked: Gateway):
    origin = {"origin": "https://any.test"}
    answers = [gateway.chat(headers=origin), gateway.get("/health", origin),
               gateway.get("/nope", origin), gateway.post("/generate", b"{", origin),
               locked.chat(headers=origin | {"authorization": "Bearer no"})]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "*", answer.request.url
        assert answer.headers["access-control-expose-headers"] == "*"


def words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}


def test_preflight_with_a_list(picky: Gateway):
    answer = preflight(picky, "https://b.test")
    assert answer.headers["access-control-allow-origin"] == "https://b.test"
    assert words(answer.headers["access-control-allow-methods"]) == {
        "get", "post", "put", "patch", "delete", "options"}
    assert words(answer.headers["access-control-allow-headers"]) == {
        "content-type", "authorization"}
    assert answer.headers["access-control-max-age"] == "3600"


def test_answer_with_a_list(picky: Gateway):
    answer = picky.get("/health", {"origin": "https://a.test"})
    assert answer.headers["access-control-allow-origin"] == "https://a.test"
    assert words(answer.headers["access-control-expose-headers"]) == {"x-request-id"}


@pytest.mark.parametrize("origin", ["https://c.test", "https://a.test.evil", "http://a.test",
                                    "null", "https://A.test:443"])
def test_foreign_origin_gets_no_leave(picky: Gateway, origin: str):
    assert "access-control-allow-origin" not in preflight(picky, origin).headers
    answer = picky.get("/health", {"origin": origin})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
