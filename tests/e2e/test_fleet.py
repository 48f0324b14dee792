"""The fleet over time: late workers, health, draining, changes under load (spec 02, section 4)."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from lib.fake_worker import hanging, replying
from lib.gateway import Gateway, chat
from lib.rawhttp import post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually, steady

CHAT = post("/v1/chat/completions", chat())
FIRST = b'data: {"n": 1}\n\n'


# --- start ------------------------------------------------------------------------------------

def test_starts_without_any_worker(site: Site):
    gateway = site.gateway()
    assert gateway.get("/liveness").text == "OK"
    assert gateway.get("/health").text == "OK"
    answer = gateway.get("/readiness")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "reason": "insufficient healthy workers"}


def test_serving_does_not_wait_for_workers(site: Site):
    worker = site.fake()
    worker.die()
    gateway = site.gateway(workers=[worker], wait="live")
    answer = gateway.chat()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_available_workers"
    worker.start()
    eventually(lambda: gateway.get("/readiness").status_code == 200, 6)
    assert gateway.chat().status_code == 200


def test_one_up_one_down(site: Site):
    up, down = site.fake(), site.fake()
    down.die()
    gateway = site.gateway(workers=[up, down], wait="live")
    expected = {"status": "ready", "healthy_workers": 1, "total_workers": 2}
    eventually(lambda: gateway.readiness() == expected, 6,
               what="a worker that is starting counts in total_workers")
    for _ in range(5):
        assert gateway.chat().status_code == 200
    down.start()
    expected = {"status": "ready", "healthy_workers": 2, "total_workers": 2}
    eventually(lambda: gateway.readiness() == expected, 6)


def test_worker_that_answers_errors_at_first(site: Site):
    worker = site.fake()
    worker.set_health(False)
    gateway = site.gateway(workers=[worker], wait="live")
    eventually(lambda: len(worker.seen("/health")) >= 2, 6)
    assert gateway.get("/readiness").status_code == 503
    worker.set_health(True)
    eventually(lambda: gateway.get("/readiness").status_code == 200, 6)


def test_startup_timeout_gives_up_but_the_gateway_lives(site: Site):
    dead = f"http://127.0.0.1:{site.unused_port()}"
    gateway = site.gateway("--worker-startup-timeout-secs", "2", workers=[dead], wait="live")
    time.sleep(4)
    assert gateway.alive()
    assert gateway.get("/readiness").status_code == 503
    assert gateway.get("/workers").json()["total"] == 0


def test_listed_twice_is_one_worker(site: Site):
    worker = site.fake()
    gateway = site.gateway("--worker-urls", worker.url, worker.url + "/", worker.url,
                           wait="live")
    eventually(lambda: gateway.get("/readiness").status_code == 200, 6)
    assert [w["url"] for w in gateway.workers()] == [worker.url]


# --- health -----------------------------------------------------------------------------------

HEALTH = ("--health-check-interval-secs", "1", "--health-failure-threshold", "2",
          "--health-success-threshold", "2")


def status(gateway: Gateway, worker) -> str:
    return gateway.worker(worker)["status"]


def test_health_thresholds(site: Site):
    sick, well = site.fake(), site.fake()
    gateway = site.gateway(*HEALTH, "--policy", "round_robin", workers=[sick, well])
    sick.set_health(False)
    sick.clear()
    eventually(lambda: status(gateway, sick) == "not_ready", 8)
    assert len(sick.seen("/health")) >= 2, "one bad probe is not enough"
    assert gateway.worker(sick)["is_healthy"] is False
    assert gateway.readiness() == {"status": "ready", "healthy_workers": 1, "total_workers": 2}
    sick.clear()
    for _ in range(6):
        assert gateway.chat().status_code == 200
    assert sick.requests == []
    sick.set_health(True)
    sick.clear()
    eventually(lambda: status(gateway, sick) == "ready", 8)
    assert len(sick.seen("/health")) >= 2, "one good probe is not enough"
    sick.clear()
    for _ in range(6):
        assert gateway.chat().status_code == 200
    assert len(sick.requests) == 3


def test_one_bad_probe_changes_nothing(site: Site):
    worker = site.fake()
    gateway = site.gateway("--health-check-interval-secs", "1", workers=[worker])
    worker.clear()
    eventually(lambda: worker.seen("/health"), 5)
    worker.set_health(False)
    worker.clear()
    eventually(lambda: worker.seen("/health"), 5)
    worker.set_health(True)
    steady(lambda: status(gateway, worker) == "ready", 2.5)


def test_all_unhealthy(site: Site):
    worker = site.fake()
    gateway = site.gateway(*HEALTH, workers=[worker])
    worker.set_health(False)
    eventually(lambda: gateway.get("/readiness").status_code == 503, 8)
    answer = gateway.chat()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_available_workers"
    assert gateway.get("/liveness").text == gateway.get("/health").text == "OK"


def test_slow_probe_counts_as_bad(site: Site):
    worker = site.fake()
    gateway = site.gateway(*HEALTH, "--health-check-timeout-secs", "1", workers=[worker])
    worker.routes["/health"] = hanging
    eventually(lambda: status(gateway, worker) == "not_ready", 10)
    worker.set_health(True)
    eventually(lambda: status(gateway, worker) == "ready", 8)


@pytest.mark.parametrize("code", [200, 204, 299])
def test_any_2xx_is_good(site: Site, code: int):
    worker = site.fake()
    worker.routes["/health"] = replying(code, b"")
    gateway = site.gateway(*HEALTH, workers=[worker])
    time.sleep(2.5)
    assert status(gateway, worker) == "ready"


@pytest.mark.parametrize("code", [302, 404, 500])
def test_no_other_status_is_good(site: Site, code: int):
    worker = site.fake()
    gateway = site.gateway(*HEALTH, workers=[worker])
    worker.routes["/health"] = replying(code, b"")
    eventually(lambda: status(gateway, worker) == "not_ready", 8)


def test_own_health_path(site: Site):
    worker = site.fake()
    worker.routes["/custom/ping"] = replying(200, b"pong")
    gateway = site.gateway(*HEALTH, "--health-check-endpoint", "/custom/ping", workers=[worker])
    eventually(lambda: len(worker.seen("/custom/ping")) >= 2, 6)
    worker.routes["/custom/ping"] = replying(500, b"no")
    eventually(lambda: status(gateway, worker) == "not_ready", 8)


def test_disabled_health_check(site: Site):
    worker = site.fake()
    gateway = site.gateway("--disable-health-check", "--health-check-interval-secs", "1",
                           workers=[worker])
    worker.set_health(False)
    worker.clear()
    time.sleep(3)
    assert worker.seen("/health") == []
    assert status(gateway, worker) == "ready"


def test_failed_worker_is_still_probed_and_heals(site: Site):
    """02 section 4.6 [DO]: failed is not terminal."""
    worker = site.fake()
    gateway = site.gateway("--health-check-interval-secs", "1", "--health-failure-threshold",
                           "1", "--health-success-threshold", "1", workers=[worker])
    worker.set_health(False)
    eventually(lambda: status(gateway, worker) == "not_ready", 6)
    eventually(lambda: status(gateway, worker) == "failed", 12)
    worker.set_health(True)
    worker.model = "changed-model"
    eventually(lambda: status(gateway, worker) == "ready", 25)
    eventually(lambda: [m["id"] for m in gateway.get("/v1/models").json()["data"]]
               == ["changed-model"], 10, what="capabilities discovered again")


def test_unhealthy_workers_can_be_removed(site: Site):
    worker = site.fake()
    gateway = site.gateway("--health-check-interval-secs", "1", "--health-failure-threshold",
                           "1", "--remove-unhealthy-workers", workers=[worker])
    worker.set_health(False)
    eventually(lambda: gateway.get("/workers").json()["total"] == 0, 15)


def test_refused_connection_triggers_a_probe(site: Site):
    """02 section 4.6 [DO]: passive detection, long before the next regular probe."""
    worker, other = site.fake(), site.fake()
    gateway = site.gateway("--health-check-interval-secs", "600", "--health-failure-threshold",
                           "1", "--policy", "round_robin", workers=[worker, other])
    worker.die()
    for _ in range(2):
        assert gateway.chat().status_code == 200
    eventually(lambda: status(gateway, worker) == "not_ready", 5)


def test_per_worker_health_settings(site: Site):
    worker = site.fake()
    gateway = site.gateway()
    gateway.add(worker, health={"check_interval_secs": 1, "failure_threshold": 1})
    worker.set_health(False)
    eventually(lambda: status(gateway, worker) == "not_ready", 6)
    silent = site.fake()
    gateway.add(silent, health={"check_interval_secs": 1, "disable_health_check": True})
    silent.clear()
    time.sleep(2.5)
    assert silent.seen("/health") == []


def test_flat_health_settings(site: Site):
    """The 0.3.2 payload: health_* keys at the top."""
    worker = site.fake()
    gateway = site.gateway()
    gateway.add(worker, health_check_interval_secs=1, health_failure_threshold=1)
    worker.set_health(False)
    eventually(lambda: status(gateway, worker) == "not_ready", 6)


# --- spreading and counting -------------------------------------------------------------------

def test_round_robin_is_even(site: Site):
    workers = [site.fake() for _ in range(3)]
    gateway = site.gateway("--policy", "round_robin", workers=workers)
    for _ in range(30):
        gateway.chat()
    assert [len(w.requests) for w in workers] == [10, 10, 10]


def test_random_uses_all(site: Site):
    workers = [site.fake() for _ in range(3)]
    gateway = site.gateway("--policy", "random", workers=workers)
    for _ in range(90):
        gateway.chat()
    counts = [len(w.requests) for w in workers]
    assert sum(counts) == 90
    assert min(counts) >= 10, counts


def test_model_name_does_not_choose(site: Site):
    """D11: outside IGW the model is ignored for selection and forwarded as it is."""
    workers = [site.fake(model="a"), site.fake(model="b")]
    gateway = site.gateway("--policy", "round_robin", workers=workers)
    for _ in range(4):
        assert gateway.chat(model="a").status_code == 200
    assert [len(w.requests) for w in workers] == [2, 2]
    assert {r.json()["model"] for r in workers[1].requests} == {"a"}


@pytest.mark.parametrize("policy", ["round_robin", "random"])
def test_load_counts_from_selection_to_the_last_byte(site: Site, policy: str):
    gate = threading.Event()

    def script(x):
        x.stream()
        x.chunk(FIRST)
        gate.wait(30)
        x.end()
    workers = [site.fake(script) for _ in range(2)]
    gateway = site.gateway("--policy", policy, workers=workers)
    conns = [gateway.raw().send(post("/v1/chat/completions", chat(stream=True)))
             for _ in range(12)]
    bodies = [conn.body_of(conn.read_head()) for conn in conns]
    for body in bodies:
        body.read_until(FIRST)
    loads = [gateway.load(w) for w in workers]
    assert sum(loads) == 12
    assert loads == [len(w.requests) for w in workers]
    if policy == "round_robin":
        assert loads == [6, 6]
    gate.set()
    for body in bodies:
        assert body.read_to_end().complete
    eventually(lambda: [gateway.load(w) for w in workers] == [0, 0], 2)
    for conn in conns:
        conn.close()


def test_load_counts_requests_without_an_answer_yet(site: Site):
    worker = site.fake(hanging)
    gateway = site.gateway(workers=[worker])
    conns = [gateway.raw().send(CHAT) for _ in range(5)]
    eventually(lambda: gateway.load(worker) == 5, 5)
    for conn in conns:
        conn.close()
    eventually(lambda: gateway.load(worker) == 0, 3)


# --- draining ---------------------------------------------------------------------------------

def streaming_worker(site: Site, gate: threading.Event):
    def script(x):
        x.stream()
        x.chunk(FIRST)
        gate.wait(60)
        x.chunk(FIRST)
        x.end()
    return site.fake(script)


def test_removal_drains(site: Site):
    gate = threading.Event()
    worker, other = streaming_worker(site, gate), site.fake()
    gateway = site.gateway("--drain-settle-secs", "30", "--policy", "round_robin")
    worker_id = gateway.add(worker)
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=True)))
        body = conn.body_of(conn.read_head())
        body.read_until(FIRST)
        gateway.add(other)
        gateway.remove(worker, wait=False)
        eventually(lambda: gateway.get(f"/workers/{worker_id}").json()["status"] == "draining",
                   5)
        for _ in range(6):
            assert gateway.chat().status_code == 200
        assert len(worker.requests) == 1, "a draining worker gets nothing new"
        assert gateway.load(worker) == 1
        gate.set()
        assert bytes(body.read_to_end().data) == FIRST * 2
        watch = Stopwatch()
        eventually(lambda: gateway.get(f"/workers/{worker_id}").status_code == 404, 10)
        assert watch() < 5, "it leaves when its load is 0, not after the settle time"


def test_drain_has_an_end_but_streams_go_on(site: Site):
    gate = threading.Event()
    worker = streaming_worker(site, gate)
    gateway = site.gateway("--drain-settle-secs", "1")
    worker_id = gateway.add(worker)
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=True)))
        body = conn.body_of(conn.read_head())
        body.read_until(FIRST)
        gateway.remove(worker, wait=False)
        eventually(lambda: gateway.get(f"/workers/{worker_id}").status_code == 404, 5)
        gate.set()
        assert bytes(body.read_to_end().data) == FIRST * 2


def test_drain_settle_zero_is_at_once(site: Site):
    gate = threading.Event()
    worker = streaming_worker(site, gate)
    gateway = site.gateway("--drain-settle-secs", "0")
    gateway.add(worker)
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=True)))
        body = conn.body_of(conn.read_head())
        body.read_until(FIRST)
        watch = Stopwatch()
        gateway.remove(worker)
        assert watch() < 2.0
        gate.set()
        assert bytes(body.read_to_end().data) == FIRST * 2


# --- changes under load -----------------------------------------------------------------------

class Load:
    """Threads that send chats on kept connections until stopped; counts the statuses."""

    def __init__(self, gateway: Gateway, threads: int = 4, stream: bool = False) -> None:
        self.gateway = gateway
        self.stream = stream
        self.statuses: Counter = Counter()
        self.faults: list[str] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self) -> None:
        conn = self.gateway.raw()
        raw = post("/v1/chat/completions", chat(stream=self.stream))
        while not self.stopping.is_set():
            try:
                answer = conn.send(raw).read_answer()
                self.statuses[answer.status] += 1
                if answer.status != 200 or b"upstream_stream_broken" in answer.body:
                    self.faults.append(f"{answer.status} {answer.body[:200]!r}")
            except Exception as err:
                self.faults.append(f"{type(err).__name__}: {err}")
                conn = self.gateway.raw()
        conn.close()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("stream", [False, True])
def test_adding_and_removing_under_load(site: Site, stream: bool):
    """02 section 9.1 no. 7: no 5xx, whatever comes and goes."""
    mock = site.mock("--output-tokens", "4", count=4)
    gateway = site.gateway(workers=mock.urls[:2])
    load = Load(gateway, stream=stream)
    for _ in range(4):
        gateway.add(mock.urls[2])
        gateway.add(mock.urls[3])
        time.sleep(0.1)
        gateway.remove(mock.urls[2])
        gateway.remove(mock.urls[3])
    load.stop()
    assert load.faults == []
    assert load.statuses[200] > 50


def test_killing_a_worker_under_load(site: Site):
    """02 section 9.1 no. 1: kill one of two, no client-visible failure of unstreamed requests."""
    mocks = [site.mock("--output-tokens", "4") for _ in range(2)]
    gateway = site.gateway(workers=mocks)
    load = Load(gateway)
    time.sleep(0.5)
    mocks[0].kill()
    time.sleep(1.5)
    load.stop()
    assert load.faults == []
    assert load.statuses[200] > 50


def test_killed_worker_ends_its_streams_with_an_error_event(site: Site):
    mock = site.mock("--tokens-per-second", "20", "--output-tokens", "200")
    gateway = site.gateway(workers=[mock])
    with gateway.raw() as conn:
        conn.send(post("/v1/chat/completions", chat(stream=True, max_tokens=200)))
        body = conn.body_of(conn.read_head())
        body.read_until(b"data: ")
        mock.kill()
        body.read_to_end()
        assert body.complete
        assert b'"code":"upstream_stream_broken"' in bytes(body.data).replace(b" ", b"")
        assert b"[DONE]" not in body.data
        conn.send(request_bytes("GET", "/health"))
        assert conn.read_answer().body == b"OK"


def test_worker_that_comes_back_is_used_again(site: Site):
    worker, other = site.fake(), site.fake()
    gateway = site.gateway(*HEALTH, "--policy", "round_robin", "--cb-failure-threshold", "2",
                           "--cb-timeout-duration-secs", "1", workers=[worker, other])
    worker.die()
    eventually(lambda: status(gateway, worker) == "not_ready", 10)
    worker.start()
    eventually(lambda: status(gateway, worker) == "ready", 10)
    worker.clear()

    def used():
        gateway.chat()
        return worker.requests
    eventually(used, 10)


def test_same_port_new_process(site: Site):
    """A worker that is replaced by another one on the same address: the pool notices."""
    worker = site.fake(replying(200, b'{"old":1}'))
    gateway = site.gateway(workers=[worker])
    assert gateway.chat().content == b'{"old":1}'
    worker.die()
    worker.script = replying(200, b'{"new":1}')
    worker.start()
    for _ in range(3):
        assert gateway.chat().content == b'{"new":1}'
