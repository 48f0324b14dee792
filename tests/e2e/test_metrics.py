"""The metrics listener (spec 06, section 1): both namings, values, labels, bounded series."""

from __future__ import annotations

import itertools
import random
import string
import threading

import httpx
import pytest

from lib import env
from lib.fake_worker import hanging, replying
from lib.gateway import Gateway, chat
from lib.rawhttp import post, request_bytes
from lib.site import Site
from lib.wait import eventually

D20 = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 45, 60, 90, 120,
       180, 240]
D29 = D20 + [300, 480, 900, 1200, 1800, 2700, 3600, 5400, 7200]
OVERHEAD = [0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
            0.1]
INF = float("inf")

# Families whose event exists in this build, and one request is enough to see them.
LEGACY = {
    "sgl_router_requests_total": "counter", "sgl_router_request_duration_seconds": "histogram",
    "sgl_router_cb_state": "gauge", "sgl_router_cb_outcomes_total": "counter",
    "sgl_router_active_workers": "gauge", "sgl_router_worker_health": "gauge",
    "sgl_router_worker_load": "gauge", "sgl_router_processed_requests_total": "counter",
    "sgl_router_policy_decisions_total": "counter", "sgl_router_running_requests": "gauge",
    "sgl_router_generate_duration_seconds": "histogram",
}
LAYERED = {
    "smg_http_requests_total": "counter", "smg_http_request_duration_seconds": "histogram",
    "smg_http_responses_total": "counter", "smg_http_connections_active": "gauge",
    "smg_http_inflight_request_age_count": "gauge", "smg_router_requests_total": "counter",
    "smg_router_request_duration_seconds": "histogram",
    "smg_router_upstream_responses_total": "counter", "smg_worker_pool_size": "gauge",
    "smg_worker_connections_active": "gauge", "smg_worker_requests_active": "gauge",
    "smg_worker_health": "gauge", "smg_worker_health_checks_total": "counter",
    "smg_worker_selection_total": "counter", "smg_worker_cb_state": "gauge",
    "smg_worker_cb_outcomes_total": "counter",
    "smg_worker_cb_consecutive_failures": "gauge",
    "smg_worker_cb_consecutive_successes": "gauge",
}
OURS = {
    "sluice_overhead_seconds": "histogram", "sluice_jobs": "gauge",
    "sluice_job_oldest_age_seconds": "gauge", "sluice_jobs_total": "counter",
    "sluice_job_duration_seconds": "histogram", "sluice_accept_paused": "gauge",
    "sluice_accept_pauses_total": "counter", "sluice_config_version": "gauge",
    "sluice_build_info": "gauge", "process_resident_memory_bytes": "gauge",
    "process_open_fds": "gauge", "process_max_fds": "gauge",
    "process_cpu_seconds_total": "counter", "process_start_time_seconds": "gauge",
}


@pytest.fixture(scope="module")
def worker(shared_site: Site):
    return shared_site.fake(model="metric-model")


@pytest.fixture(scope="module")
def gateway(shared_site: Site, worker) -> Gateway:
    gateway = shared_site.gateway("--policy", "round_robin", workers=[worker])
    assert gateway.chat(model="metric-model").status_code == 200
    return gateway


# --- the listener -----------------------------------------------------------------------------

def fetch(gateway: Gateway, path: str = "/metrics", method: str = "GET") -> httpx.Response:
    return httpx.request(method, f"http://127.0.0.1:{gateway.metrics_port}{path}",
                         trust_env=False)


def test_listener(gateway: Gateway):
    answer = fetch(gateway)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert fetch(gateway, "/metrics?x=1").status_code == 200
    for path in ("/", "/health", "/workers", "/ws/metrics", "/metricsx"):
        assert fetch(gateway, path).status_code == 404, path
    assert fetch(gateway, method="POST").status_code in (404, 405)
    assert gateway.get("/metrics").status_code == 404, "not on the API port"


def test_listener_needs_no_key(site: Site):
    gateway = site.gateway("--api-key", "k")
    assert fetch(gateway).status_code == 200


