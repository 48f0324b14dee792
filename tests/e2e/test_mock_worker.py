"""`sluice mock-worker`: what the other tests and `make run` rely on."""

from __future__ import annotations

import re
import threading
import time

import httpx
import pytest

from lib.gateway import MockWorker, chat
from lib.metrics import Metrics
from lib.rawhttp import RawConn, post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually

MODEL = "mock-model"


@pytest.fixture(scope="module")
def mock(shared_site: Site) -> MockWorker:
    return shared_site.mock("--seed", "7")


def ask(mock: MockWorker, path: str, body: dict | None = None, url: str | None = None,
        timeout: float = 20) -> httpx.Response:
    target = f"{url or mock.url}{path}"
    if body is None:
        return httpx.get(target, trust_env=False, timeout=timeout)
    return httpx.post(target, json=body, trust_env=False, timeout=timeout)


def say(mock: MockWorker, content: str = "hello", **more: object) -> httpx.Response:
    return ask(mock, "/v1/chat/completions", chat(content, MODEL, **more))


GETS = ["/health", "/health_generate", "/v1/models", "/get_model_info", "/model_info",
        "/get_server_info", "/server_info", "/v1/loads", "/get_load", "/metrics"]
POSTS = {
    "/generate": {"text": "hi"}, "/v1/chat/completions": chat("hi", MODEL),
    "/v1/completions": {"model": MODEL, "prompt": "hi"},
    "/v1/responses": {"model": MODEL, "input": "hi"},
    "/v1/embeddings": {"model": MODEL, "input": "hi"},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v1/classify": {"model": MODEL, "input": "hi"},
    "/v1/messages": {"model": MODEL, "max_tokens": 4,
                     "messages": [{"role": "user", "content": "hi"}]},
    "/flush_cache": {}, "/start_profile": {}, "/stop_profile": {},
}


@pytest.mark.parametrize("path", GETS)
def test_gets(mock: MockWorker, path: str):
    assert ask(mock, path).status_code == 200


@pytest.mark.parametrize("path", POSTS)
def test_posts(mock: MockWorker, path: str):
    answer = ask(mock, path, POSTS[path])
    assert answer.status_code == 200, answer.text


def test_unknown_path_is_404(mock: MockWorker):
    assert ask(mock, "/nope").status_code == 404


def test_chat_shape(mock: MockWorker):
    got = say(mock).json()
    assert got["object"] == "chat.completion"
    assert got["choices"][0]["finish_reason"] in ("stop", "length")
    usage = got["usage"]
    assert usage["completion_tokens"] == 8, "--output-tokens 8"
    assert usage["prompt_tokens"] > 0


