"""Going down (spec 01, section 8.3): readiness first, then the listener, streams to their end."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import pytest

from lib import env
from lib.gateway import Gateway, chat
from lib.rawhttp import RawConn, post, request_bytes
from lib.site import Site
from lib.wait import Stopwatch, eventually

FIRST = b'data: {"n": 1}\n\n'
CHAT_STREAM = post("/v1/chat/completions", chat(stream=True))
READINESS = request_bytes("GET", "/readiness")
SETTLE = ("--shutdown-settle-secs", "2", "--shutdown-grace-period-secs", "20")


class Held:
    """A worker whose streams go on until released."""

    def __init__(self, site: Site) -> None:
        self.gate = threading.Event()
        self.worker = site.fake(self.script)

    def script(self, x) -> None:
        if not x.request.json().get("stream"):
            self.gate.wait(60)
            x.reply(200, b'{"late":1}')
            return
        x.stream()
        x.chunk(FIRST)
        self.gate.wait(60)
        x.chunk(FIRST)
        x.end()

    def release(self) -> None:
        self.gate.set()


def refused(gateway: Gateway) -> bool:
    try:
        RawConn(int(gateway.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def open_stream(gateway: Gateway):
    conn = gateway.raw(timeout=30).send(CHAT_STREAM)
    body = conn.body_of(conn.read_head())
    body.read_until(FIRST)
    return conn, body


# --- nothing to wait for ----------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_idle_gateway_ends_at_once(site: Site, number: int):
    """No connection, no probe in the last minute: no settle time, whatever the flag says."""
    gateway = site.gateway("--shutdown-settle-secs", "5", wait=None)
    eventually(lambda: not refused(gateway), 10)
    time.sleep(0.2)
    watch = Stopwatch()
    gateway.signal(number)
    assert gateway.wait_exit(4) == 0
    assert watch() < 2.0 * env.patience()


def test_pending_jobs_do_not_hold_the_exit(site: Site):
    dead = f"http://127.0.0.1:{site.unused_port()}"
    gateway = site.gateway(workers=[dead], wait="live")
    gateway.client.close()
    time.sleep(0.2)
    gateway.terminate()
    assert gateway.wait_exit(5) == 0


def test_settle_zero(site: Site):
    gateway = site.gateway("--shutdown-settle-secs", "0")
    gateway.get("/readiness")
    watch = Stopwatch()
    gateway.terminate()
    assert gateway.wait_exit(4) == 0
    assert watch() < 2.0 * env.patience()


# --- SIGTERM ----------------------------------------------------------------------------------

def check_draining(answer) -> None:
    assert answer.status == 503
    assert answer.json() == {"status": "not ready", "reason": "draining"}


def test_readiness_turns_at_once_and_work_goes_on(site: Site):
    worker = site.fake()
    gateway = site.gateway(*SETTLE, workers=[worker])
    assert gateway.get("/readiness").status_code == 200
    with gateway.raw() as old:
        old.send(READINESS)
        assert old.read_answer().status == 200
        gateway.terminate()
        watch = Stopwatch()

        def turned():
            return gateway.raw_request("GET", "/readiness").status == 503
        eventually(turned, 1, every=0.005)
        assert watch() < 0.5 * env.patience(), "at once"
        check_draining(gateway.raw_request("GET", "/readiness"))
        assert gateway.raw_request("GET", "/liveness").status == 200
        assert gateway.raw_request("GET", "/health").status == 200
        details = gateway.raw_request("GET", "/health?details")
        assert details.json()["status"] == "draining"
        assert gateway.exchange(post("/v1/chat/completions", chat())).status == 200
        assert watch() < 1.9, "still within the settle time"
        eventually(lambda: refused(gateway), 4)
        assert watch() >= 1.7, "the listener stays for the settle time"
    assert gateway.wait_exit(5) == 0


def test_settle_is_at_most_half_the_grace_period(site: Site):
    gateway = site.gateway("--shutdown-settle-secs", "10", "--shutdown-grace-period-secs", "2")
    gateway.get("/readiness")
    gateway.terminate()
    watch = Stopwatch()
    assert gateway.wait_exit(5) == 0
    assert 0.8 <= watch() < 3.5


def test_probe_port_shows_draining(site: Site):
    port = site.unused_port()
    gateway = site.gateway(*SETTLE, "--health-check-port", str(port), workers=[site.fake()])
    url = f"http://127.0.0.1:{port}/readiness"
    assert httpx.get(url, trust_env=False).status_code == 200
    gateway.terminate()

    def draining():
        answer = httpx.get(url, trust_env=False)
        return answer.status_code == 503 and answer.json()["reason"] == "draining"
    eventually(draining, 1)
    assert gateway.wait_exit(8) == 0


def test_streams_in_flight_finish(site: Site):
    held = Held(site)
    gateway = site.gateway("--shutdown-settle-secs", "1", "--shutdown-grace-period-secs", "20",
                           workers=[held.worker])
    streams = [open_stream(gateway) for _ in range(10)]
    whole = gateway.raw(timeout=30).send(post("/v1/chat/completions", chat()))
    eventually(lambda: len(held.worker.requests) == 11, 5)
    gateway.terminate()
    eventually(lambda: refused(gateway), 4)
    time.sleep(0.5)
    assert gateway.alive(), "it waits for the streams"
    held.release()
    for conn, body in streams:
        assert bytes(body.read_to_end().data) == FIRST * 2
        assert body.complete
        conn.close()
    assert whole.read_answer().json() == {"late": 1}
    whole.close()
    assert gateway.wait_exit(5) == 0


def test_idle_keep_alive_connections_are_closed(site: Site):
    held = Held(site)
    gateway = site.gateway("--shutdown-settle-secs", "0", workers=[held.worker])
    idle = []
    for _ in range(20):
        conn = gateway.raw().send(request_bytes("GET", "/health"))
        conn.read_answer()
        idle.append(conn)
    stream, body = open_stream(gateway)
    gateway.terminate()
    for conn in idle:
        assert conn.wait_end(3) == "fin"
        conn.close()
    held.release()
    assert body.read_to_end().complete
    stream.close()
    assert gateway.wait_exit(5) == 0


def test_connection_of_a_finished_stream_is_closed(site: Site):
    held = Held(site)
    gateway = site.gateway("--shutdown-settle-secs", "0", workers=[held.worker])
    conn, body = open_stream(gateway)
    gateway.terminate()
    eventually(lambda: refused(gateway), 3)
    held.release()
    assert body.read_to_end().complete
    assert conn.wait_end(3), "kept open although the gateway is going"
    assert gateway.wait_exit(5) == 0


def test_grace_period_ends_what_does_not_end(site: Site):
    held = Held(site)
    gateway = site.gateway("--shutdown-settle-secs", "0", "--shutdown-grace-period-secs", "2",
                           workers=[held.worker])
    conn, body = open_stream(gateway)
    gateway.terminate()
    watch = Stopwatch()
    assert gateway.wait_exit(6) == 0
    assert 1.7 <= watch() < 4.0
    body.read_to_end()
    assert not body.data.endswith(b"data: [DONE]\n\n")
    conn.close()
    held.release()
    assert "1" in gateway.logs()


def test_half_received_request_does_not_hold_the_exit(site: Site):
    gateway = site.gateway("--shutdown-settle-secs", "0", "--shutdown-grace-period-secs", "3")
    with gateway.raw() as conn:
        conn.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le")
        time.sleep(0.2)
        gateway.terminate()
        assert gateway.wait_exit(5) == 0


def test_workers_are_not_contacted_at_exit(site: Site):
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    gateway.chat()
    time.sleep(0.2)
    worker.clear()
    gateway.terminate()
    assert gateway.wait_exit(5) == 0
    assert worker.log == []


# --- SIGINT and second signals ----------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGINT])
def test_sigint_has_no_settle_time(site: Site, number: int):
    held = Held(site)
    gateway = site.gateway("--shutdown-settle-secs", "5", "--shutdown-grace-period-secs", "20",
                           workers=[held.worker])
    gateway.get("/readiness")
    conn, body = open_stream(gateway)
    gateway.signal(number)
    watch = Stopwatch()
    eventually(lambda: refused(gateway), 3)
    assert watch() < 1.0 * env.patience()
    held.release()
    assert bytes(body.read_to_end().data) == FIRST * 2
    conn.close()
    assert gateway.wait_exit(5) == 0


def test_sigquit_drains_like_sigterm(site: Site):
    held = Held(site)
    gateway = site.gateway(*SETTLE, workers=[held.worker])
    conn, body = open_stream(gateway)
    gateway.signal(signal.SIGQUIT)
    eventually(lambda: gateway.raw_request("GET", "/readiness").status == 503, 1)
    held.release()
    assert bytes(body.read_to_end().data) == FIRST * 2
    conn.close()
    assert gateway.wait_exit(8) == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_second_signal_cuts_the_drain(site: Site, first: int, second: int):
    held = Held(site)
    gateway = site.gateway("--shutdown-settle-secs", "1", "--shutdown-grace-period-secs", "60",
                           workers=[held.worker])
    conn, _ = open_stream(gateway)
    gateway.signal(first)
    time.sleep(0.5)
    assert gateway.alive()
    watch = Stopwatch()
    gateway.signal(second)
    gateway.expect_exit(128 + second)
    assert gateway.wait_exit(3) == 128 + second
    assert watch() < 1.0 * env.patience()
    assert conn.wait_end(2)
    conn.close()
    held.release()


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGHUP], ids=["pipe", "hup"])
def test_other_signals_do_no_harm(site: Site, number: int):
    """SIGPIPE is ignored; SIGHUP reloads (or says why not): neither ends the gateway."""
    gateway = site.gateway()
    gateway.signal(number)
    time.sleep(0.2)
    assert gateway.get("/health").text == "OK"
