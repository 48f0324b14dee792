"""The retry loop (spec 01 section 6.5, 02 section 6) and the circuit breaker (02 section 5)."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from lib.fake_worker import FakeWorker, closing, hanging, replying, resetting
from lib.gateway import Gateway, chat
from lib.rawhttp import post
from lib.site import Site
from lib.wait import Stopwatch, eventually

QUICK = ("--retry-initial-backoff-ms", "1", "--retry-max-backoff-ms", "5",
         "--disable-circuit-breaker", "--policy", "round_robin")


def gaps(worker: FakeWorker) -> list[float]:
    times = [r.time for r in worker.requests]
    return [b - a for a, b in itertools.pairwise(times)]


# --- what is retried --------------------------------------------------------------------------

@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_retryable_status_is_tried_again(site: Site, status: int):
    bad, good = site.fake(replying(status, b"no")), site.fake()
    gateway = site.gateway(*QUICK, workers=[bad, good])
    for _ in range(4):
        assert gateway.chat().status_code == 200
    assert 1 <= len(bad.requests) <= 4
    assert len(good.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 418, 422, 501, 505])
def test_other_status_is_final(site: Site, status: int):
    worker = site.fake(replying(status, b"no"))
    gateway = site.gateway(*QUICK, workers=[worker])
    assert gateway.chat().status_code == status
    assert len(worker.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_streamed_reply_is_retried_on_its_status(site: Site, stream: bool):
    bad, good = site.fake(replying(503, b"busy")), site.fake(replying(200, b"{}"))
    gateway = site.gateway(*QUICK, workers=[bad, good])
    for _ in range(4):
        assert gateway.chat(stream=stream).status_code == 200
    assert len(good.requests) == 4


@pytest.mark.parametrize("script", [closing, resetting], ids=["close", "reset"])
def test_transport_failure_is_tried_again(site: Site, script):
    bad, good = site.fake(script), site.fake()
    gateway = site.gateway(*QUICK, workers=[bad, good])
    for _ in range(6):
        assert gateway.chat().status_code == 200
    assert len(good.requests) == 6
    assert bad.requests


def test_dead_worker_beside_a_good_one_is_never_seen(site: Site):
    """02 section 9.1 no. 1, with default flags."""
    dead, good = site.fake(), site.fake()
    gateway = site.gateway(workers=[dead, good])
    dead.die()
    for _ in range(30):
        assert gateway.chat().status_code == 200
    assert len(good.requests) == 30


def test_body_and_headers_are_the_same_in_every_attempt(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway(*QUICK, workers=[worker])
    body = b'{ "model":"m", "messages" : [], "pad":"' + b"p" * 200_000 + b'"}'
    gateway.post("/v1/chat/completions", body, {"x-request-id": "same", "traceparent": "t"})
    assert len(worker.requests) == 5
    assert {r.body for r in worker.requests} == {body}
    assert {r.raw_head for r in worker.requests} == {worker.requests[0].raw_head}


def test_gets_are_never_retried(site: Site):
    worker = site.fake()
    gateway = site.gateway(*QUICK, workers=[worker])
    worker.routes["/get_model_info"] = replying(503, b"no")
    worker.clear()
    assert gateway.get("/get_model_info").status_code == 503
    assert len(worker.seen("/get_model_info")) == 1


# --- which worker, how often ------------------------------------------------------------------

def test_each_attempt_takes_another_worker(site: Site):
    bad = [site.fake(replying(500, b"no")) for _ in range(3)]
    good = site.fake()
    gateway = site.gateway(*QUICK, workers=[*bad, good])
    for turn in range(1, 9):
        for worker in bad:
            worker.clear()
        assert gateway.chat().status_code == 200
        assert all(len(w.requests) <= 1 for w in bad), f"turn {turn}"


def test_tried_workers_are_used_again_when_none_is_left(site: Site):
    workers = [site.fake(replying(500, b"no")) for _ in range(2)]
    gateway = site.gateway(*QUICK, workers=workers)
    assert gateway.chat().status_code == 500
    assert sorted(len(w.requests) for w in workers) == [2, 3]


@pytest.mark.parametrize(("flags", "attempts"), [
    ([], 5), (["--retry-max-retries", "1"], 1), (["--retry-max-retries", "3"], 3),
    (["--disable-retries"], 1), (["--disable-retries", "--retry-max-retries", "4"], 1),
])
def test_number_of_attempts(site: Site, flags: list[str], attempts: int):
    worker = site.fake(replying(500, b'{"why":"worker"}', [("X-Why", "yes")]))
    gateway = site.gateway(*QUICK, *flags, workers=[worker])
    answer = gateway.chat()
    assert len(worker.requests) == attempts
    assert answer.status_code == 500
    assert answer.content == b'{"why":"worker"}', "the last attempt's answer, unchanged"
    assert answer.headers["x-why"] == "yes"
    assert "x-smg-error-code" not in answer.headers


# --- back-off ---------------------------------------------------------------------------------

def test_back_off_grows(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway("--retry-max-retries", "4", "--retry-initial-backoff-ms", "100",
                           "--retry-backoff-multiplier", "2", "--retry-jitter-factor", "0",
                           "--disable-circuit-breaker", workers=[worker])
    gateway.chat()
    for gap, expected in zip(gaps(worker), [0.1, 0.2, 0.4], strict=True):
        assert expected - 0.005 <= gap < expected + 0.15, gaps(worker)


def test_back_off_has_a_ceiling(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway("--retry-initial-backoff-ms", "100", "--retry-max-backoff-ms", "150",
                           "--retry-backoff-multiplier", "10", "--retry-jitter-factor", "0",
                           "--disable-circuit-breaker", workers=[worker])
    gateway.chat()
    for gap, expected in zip(gaps(worker), [0.1, 0.15, 0.15, 0.15], strict=True):
        assert expected - 0.005 <= gap < expected + 0.15, gaps(worker)


def test_jitter_stays_within_its_factor(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway("--retry-initial-backoff-ms", "200", "--retry-jitter-factor", "0.5",
                           "--retry-backoff-multiplier", "1", "--disable-circuit-breaker",
                           workers=[worker])
    gateway.chat()
    found = gaps(worker)
    assert all(0.095 <= gap < 0.4 for gap in found), found
    assert max(found) - min(found) > 0.002, found


def test_first_retry_after_a_refusal_is_immediate(site: Site):
    dead, good = site.fake(), site.fake()
    gateway = site.gateway("--retry-initial-backoff-ms", "3000", "--policy", "round_robin",
                           workers=[dead, good])
    dead.die()
    for _ in range(4):
        watch = Stopwatch()
        assert gateway.chat().status_code == 200
        assert watch() < 1.5, "waited although another worker was free"


def test_retry_after_is_honoured(site: Site):
    site.need_flag("--retry-budget-percent")  # 02 section 6 comes whole, with the flow issue
    worker = site.fake(replying(503, b"busy", [("Retry-After", "1")]))
    gateway = site.gateway("--retry-max-retries", "2", "--retry-initial-backoff-ms", "1",
                           workers=[worker])
    gateway.chat()
    assert len(worker.requests) == 2
    assert 0.95 <= gaps(worker)[0] < 2.0


# --- budget -----------------------------------------------------------------------------------

def hammer(gateway: Gateway, count: int) -> float:
    watch = Stopwatch()
    for _ in range(count):
        assert gateway.chat().status_code == 500
    return watch()


def test_retry_budget_stops_a_storm(site: Site):
    """At most 20 % of the requests of the last 10 s, and 10 a second in any case."""
    site.need_flag("--retry-budget-percent")
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway(*QUICK, workers=[worker])
    took = hammer(gateway, 200)
    retries = len(worker.requests) - 200
    assert retries <= 200 * 0.2 + 10 * (took + 2), (retries, took)
    assert retries >= 10


def test_no_retry_budget(site: Site):
    site.need_flag("--retry-budget-percent")
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway(*QUICK, "--retry-budget-percent", "0", workers=[worker])
    hammer(gateway, 60)
    assert len(worker.requests) == 300


# --- keep-alive race --------------------------------------------------------------------------

class Racing:
    """Answers the first request of each connection; on a later one does as told."""

    def __init__(self, then) -> None:
        self.then = then

    def __call__(self, x) -> None:
        if x.request.number_on_connection == 1 or x.request.path != "/v1/chat/completions":
            x.reply(200, {"fine": True})
        else:
            self.then(x)


@pytest.mark.parametrize("then", [closing, resetting], ids=["close", "reset"])
def test_keep_alive_race_is_replaced_silently(site: Site, then):
    worker = site.fake(Racing(then))
    gateway = site.gateway("--disable-retries", "--cb-failure-threshold", "1",
                           "--runtime-worker-threads", "1", workers=[worker])
    for _ in range(10):
        assert gateway.chat().status_code == 200
    assert any(r.number_on_connection > 1 for r in worker.requests), "no race took place"
    metrics = gateway.metrics()
    assert metrics.value("sgl_router_cb_outcomes_total", outcome="failure") == 0
    assert metrics.value("sgl_router_retries_total") == 0
    assert metrics.value("smg_worker_retries_total") == 0


def test_worker_that_closes_idle_connections_is_no_failure(site: Site):
    def answer_and_close(x):
        x.reply(200, {"fine": True})
        x.close()
    worker = site.fake(answer_and_close)
    gateway = site.gateway("--disable-retries", "--cb-failure-threshold", "1", workers=[worker])
    for pause in (0, 0, 0.01, 0.05, 0, 0.1):
        time.sleep(pause)
        assert gateway.chat().status_code == 200


def test_race_is_replaced_only_once(site: Site):
    """The fresh connection dies too: that is a real failure."""
    worker = site.fake()
    gateway = site.gateway("--disable-retries", "--runtime-worker-threads", "1",
                           workers=[worker])
    assert gateway.chat().status_code == 200
    worker.clear()
    worker.script = closing
    answer = gateway.chat()
    assert answer.status_code == 502
    assert len(worker.requests) <= 2


def test_no_replacement_once_a_byte_came(site: Site):
    def first_bytes_then_close(x):
        x.send(b"HTTP/1.1 200 OK\r\nConte")
        x.sleep(0.05)
        x.close()
    worker = site.fake(Racing(first_bytes_then_close))
    gateway = site.gateway("--disable-retries", "--runtime-worker-threads", "1",
                           workers=[worker])
    assert gateway.chat().status_code == 200
    before = len(worker.requests)
    statuses = [gateway.chat().status_code for _ in range(2)]
    assert 502 in statuses
    assert len(worker.requests) - before == 2


# --- the circuit breaker ----------------------------------------------------------------------

BREAKER = ("--disable-retries", "--cb-failure-threshold", "3", "--cb-success-threshold", "2",
           "--cb-timeout-duration-secs", "1", "--policy", "round_robin")


def is_open(answer) -> bool:
    return answer.status_code == 503 and answer.headers.get("x-smg-error-code") == \
        "no_available_workers"


def state(gateway: Gateway, worker: FakeWorker) -> float:
    metrics = gateway.metrics()
    legacy = metrics.only("sgl_router_cb_state", worker=worker.url).value
    assert metrics.only("smg_worker_cb_state", worker=worker.url).value == legacy
    return legacy


def open_breaker(gateway: Gateway, worker: FakeWorker) -> None:
    worker.script = replying(500, b"no")
    for _ in range(3):
        assert gateway.chat().status_code == 500
    assert is_open(gateway.chat())


FAILURES = {
    "500": replying(500, b""), "502": replying(502, b""), "504": replying(504, b""),
    "503": replying(503, b""), "close": closing, "reset": resetting,
}
NO_FAILURES = {
    "400": replying(400, b""), "401": replying(401, b""), "404": replying(404, b""),
    "422": replying(422, b""), "408": replying(408, b""), "429": replying(429, b""),
    "503 with retry-after": replying(503, b"", [("Retry-After", "1")]), "200": replying(200),
}


@pytest.mark.parametrize("name", FAILURES)
def test_breaker_opens_on(site: Site, name: str):
    worker = site.fake(FAILURES[name])
    gateway = site.gateway(*BREAKER, workers=[worker])
    for _ in range(3):
        answer = gateway.chat()
        assert answer.status_code >= 500 and not is_open(answer)
    worker.clear()
    assert is_open(gateway.chat())
    assert worker.requests == [], "an open circuit lets nothing through"
    assert state(gateway, worker) == 1


@pytest.mark.parametrize("name", NO_FAILURES)
def test_breaker_stays_closed_on(site: Site, name: str):
    worker = site.fake(NO_FAILURES[name])
    gateway = site.gateway(*BREAKER, workers=[worker])
    for _ in range(12):
        gateway.chat()
    assert len(worker.requests) == 12
    assert state(gateway, worker) == 0


def test_neutral_outcomes_are_not_recorded(site: Site):
    worker = site.fake(replying(429, b""))
    gateway = site.gateway(*BREAKER, workers=[worker])
    for _ in range(5):
        gateway.chat()
    assert gateway.metrics().value("sgl_router_cb_outcomes_total", worker=worker.url) == 0


def test_broken_stream_is_a_failure(site: Site):
    def breaks(x):
        x.stream()
        x.event("one")
        x.sleep(0.02)
        x.close()
    worker = site.fake(breaks)
    gateway = site.gateway(*BREAKER, workers=[worker])
    for _ in range(3):
        assert "upstream_stream_broken" in gateway.chat(stream=True).text
    assert is_open(gateway.chat(stream=True))


def test_head_timeout_is_a_failure(site: Site):
    worker = site.fake(hanging)
    gateway = site.gateway(*BREAKER, "--first-byte-timeout-secs", "1", workers=[worker])
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(gateway.chat()))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.status_code for a in answers] == [504] * 3
    assert is_open(gateway.chat())


def test_success_in_between_keeps_a_consecutive_count_down(site: Site):
    """Two failures, a success, two failures: never three in a row, and under half of 7."""
    worker = site.fake()
    gateway = site.gateway(*BREAKER, workers=[worker])
    for script in [replying(200)] * 3 + [replying(500)] * 2 + [replying(200)] + \
            [replying(500)] + [replying(200)] * 2:
        worker.queue.append(script)
        gateway.chat()
    assert state(gateway, worker) == 0


def test_half_of_the_window_failing_opens(site: Site):
    """02 section 5 and 9.1 no. 8: every second request fails, so never F in a row."""
    worker = site.fake()
    gateway = site.gateway(*BREAKER, workers=[worker])
    for number in range(12):
        worker.queue.append(replying(500 if number % 2 else 200))
    for _ in range(12):
        gateway.chat()
    assert state(gateway, worker) == 1


def test_breaker_closes_again(site: Site):
    worker = site.fake()
    gateway = site.gateway(*BREAKER, workers=[worker])
    open_breaker(gateway, worker)
    worker.script = replying(200)
    assert is_open(gateway.chat()), "still open before the time is over"
    time.sleep(1.1)
    assert gateway.chat().status_code == 200
    assert state(gateway, worker) == 2
    assert gateway.chat().status_code == 200
    assert state(gateway, worker) == 0
    metrics = gateway.metrics()
    for old, new in [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]:
        for name in ("sgl_router_cb_state_transitions_total", "smg_worker_cb_transitions_total"):
            labels = {"worker": worker.url, "from": old, "to": new}
            assert metrics.value(name, **labels) == 1, (name, labels)


def test_failure_in_half_open_reopens_for_twice_the_time(site: Site):
    worker = site.fake()
    gateway = site.gateway(*BREAKER, workers=[worker])
    open_breaker(gateway, worker)
    time.sleep(1.1)
    assert gateway.chat().status_code == 500
    assert is_open(gateway.chat())
    time.sleep(1.2)
    assert is_open(gateway.chat()), "the second time is twice the first"
    worker.script = replying(200)
    time.sleep(1.0)
    assert gateway.chat().status_code == 200


def test_half_open_admits_only_a_few(site: Site):
    """At most S at once, so that a recovering worker is not overrun."""
    worker = site.fake()
    gateway = site.gateway(*BREAKER, workers=[worker])
    open_breaker(gateway, worker)
    worker.script = lambda x: (x.sleep(0.5), x.reply(200, {}))
    worker.clear()
    time.sleep(1.1)
    conns = [gateway.raw().send(post("/v1/chat/completions", chat())) for _ in range(10)]
    statuses = sorted(conn.read_answer().status for conn in conns)
    for conn in conns:
        conn.close()
    assert statuses == [200] * 2 + [503] * 8
    assert len(worker.requests) == 2


def test_good_probe_counts_as_a_half_open_success(site: Site):
    worker = site.fake()
    gateway = site.gateway(*BREAKER, "--health-check-interval-secs", "1", workers=[worker])
    open_breaker(gateway, worker)
    worker.script = replying(200)
    eventually(lambda: state(gateway, worker) == 0, 8, what="closed by probes alone")
    assert gateway.chat().status_code == 200


def test_circuits_are_apart(site: Site):
    bad, good = site.fake(replying(500, b"no")), site.fake()
    gateway = site.gateway(*BREAKER, workers=[bad, good])
    for _ in range(12):
        gateway.chat()
    assert (state(gateway, bad), state(gateway, good)) == (1, 0)
    assert len(bad.requests) == 3
    bad.clear()
    assert {gateway.chat().status_code for _ in range(6)} == {200}
    assert bad.requests == []


def test_disabled_breaker_never_opens(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway(*BREAKER, "--disable-circuit-breaker", workers=[worker])
    for _ in range(30):
        assert gateway.chat().status_code == 500
    assert len(worker.requests) == 30
    metrics = gateway.metrics()
    assert metrics.value("sgl_router_cb_outcomes_total", outcome="failure") == 30
    assert metrics.value("smg_worker_cb_consecutive_failures", worker=worker.url) == 30


def test_fail_open_uses_the_least_recently_opened(site: Site):
    worker = site.fake()
    gateway = site.gateway("--disable-retries", "--cb-failure-threshold", "3", "--cb-fail-open",
                           workers=[worker])
    worker.script = replying(500, b"no")
    for _ in range(6):
        assert gateway.chat().status_code == 500
    assert state(gateway, worker) == 1


def test_open_circuit_is_not_unhealthy(site: Site):
    """The breaker does not change health: /readiness and /workers go on saying healthy."""
    worker = site.fake()
    gateway = site.gateway(*BREAKER, workers=[worker])
    open_breaker(gateway, worker)
    assert gateway.worker(worker)["status"] == "ready"
    assert gateway.get("/readiness").status_code == 200


# --- what metrics say of retries --------------------------------------------------------------

def test_retry_metrics(site: Site):
    worker = site.fake(replying(500, b"no"))
    gateway = site.gateway(*QUICK, workers=[worker])
    gateway.chat()
    metrics = gateway.metrics()
    route = "/v1/chat/completions"
    assert metrics.value("sgl_router_retries_total", route=route) == 4
    assert metrics.value("sgl_router_retries_exhausted_total", route=route) == 1
    assert metrics.value("smg_worker_retries_total", worker_type="regular", endpoint="chat") == 4
    assert metrics.value("smg_worker_retries_exhausted_total", endpoint="chat") == 1
    for attempt in "1234":
        assert metrics.value("sgl_router_retry_backoff_duration_seconds_count",
                             attempt=attempt) == 1
    assert metrics.value("smg_router_upstream_responses_total", status_code="500") == 5
    assert metrics.value("sgl_router_request_errors_total", route=route,
                         error_type="retries_exhausted") == 1
    assert metrics.value("smg_worker_errors_total", worker_type="regular") == 5