def test_every_family_has_help_and_type_once(gateway: Gateway):
    lines = gateway.metrics().text.splitlines()
    for kind in ("HELP", "TYPE"):
        names = [line.split(" ")[2] for line in lines if line.startswith(f"# {kind} ")]
        assert len(names) == len(set(names))
    assert {line.split(" ")[2] for line in lines if line.startswith("# HELP ")} == \
        gateway.metrics().names()


@pytest.mark.parametrize(("name", "kind"), sorted({**LEGACY, **LAYERED, **OURS}.items()))
def test_family_is_there(gateway: Gateway, name: str, kind: str):
    metrics = gateway.metrics()
    assert metrics.type_of(name) == kind
    assert [s for s in metrics.samples if s.name.startswith(name)], "only with a series"


@pytest.mark.parametrize(("naming", "there", "absent"), [
    ("legacy", [*LEGACY, *OURS], LAYERED), ("layered", [*LAYERED, *OURS], LEGACY),
    ("both", [*LEGACY, *LAYERED, *OURS], [])])
def test_naming(site: Site, naming: str, there, absent):
    gateway = site.gateway("--metrics-naming", naming, workers=[site.fake()])
    gateway.chat()
    names = gateway.metrics().names()
    assert set(there) <= names, set(there) - names
    assert not set(absent) & names
    prefixes = {"legacy": ("sgl_", "sluice_", "process_"),
                "layered": ("smg_", "sluice_", "process_")}.get(naming)
    if prefixes:
        assert all(name.startswith(prefixes) for name in names), names


# --- values -----------------------------------------------------------------------------------

def delta(gateway: Gateway, act, name: str, **labels: str) -> float:
    before = gateway.metrics().value(name, **labels)
    act()
    return gateway.metrics().value(name, **labels) - before


def seven_chats(gateway: Gateway):
    def act() -> None:
        for number in range(7):
            assert gateway.chat(model="metric-model", stream=number % 2 == 0).status_code == 200
    return act


CHAT_LABELS = {"router_type": "http", "backend_type": "regular", "connection_mode": "http",
               "model": "metric-model", "endpoint": "chat"}
VALUES = [
    ("sgl_router_requests_total", {"route": "/v1/chat/completions",
                                   "endpoint": "/v1/chat/completions", "method": "POST"}, 7),
    ("sgl_router_request_duration_seconds_count", {"route": "/v1/chat/completions"}, 7),
    ("sgl_router_generate_duration_seconds_count", {}, 7),
    ("sgl_router_processed_requests_total", {}, 7),
    ("sgl_router_policy_decisions_total", {"policy": "round_robin"}, 7),
    ("sgl_router_cb_outcomes_total", {"outcome": "success"}, 7),
    ("sgl_router_cb_outcomes_total", {"outcome": "failure"}, 0),
    ("sgl_router_retries_total", {}, 0),
    ("sgl_router_request_errors_total", {}, 0),
    ("smg_http_requests_total", {"method": "POST", "path": "/v1/chat/completions"}, 7),
    ("smg_http_responses_total", {"path": "/v1/chat/completions", "status_code": "200",
                                  "error_code": ""}, 7),
    ("smg_http_request_duration_seconds_count", {"method": "POST",
                                                 "path": "/v1/chat/completions"}, 7),
    ("smg_router_requests_total", {**CHAT_LABELS, "streaming": "false"}, 3),
    ("smg_router_requests_total", {**CHAT_LABELS, "streaming": "true"}, 4),
    ("smg_router_request_duration_seconds_count", CHAT_LABELS, 7),
    ("smg_router_upstream_responses_total", {"router_type": "http", "status_code": "200",
                                             "error_code": ""}, 7),
    ("smg_worker_selection_total", {"worker_type": "regular", "connection_mode": "http",
                                    "model": "metric-model", "policy": "round_robin"}, 7),
    ("smg_worker_cb_outcomes_total", {"outcome": "success"}, 7),
    ("sluice_overhead_seconds_count", {"router_type": "http"}, 7),
]


@pytest.mark.parametrize(("name", "labels", "expected"), VALUES,
                         ids=[f"{name}-{number}" for number, (name, _, _) in enumerate(VALUES)])
def test_value_after_seven_chats(gateway: Gateway, name: str, labels: dict, expected: int):
    assert delta(gateway, seven_chats(gateway), name, **labels) == expected


