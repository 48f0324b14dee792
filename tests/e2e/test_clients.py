"""Unmodified OpenAI clients (Python, Node) and Anthropic-style calls over two mock workers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import openai
import pytest

from lib import env
from lib.gateway import Gateway
from lib.site import Site
from lib.wait import eventually

KEY = "key-of-the-openai-clients"
MODEL = "mock-model"
MESSAGES = [{"role": "user", "content": "Say something short."}]
NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def mock(shared_site: Site):
    return shared_site.mock("--model", MODEL, "--api-key", KEY, count=2)


@pytest.fixture(scope="module")
def gateway(shared_site: Site, mock) -> Gateway:
    gateway = shared_site.gateway("--api-key", KEY, "--policy", "round_robin",
                                  "--worker-urls", *mock.urls)
    gateway.wait_ready(2)
    return gateway


@pytest.fixture
def client(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def processed(gateway: Gateway) -> dict[str, float]:
    found = gateway.metrics().find("sgl_router_processed_requests_total")
    return {s.labels["worker"]: s.value for s in found}


# --- the Python package -----------------------------------------------------------------------

def test_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + \
        answer.usage.completion_tokens


def test_chat_stream(client):
    text, finish, chunks = "", None, 0
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
        chunks += 1
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
    assert text
    assert finish in ("stop", "length")
    assert chunks >= 2


def test_chat_stream_with_usage(client):
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True,
                                            stream_options={"include_usage": True})
    usages = [chunk.usage for chunk in stream if chunk.usage]
    assert usages
    assert usages[-1].completion_tokens > 0


def test_completions(client):
    whole = client.completions.create(model=MODEL, prompt="Once upon a time")
    assert whole.choices[0].text
    parts = client.completions.create(model=MODEL, prompt="Once upon a time", stream=True)
    assert "".join(part.choices[0].text for part in parts if part.choices)


def test_embeddings(client):
    answer = client.embeddings.create(model=MODEL, input=["a", "b", "c"],
                                      encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert all(item.embedding for item in answer.data)


def test_models(client):
    models = client.models.list().data
    assert [m.id for m in models] == [MODEL]
    assert models[0].object == "model"


def test_request_id_reaches_the_client(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["x-request-id"].startswith("chatcmpl-")
    mine = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, extra_headers={"x-request-id": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"


def test_wrong_key(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="no", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            stranger.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.status_code == 401
    assert caught.value.code == "invalid_api_key"


def test_no_worker_is_a_clean_error(site: Site):
    empty = site.gateway()
    with openai.OpenAI(base_url=f"{empty.base}/v1", api_key="x", max_retries=0) as lonely:
        with pytest.raises(openai.InternalServerError) as caught:
            lonely.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.status_code == 503
    assert caught.value.code == "no_available_workers"


def test_broken_stream_raises_in_the_client(site: Site):
    """The error event is one that the package understands: no silent end."""
    def breaks(x):
        x.stream()
        x.event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                 "choices": [{"index": 0, "delta": {"content": "par"}}]})
        x.sleep(0.05)
        x.close()

    gateway = site.gateway(workers=[site.fake(breaks)])
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="x", max_retries=0) as one:
        stream = iter(one.chat.completions.create(model="m", messages=MESSAGES, stream=True))
        assert next(stream).choices[0].delta.content == "par"
        with pytest.raises(openai.APIError) as caught:
            next(stream)
    assert caught.value.code == "upstream_stream_broken"


def test_many_at_once_use_both_workers(gateway: Gateway):
    before = processed(gateway)

    async def main() -> int:
        async with openai.AsyncOpenAI(base_url=f"{gateway.base}/v1", api_key=KEY,
                                      max_retries=0) as many:
            async def one(number: int) -> bool:
                messages = [{"role": "user", "content": f"number {number}"}]
                if number % 2:
                    answer = await many.chat.completions.create(model=MODEL, messages=messages)
                    return bool(answer.choices[0].message.content)
                stream = await many.chat.completions.create(model=MODEL, messages=messages,
                                                            stream=True)
                return len([chunk async for chunk in stream]) > 1
            return sum(await asyncio.gather(*[one(n) for n in range(64)]))

    assert asyncio.run(main()) == 64
    after = processed(gateway)
    shares = [after[worker] - before.get(worker, 0) for worker in after]
    assert len(shares) == 2
    assert sum(shares) == 64
    assert max(shares) - min(shares) <= 2, shares


def test_leaving_a_stream_early_frees_the_worker(client, gateway: Gateway, mock):
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2000,
                                            stream=True)
    for _, _ in zip(range(3), stream, strict=False):
        pass
    stream.close()
    eventually(lambda: [w["load"] for w in gateway.workers()] == [0, 0], 5)


# --- responses and messages, proxied ----------------------------------------------------------

def test_responses_are_proxied(gateway: Gateway):
    answer = gateway.post("/v1/responses", {"model": MODEL, "input": "hi"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "response"


def test_responses_stream_is_proxied(gateway: Gateway):
    answer = gateway.post("/v1/responses", {"model": MODEL, "input": "hi", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: response." in answer.text


def test_messages_are_proxied(gateway: Gateway):
    answer = gateway.post("/v1/messages", {"model": MODEL, "max_tokens": 8,
                                           "messages": MESSAGES})
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "message"
    assert answer.headers["x-request-id"].startswith("msg_")


def test_messages_stream_is_proxied(gateway: Gateway):
    answer = gateway.post("/v1/messages", {"model": MODEL, "max_tokens": 8, "stream": True,
                                           "messages": MESSAGES})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: message_start" in answer.text
    assert "event: message_stop" in answer.text


def test_generate(gateway: Gateway):
    whole = gateway.post("/generate", {"text": "Once"})
    assert whole.status_code == 200 and whole.json()["text"]
    parts = gateway.post("/generate", {"text": "Once", "stream": True})
    assert parts.headers["content-type"].startswith("text/event-stream")
    assert parts.text.rstrip().endswith("data: [DONE]")


def test_rerank_and_classify(gateway: Gateway):
    answer = gateway.post("/v1/rerank", {"query": "q", "documents": ["a", "b"]})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == 2
    assert gateway.post("/v1/classify", {"model": MODEL, "input": "x"}).status_code == 200


# --- the Node package -------------------------------------------------------------------------

def node() -> str:
    """The node program; without it (or its package) fails in CI and skips elsewhere."""
    program = os.environ.get("SLUICE_NODE") or shutil.which("node")
    missing = None if program else "there is no node"
    if program and not (NODE / "node_modules" / "openai").exists():
        missing = "the openai package for Node is not installed (npm ci in tests/e2e/node)"
    if missing and env.CI:
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return program or ""


@pytest.fixture(scope="module")
def from_node(gateway: Gateway) -> dict:
    done = subprocess.run([node(), NODE / "client.mjs", f"{gateway.base}/v1", KEY],
                          capture_output=True, text=True, check=False,
                          timeout=60 * env.patience())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_node_whole_answers(from_node: dict):
    assert from_node["chat"]["role"] == "assistant"
    assert from_node["chat"]["text"]
    assert from_node["chat"]["usage"]["completion_tokens"] > 0
    assert from_node["completion"]["text"]
    assert len(from_node["embeddings"]) == 2 and all(from_node["embeddings"])
    assert from_node["models"] == [MODEL]


@pytest.mark.parametrize("kind", ["chatStream", "completionStream"])
def test_node_streams(from_node: dict, kind: str):
    assert from_node[kind]["text"]
    assert from_node[kind]["chunks"] >= 2
    assert from_node[kind]["finish"] in ("stop", "length")


def test_node_many_errors_and_leaving(from_node: dict, gateway: Gateway):
    assert from_node["parallel"] == 32
    assert from_node["refused"] == {"name": "AuthenticationError", "status": 401,
                                    "code": "invalid_api_key"}
    assert from_node["stoppedEarly"] == 3
    eventually(lambda: [w["load"] for w in gateway.workers()] == [0, 0], 5)
