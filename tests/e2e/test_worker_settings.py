"""What one worker may set for itself (spec 02, 1.2), worker addresses, the start-up delay."""

from __future__ import annotations

import time

import pytest

from lib.fake_worker import hanging, replying
from lib.site import Site
from lib.wait import Stopwatch, eventually
from test_options import has_ipv6

FAILING = replying(500, b"no")


def is_open(answer) -> bool:
    return answer.headers.get("x-smg-error-code") == "no_available_workers"


# --- resilience -------------------------------------------------------------------------------

@pytest.mark.parametrize(("resilience", "attempts"), [
    ({"max_retries": 2}, 2), ({"disable_retry": True}, 1),
    ({"max_retries": 3, "initial_backoff_ms": 1}, 3)])
def test_own_retries(site: Site, resilience: dict, attempts: int):
    """01 section 6.5: the override of a worker wins over the flags."""
    worker = site.fake(FAILING)
    gateway = site.gateway("--disable-circuit-breaker")
    gateway.add(worker, resilience=resilience)
    assert gateway.chat().status_code == 500
    assert len(worker.requests) == attempts


def test_own_back_off(site: Site):
    worker = site.fake(FAILING)
    gateway = site.gateway()
    gateway.add(worker, resilience={"max_retries": 2, "initial_backoff_ms": 700,
                                    "max_backoff_ms": 700, "jitter_factor": 0})
    watch = Stopwatch()
    gateway.chat()
    assert 0.65 <= watch() < 1.6


def test_own_breaker(site: Site):
    worker = site.fake(FAILING)
    gateway = site.gateway("--disable-retries")
    gateway.add(worker, resilience={"cb_failure_threshold": 2, "cb_timeout_secs": 1,
                                    "cb_success_threshold": 1})
    for _ in range(2):
        assert gateway.chat().status_code == 500
    assert is_open(gateway.chat())
    worker.script = replying(200)
    time.sleep(1.1)
    assert gateway.chat().status_code == 200
    assert gateway.metrics().only("sgl_router_cb_state", worker=worker.url).value == 0


def test_own_breaker_off(site: Site):
    worker = site.fake(FAILING)
    gateway = site.gateway("--disable-retries", "--cb-failure-threshold", "1")
    gateway.add(worker, resilience={"disable_circuit_breaker": True})
    for _ in range(10):
        assert not is_open(gateway.chat())


@pytest.mark.parametrize(("status", "opens"), [(404, True), (429, True), (500, False)])
def test_own_failure_statuses(site: Site, status: int, opens: bool):
    """02 section 5: the list replaces the failure statuses of the breaker, nothing else."""
    worker = site.fake(replying(status, b""))
    gateway = site.gateway("--disable-retries", "--cb-failure-threshold", "2")
    gateway.add(worker, resilience={"retryable_status_codes": [404, 429]})
    for _ in range(4):
        answer = gateway.chat()
    assert is_open(answer) is opens


# --- http_pool --------------------------------------------------------------------------------

def test_own_request_timeout(site: Site):
    worker = site.fake(hanging)
    gateway = site.gateway()
    gateway.add(worker, http_pool={"timeout_secs": 1})
    watch = Stopwatch()
    answer = gateway.chat()
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "call_upstream_timeout"
    assert 0.9 <= watch() < 2.5


def test_own_idle_time(site: Site):
    worker = site.fake()
    gateway = site.gateway()
    gateway.add(worker, http_pool={"pool_idle_timeout_secs": 1})
    gateway.chat()
    watch = Stopwatch()
    eventually(lambda: worker.connections == 0, 5)
    assert watch() < 3.0


def test_own_idle_count(site: Site):
    worker = site.fake()
    gateway = site.gateway()
    gateway.add(worker, http_pool={"pool_max_idle_per_host": 0})
    before = worker.accepted
    for _ in range(4):
        gateway.chat()
    assert worker.accepted - before == 4


# --- where workers live -----------------------------------------------------------------------

def test_worker_by_name(site: Site):
    worker = site.fake()
    gateway = site.gateway("--worker-urls", worker.url.replace("127.0.0.1", "localhost"),
                           wait="live")
    gateway.wait_ready(1)
    assert gateway.chat().status_code == 200
    assert worker.last.get("host") == f"localhost:{worker.port}"


def test_worker_at_ipv6(site: Site):
    if not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    worker = site.fake(host="::1")
    gateway = site.gateway(workers=[worker])
    assert gateway.chat().status_code == 200
    assert worker.last.get("host") == f"[::1]:{worker.port}"
    assert gateway.worker(worker)["url"] == worker.url


def test_worker_whose_name_does_not_resolve(site: Site):
    gateway = site.gateway("--worker-startup-timeout-secs", "2", "--worker-urls",
                           "http://no-such-host.invalid:8000", wait="live")
    assert gateway.chat().status_code == 503
    time.sleep(1)
    assert gateway.get("/health").text == "OK", "a name that hangs or fails stops nothing"


# --- the start-up delay -----------------------------------------------------------------------

def test_startup_delay(site: Site):
    worker = site.fake()
    gateway = site.gateway("--worker-startup-delay", "2", workers=[worker], wait="live")
    time.sleep(1.0)
    assert worker.log == []
    eventually(lambda: gateway.get("/readiness").status_code == 200, 6)