def test_states_of_the_fleet(gateway: Gateway, worker):
    metrics = gateway.metrics()
    assert metrics.only("sgl_router_active_workers").value == 1
    for name, value in [("sgl_router_worker_health", 1), ("sgl_router_cb_state", 0),
                        ("smg_worker_health", 1), ("smg_worker_cb_state", 0),
                        ("sgl_router_running_requests", 0), ("smg_worker_requests_active", 0),
                        ("sgl_router_worker_load", 0)]:
        assert metrics.only(name, worker=worker.url).value == value, name
    assert metrics.only("smg_worker_pool_size", worker_type="regular", connection_mode="http",
                        model="metric-model").value == 1
    assert metrics.value("smg_worker_health_checks_total", result="success") >= 1
    assert metrics.value("sluice_jobs_total", kind="AddWorker", result="success") >= 1
    assert metrics.value("sluice_jobs") == 0
    assert metrics.value("sluice_job_oldest_age_seconds") == 0
    assert metrics.only("sluice_config_version").value == 1
    assert metrics.only("sluice_build_info").value == 1
    assert set(metrics.only("sluice_build_info").labels) == {"version", "commit"}


def test_health_shows_in_metrics(site: Site):
    workers = [site.fake(), site.fake()]
    gateway = site.gateway("--health-check-interval-secs", "1", "--health-failure-threshold",
                           "1", workers=workers)
    assert gateway.metrics().only("sgl_router_active_workers").value == 2
    workers[0].set_health(False)
    eventually(lambda: gateway.metrics().only("sgl_router_active_workers").value == 1, 8)
    metrics = gateway.metrics()
    for name in ("sgl_router_worker_health", "smg_worker_health"):
        assert metrics.only(name, worker=workers[0].url).value == 0
        assert metrics.only(name, worker=workers[1].url).value == 1
    assert metrics.value("smg_worker_health_checks_total", result="failure") >= 1
    assert metrics.value("smg_worker_pool_size") == 2, "registered, not healthy"


def test_process_metrics_are_true(gateway: Gateway):
    metrics = gateway.metrics()
    rss = metrics.only("process_resident_memory_bytes").value
    assert abs(rss - gateway.rss()) < max(8 << 20, rss * 0.2)
    assert abs(metrics.only("process_open_fds").value - gateway.open_files()) <= 8
    assert metrics.only("process_max_fds").value >= 1024
    assert metrics.only("process_cpu_seconds_total").value > 0


def test_in_flight_lasts_until_the_last_byte(gateway: Gateway, worker):
    """0.3: a stream counts until its end, not until its head."""
    gate = threading.Event()

    def script(x):
        x.stream()
        x.event("one")
        gate.wait(30)
        x.end()
    with gateway.raw() as conn:
        worker.queue.append(script)
        conn.send(post("/v1/chat/completions", chat(stream=True)))
        body = conn.body_of(conn.read_head())
        body.read_until(b"one")
        metrics = gateway.metrics()
        assert metrics.only("smg_http_connections_active").value == 1
        assert metrics.only("sgl_router_running_requests", worker=worker.url).value == 1
        assert metrics.only("smg_worker_requests_active", worker=worker.url).value == 1
        gate.set()
        body.read_to_end()

    def idle():
        metrics = gateway.metrics()
        return metrics.only("smg_http_connections_active").value == 0 and \
            metrics.only("sgl_router_running_requests", worker=worker.url).value == 0
    eventually(idle, 2)


def test_inflight_age_has_its_twelve_series(gateway: Gateway):
    found = gateway.metrics().find("smg_http_inflight_request_age_count")
    pairs = {(s.labels["gt"], s.labels["le"]) for s in found}
    bounds = ["0", "30", "60", "180", "300", "600", "1200", "3600", "7200", "14400", "28800",
              "86400", "+Inf"]
    assert pairs == set(itertools.pairwise(bounds))


def test_buckets(gateway: Gateway):
    metrics = gateway.metrics()
    for name in ("sgl_router_request_duration_seconds", "sgl_router_generate_duration_seconds"):
        assert metrics.bounds(name) == [*D20, INF], name
    for name in ("smg_http_request_duration_seconds", "smg_router_request_duration_seconds",
                 "sluice_job_duration_seconds"):
        assert metrics.bounds(name) == [*D29, INF], name
    assert metrics.bounds("sluice_overhead_seconds") == [*OVERHEAD, INF]


