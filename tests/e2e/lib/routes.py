"""The route table of spec 01 section 2.2, as this build must answer it.

NOW: the routes that issue 2 names (parts 6 and 7). LATER: every other row; each answers 501 in
plain text until its part lands, then its row moves up.
"""

from __future__ import annotations

from dataclasses import dataclass

UUID = "01890a5d-ac96-774b-bcce-b302099a8057"


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    auth: str
    body: dict | None = None
    text: str | None = None  # exact body of a 501, where 2.3 gives it

    @property
    def id(self) -> str:
        return f"{self.method}-{self.path}"


MESSAGES = [{"role": "user", "content": "hi"}]

# Proxied to a worker; the body is the least that the endpoint's clients send.
INFERENCE = [
    Row("POST", "/generate", "DATA", {"text": "hi"}),
    Row("POST", "/v1/chat/completions", "DATA", {"model": "m", "messages": MESSAGES}),
    Row("POST", "/v1/completions", "DATA", {"model": "m", "prompt": "hi"}),
    Row("POST", "/v1/responses", "DATA", {"model": "m", "input": "hi"}),
    Row("POST", "/v1/embeddings", "DATA", {"model": "m", "input": "hi"}),
    Row("POST", "/v1/rerank", "DATA", {"query": "q", "documents": ["a", "b"]}),
    Row("POST", "/rerank", "DATA", {"model": "m", "query": "q", "documents": ["a", "b"]}),
    Row("POST", "/v1/classify", "DATA", {"model": "m", "input": "hi"}),
    Row("POST", "/v1/messages", "DATA",
        {"model": "m", "max_tokens": 8, "messages": MESSAGES}),
]
RERANK = {"/rerank", "/v1/rerank"}
STREAMING = {"/generate", "/v1/chat/completions", "/v1/completions", "/v1/responses",
             "/v1/messages"}

ADMIN = [
    Row("GET", "/workers", "CTRL"),
    Row("POST", "/workers", "CTRL", {"url": "http://127.0.0.1:9"}),
    Row("GET", f"/workers/{UUID}", "CTRL"),
    Row("PUT", f"/workers/{UUID}", "CTRL", {"priority": 1}),
    Row("PATCH", f"/workers/{UUID}", "CTRL", {"priority": 1}),
    Row("DELETE", f"/workers/{UUID}", "CTRL"),
    Row("POST", "/add_worker", "CTRL"),
    Row("POST", "/remove_worker", "CTRL"),
    Row("GET", "/list_workers", "CTRL"),
    Row("GET", "/get_loads", "CTRL"),
    Row("GET", "/v1/loads", "CTRL"),
    Row("POST", "/flush_cache", "CTRL"),
    Row("POST", "/start_profile", "CTRL"),
    Row("POST", "/stop_profile", "CTRL"),
    Row("GET", "/health?details", "CTRL"),
    # Not named by the issue, but its part (6.9, fan-out in regular mode) has landed.
    Row("POST", "/v1/responses/resp_1/cancel", "DATA"),
]
PUBLIC = [
    Row("GET", "/liveness", "PUB"),
    Row("GET", "/health", "PUB"),
    Row("GET", "/readiness", "PUB"),
    Row("GET", "/health_generate", "PUB"),
    Row("GET", "/engine_metrics", "PUB"),
    Row("GET", "/v1/models", "PUB"),
    Row("GET", "/get_model_info", "PUB"),
    Row("GET", "/model_info", "PUB"),
    Row("GET", "/get_server_info", "PUB"),
    Row("GET", "/server_info", "PUB"),
]
NOW = INFERENCE + ADMIN + PUBLIC


def conversations() -> list[Row]:
    base = "/v1/conversations"
    one = f"{base}/conv_1"
    return [
        Row("POST", base, "DATA", {}),
        *[Row(m, one, "DATA", {} if m == "POST" else None) for m in ("GET", "POST", "DELETE")],
        Row("GET", f"{one}/items", "DATA"),
        Row("POST", f"{one}/items", "DATA", {"items": []}),
        Row("GET", f"{one}/items/item_1", "DATA"),
        Row("DELETE", f"{one}/items/item_1", "DATA"),
    ]


def mesh() -> list[Row]:
    gets = ["status", "health", "workers", "workers/w1", "policies", "policies/m", "config/k",
            "rate-limit", "rate-limit/stats"]
    posts = {"config": {"key": "k", "value": "00"}, "rate-limit": {"limit_per_second": 1},
             "shutdown": {}}
    return [Row("GET", f"/ha/{name}", "HA") for name in gets] + \
           [Row("POST", f"/ha/{name}", "HA", body) for name, body in posts.items()]


LATER = [
    Row("GET", "/v1/responses/resp_1", "DATA"),
    Row("DELETE", "/v1/responses/resp_1", "DATA"),
    Row("GET", "/v1/responses/resp_1/input_items", "DATA"),
    Row("GET", "/v1/responses/resp_1/input", "DATA"),
    Row("POST", "/v1/interactions", "DATA", {"model": "m", "input": "hi"},
        "Interactions API not implemented for this router"),
    Row("POST", "/v1/audio/transcriptions", "DATA", None,
        "Audio transcriptions not implemented"),
    *conversations(),
    Row("POST", "/v1/tokenize", "DATA", {"model": "m", "prompt": "hi"}),
    Row("POST", "/v1/detokenize", "DATA", {"model": "m", "tokens": [1]}),
    Row("POST", "/v1/realtime/sessions", "DATA", {"model": "m"},
        "Realtime sessions not implemented"),
    Row("POST", "/v1/realtime/client_secrets", "DATA", {"model": "m"},
        "Realtime client secrets not implemented"),
    Row("POST", "/v1/realtime/transcription_sessions", "DATA", {"model": "m"},
        "Realtime transcription sessions not implemented"),
    Row("GET", "/v1/realtime?model=m", "DATA", None, "Realtime WebSocket not implemented"),
    Row("POST", "/v1/realtime/calls", "DATA", {}, "Realtime WebRTC not implemented"),
    Row("POST", "/parse/function_call", "CTRL", {"text": "", "tool_call_parser": "json"}),
    Row("POST", "/parse/reasoning", "CTRL", {"text": "", "reasoning_parser": "qwen3"}),
    Row("POST", "/wasm", "CTRL", {"modules": []}),
    Row("GET", "/wasm", "CTRL"),
    Row("DELETE", f"/wasm/{UUID}", "CTRL"),
    Row("POST", "/v1/tokenizers", "CTRL", {"name": "n", "source": "s"}),
    Row("GET", "/v1/tokenizers", "CTRL"),
    Row("GET", f"/v1/tokenizers/{UUID}", "CTRL"),
    Row("DELETE", f"/v1/tokenizers/{UUID}", "CTRL"),
    Row("GET", f"/v1/tokenizers/{UUID}/status", "CTRL"),
    *mesh(),
    Row("POST", "/debug/route", "CTRL", {"model": "m", "messages": MESSAGES}),
    Row("GET", "/debug/decisions", "CTRL"),
    Row("POST", "/admin/reload", "CTRL"),
]

# path -> methods of the table, for 405 and Allow.
METHODS: dict[str, set[str]] = {}
for row in NOW:
    METHODS.setdefault(row.path.partition("?")[0], set()).add(row.method)