def test_stream_shape(mock: MockWorker):
    answer = say(mock, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert all(event.startswith("data: ") for event in events if event)
    assert events[-2:] == ["data: [DONE]", ""]


def test_output_length_follows_max_tokens(mock: MockWorker):
    assert say(mock, max_tokens=3).json()["usage"]["completion_tokens"] == 3


def words_of(answer: httpx.Response) -> str:
    """The text without the name of the worker that it may start with."""
    text = answer.json()["choices"][0]["message"]["content"]
    return re.sub(r"served-by-\S+", "", text).strip()


def test_same_seed_same_answers(site: Site):
    first, second = site.mock("--seed", "42"), site.mock("--seed", "42")
    texts = [[words_of(say(m, f"q{n}")) for n in range(5)] for m in (first, second)]
    assert texts[0] == texts[1]
    assert any(texts[0])


def test_count(site: Site):
    mock = site.mock(count=3)
    for url in mock.urls:
        assert ask(mock, "/v1/models", url=url).json()["data"][0]["id"] == MODEL


def test_loads_follow_running_requests(site: Site):
    mock = site.mock("--tokens-per-second", "20", "--output-tokens", "200")
    conns = [RawConn(int(mock.ports[0])).send(post("/v1/chat/completions", chat(
        "hello", MODEL, stream=True))) for _ in range(3)]

    def running() -> int:
        return sum(rank["num_running_reqs"] for rank in ask(mock, "/v1/loads").json()["loads"])
    eventually(lambda: running() == 3, 5)
    for conn in conns:
        conn.close()
    eventually(lambda: running() == 0, 5, what="a client that left frees its place")


def test_metrics_parse(mock: MockWorker):
    say(mock)
    text = ask(mock, "/metrics").text
    assert "sglang:" in text
    assert Metrics(text.replace("sglang:", "sglang_")).samples


# --- speed ------------------------------------------------------------------------------------

def test_tokens_per_second(site: Site):
    mock = site.mock("--tokens-per-second", "20", "--output-tokens", "20")
    watch = Stopwatch()
    say(mock)
    assert 0.7 < watch() < 2.5


def first_byte(mock: MockWorker, content: str) -> float:
    with RawConn(int(mock.ports[0])) as conn:
        conn.send(post("/v1/chat/completions", chat(content, MODEL, stream=True)))
        watch = Stopwatch()
        conn.body_of(conn.read_head()).read_until(b"data: ")
        return watch()


def test_first_token_waits_for_the_uncached_prompt(site: Site):
    mock = site.mock("--prefill-tps", "1000", "--cache-blocks", "4096")
    words = " ".join(f"word{n}" for n in range(1000))
    cold = first_byte(mock, words)
    warm = first_byte(mock, words)
    assert cold > 0.5
    assert warm < cold / 2, "the prefix cache pays off"
    assert first_byte(mock, "short") < 0.3


def test_running_limit_queues(site: Site):
    mock = site.mock("--tokens-per-second", "40", "--max-running", "1", "--output-tokens", "20")
    watch = Stopwatch()
    threads = [threading.Thread(target=say, args=(mock,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watch() > 1.1, "three times half a second, one after another"


# --- faults -----------------------------------------------------------------------------------

def test_live_faults(site: Site):
    mock = site.mock()
    mock.faults(fail_rate=1.0, fail_status=503)
    assert say(mock).status_code == 503
    mock.faults(fail_rate=0.0, delay_ms=400)
    watch = Stopwatch()
    assert say(mock).status_code == 200
    assert watch() > 0.35
    mock.reset()
    assert ask(mock, "/health").status_code == 200


def test_cut_after_events(site: Site):
    mock = site.mock("--cut-after-events", "2")
    with RawConn(int(mock.ports[0])) as conn:
        conn.send(post("/v1/chat/completions", chat("x", MODEL, stream=True)))
        body = conn.body_of(conn.read_head()).read_to_end()
        assert not body.complete
        assert body.data.count(b"data: ") == 2


@pytest.mark.parametrize("mode", ["fin", "rst"])
def test_cut_after_bytes(site: Site, mode: str):
    mock = site.mock("--cut-after-bytes", "100", "--close-mode", mode)
    with RawConn(int(mock.ports[0])) as conn:
        conn.send(post("/v1/chat/completions", chat("x", MODEL)))
        assert conn.wait_end(5) == mode


def test_hang(site: Site):
    mock = site.mock()
    mock.faults(hang=True)
    with RawConn(int(mock.ports[0])) as conn:
        conn.send(post("/v1/chat/completions", chat("x", MODEL)))
        assert conn.quiet(0.5)
        mock.faults(hang=False)


def test_fail_rate_is_a_share(site: Site):
    mock = site.mock("--fail-rate", "0.5", "--seed", "3")
    statuses = [say(mock).status_code for _ in range(60)]
    assert 15 <= statuses.count(500) <= 45
    assert set(statuses) == {200, 500}


def test_key(site: Site):
    mock = site.mock("--api-key", "mock-key")
    body = chat("x", MODEL)
    url = f"{mock.url}/v1/chat/completions"
    assert httpx.post(url, json=body, trust_env=False).status_code == 401
    good = {"authorization": "Bearer mock-key"}
    assert httpx.post(url, json=body, headers=good, trust_env=False).status_code == 200


def test_it_tells_what_it_saw(site: Site):
    mock = site.mock()
    say(mock, "remember this")
    seen = httpx.get(f"{mock.url}/mock/requests", trust_env=False).text
    assert "/v1/chat/completions" in seen
    assert "remember this" in seen
    mock.reset()
    assert "remember this" not in httpx.get(f"{mock.url}/mock/requests", trust_env=False).text


def test_garbage_does_it_no_harm(site: Site):
    mock = site.mock()
    for raw in (b"\x00\x01\x02", b"GET", request_bytes("GET", "/x" * 5000)):
        with RawConn(int(mock.ports[0])) as conn:
            conn.send(raw)
            time.sleep(0.02)
    assert say(mock).status_code == 200