def test_own_buckets(site: Site):
    gateway = site.gateway("--prometheus-duration-buckets", "0.5", "1", "7.25",
                           workers=[site.fake()])
    gateway.chat()
    metrics = gateway.metrics()
    for name in ("sgl_router_request_duration_seconds", "smg_http_request_duration_seconds"):
        assert metrics.bounds(name) == [0.5, 1, 7.25, INF], name
    assert metrics.bounds("sluice_overhead_seconds") == [*OVERHEAD, INF]


def test_durations_are_what_they_say(site: Site):
    """Legacy time runs to the end; the layered ones stop at the head."""
    def script(x):
        x.stream()
        x.event("one")
        x.sleep(0.6)
        x.end()
    gateway = site.gateway(workers=[site.fake(script)])
    gateway.chat(stream=True)
    metrics = gateway.metrics()
    assert metrics.value("sgl_router_request_duration_seconds_sum") >= 0.55
    assert metrics.value("smg_router_request_duration_seconds_sum") < 0.5 * env.patience()
    assert metrics.value("sgl_router_generate_duration_seconds_sum") < 0.5 * env.patience()


# --- errors -----------------------------------------------------------------------------------

def errors(gateway: Gateway, act, kind: str) -> float:
    return delta(gateway, act, "sgl_router_request_errors_total", error_type=kind)


def test_errors_by_kind(site: Site):
    worker = site.fake()
    gateway = site.gateway("--disable-retries", "--disable-circuit-breaker",
                           "--first-byte-timeout-secs", "1", workers=[worker])

    def answered(script, stream: bool = False):
        def act() -> None:
            worker.queue.append(script)
            gateway.chat(stream=stream)
        return act

    def broken(x):
        x.stream()
        x.event("one")
        x.sleep(0.02)
        x.close()
    assert errors(gateway, answered(replying(404, b"")), "non_retryable_error") == 1
    assert errors(gateway, answered(replying(500, b"")), "retries_exhausted") == 1
    assert errors(gateway, answered(hanging), "call_upstream_timeout") == 1
    assert errors(gateway, answered(broken, True), "upstream_stream_broken") == 1
    worker.die()
    assert errors(gateway, lambda: gateway.chat(), "call_upstream_connection_failed") == 1
    gateway.remove(worker)
    assert errors(gateway, lambda: gateway.chat(), "no_available_workers") == 1
    metrics = gateway.metrics()
    assert metrics.value("sgl_router_requests_total") == 6
    assert metrics.value("smg_http_responses_total", error_code="no_available_workers",
                         status_code="503") == 1
    kinds = metrics.label_values("smg_router_request_errors_total", "error_type")
    assert kinds <= {"validation_error", "no_workers", "timeout", "backend_error",
                     "internal_error"}
    assert {"timeout", "backend_error"} <= kinds


def test_requests_that_never_were_routed(site: Site):
    """Probes, admin calls and refused requests are no routed requests."""
    gateway = site.gateway("--api-key", "k", workers=[])
    gateway.get("/health")
    gateway.get("/workers")
    gateway.chat(headers={"authorization": "Bearer no"})
    metrics = gateway.metrics()
    assert metrics.value("sgl_router_requests_total") == 0
    assert metrics.value("smg_http_requests_total", path="/health", method="GET") == 1
    assert metrics.value("smg_http_responses_total", status_code="401",
                         error_code="invalid_api_key") == 1


@pytest.mark.parametrize(("path", "endpoint"), [
    ("/generate", "generate"), ("/v1/completions", "completions"), ("/v1/responses", "responses"),
    ("/rerank", "rerank"), ("/v1/rerank", "rerank"), ("/v1/messages", "messages"),
    ("/v1/embeddings", "embeddings"), ("/v1/classify", "classify")])
def test_endpoint_label(gateway: Gateway, worker, path: str, endpoint: str):
    worker.queue.append(replying(200, b"[]" if "rerank" in path else b"{}"))

    def act() -> None:
        assert gateway.post(path, {"model": "metric-model", "query": "q"}).status_code == 200
    before = gateway.metrics()
    act()
    after = gateway.metrics()
    grown = {s.labels["endpoint"] for s in after.find("smg_router_requests_total")
             if s.value > before.value("smg_router_requests_total", **s.labels)}
    assert grown <= {endpoint, "other"}
    assert grown
    assert after.value("sgl_router_requests_total", endpoint=path, route=path) - \
        before.value("sgl_router_requests_total", endpoint=path, route=path) == 1


# --- series -----------------------------------------------------------------------------------

def test_series_of_a_removed_worker_go(site: Site):
    workers = [site.fake(), site.fake()]
    gateway = site.gateway(workers=workers)
    for _ in range(4):
        gateway.chat()
    assert workers[0].url in gateway.metrics().text
    gateway.remove(workers[0])
    text = eventually(lambda: workers[0].url not in (t := gateway.metrics().text) and t, 5)
    assert workers[1].url in text
    assert gateway.metrics().only("sgl_router_active_workers").value == 1


def random_request(rng: random.Random) -> bytes:
    def word() -> str:
        return "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(3, 20)))
    path = rng.choice([f"/{word()}", f"/{word()}/{word()}", f"/workers/{word()}",
                       f"/v1/responses/{word()}", f"/v1/conversations/{word()}/items/{word()}",
                       f"/v1/tokenizers/{word()}", "/v1/chat/completions", "/generate",
                       f"/health?{word()}={word()}", f"/ha/config/{word()}"])
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "PROPFIND"])
    if path in ("/v1/chat/completions", "/generate"):
        method = "POST"
    headers = [(f"X-{word()}", word()), ("X-Request-Id", word()), ("User-Agent", word()),
               ("Authorization", f"Bearer {word()}"), ("X-SMG-Routing-Key", word())]
    if method == "POST":
        return post(path, {"model": word(), "messages": [], "user": word()},
                    [("Content-Type", "application/json"), *headers])
    return request_bytes(method, path, headers)


def bombard(gateway: Gateway, rng: random.Random, count: int) -> None:
    conn = gateway.raw()
    for _ in range(count):
        raw = random_request(rng)
        conn.send(raw)
        conn.read_answer(raw.split(b" ", 1)[0].decode())
        if conn.buffer or conn.fill(0) or conn.ended:
            conn.close()
            conn = gateway.raw()
    conn.close()


def check_series(site: Site, count: int) -> None:
    """06 section 1.9: after the first requests the number of series does not grow."""
    def reply(x):
        x.reply(200, b"{}", [("X-SMG-Error-Code", f"made-up-{x.request.time}")])
    gateway = site.gateway("--disable-retries", "--disable-circuit-breaker",
                           workers=[site.fake(reply)])
    rng = random.Random(5)
    bombard(gateway, rng, 600)
    before = gateway.metrics()
    bombard(gateway, rng, count)
    after = gateway.metrics()
    known = {(s.name, tuple(sorted(s.labels.items()))) for s in before.samples}
    new = [s for s in after.samples if (s.name, tuple(sorted(s.labels.items()))) not in known]
    assert len(new) <= 20, new[:5]
    assert "other" in after.label_values("smg_http_requests_total", "path")
    assert after.label_values("smg_router_requests_total", "model") <= {"unknown", "fake-model"}
    assert after.label_values("smg_http_requests_total", "method") <= {
        "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "OTHER"}


def test_series_do_not_grow(site: Site):
    check_series(site, 2000)


@pytest.mark.slow
def test_series_do_not_grow_long(site: Site):
    check_series(site, 10_000)


def test_scraping_under_load_is_consistent(gateway: Gateway):
    stopping = threading.Event()

    def work() -> None:
        with gateway.raw() as conn:
            raw = post("/v1/chat/completions", chat(model="metric-model"))
            while not stopping.is_set():
                conn.send(raw).read_answer()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    last = 0.0
    for _ in range(30):
        metrics = gateway.metrics()
        now = metrics.value("sgl_router_requests_total")
        assert now >= last, "a counter went back"
        last = now
        name = "sgl_router_request_duration_seconds"
        for series in metrics.find(f"{name}_count"):
            assert metrics.only(f"{name}_bucket", le="+Inf",
                                **series.labels).value == series.value
    stopping.set()
    for thread in threads:
        thread.join()
