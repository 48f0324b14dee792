"""What happens at the descriptor limit: new connections wait, nothing breaks (spec 01, 8.1)."""

from __future__ import annotations

import shutil
import time

import pytest

from lib.gateway import Gateway, chat
from lib.rawhttp import post, request_bytes
from lib.site import Site
from lib.wait import eventually

HEALTH = request_bytes("GET", "/health")
LIMIT = 256

pytestmark = pytest.mark.skipif(not shutil.which("prlimit"), reason="there is no prlimit here")


def limited(site: Site, *flags: str, soft: int = LIMIT, hard: int = LIMIT, **kw) -> Gateway:
    return site.gateway(*flags, prefix=("prlimit", f"--nofile={soft}:{hard}"), **kw)


def test_limit_is_raised_to_the_hard_one(site: Site):
    gateway = limited(site, soft=128, hard=900)
    assert gateway.metrics().only("process_max_fds").value == 900


def paused(gateway: Gateway) -> bool:
    return gateway.metrics().value("sluice_accept_paused") == 1


def test_connections_beyond_the_limit_wait(site: Site):
    worker = site.fake()
    gateway = limited(site, workers=[worker])
    gateway.client.close()
    conns = [gateway.raw(timeout=20).send(HEALTH) for _ in range(LIMIT + 60)]
    time.sleep(0.5)
    served = [conn for conn in conns if conn.buffer or conn.fill(0.001)]
    waiting = [conn for conn in conns if conn not in served]
    assert 150 < len(served) < LIMIT
    assert gateway.alive()
    assert not [conn for conn in conns if conn.ended], "nobody was cut"
    for conn in served:
        assert conn.read_answer().body == b"OK"
        conn.close()
    for conn in waiting:
        assert conn.read_answer().body == b"OK"
        conn.close()
    assert gateway.exchange(post("/v1/chat/completions", chat())).status == 200


def test_pause_shows_in_metrics_and_ends(site: Site):
    gateway = limited(site)
    gateway.client.close()
    conns = [gateway.raw().send(HEALTH) for _ in range(LIMIT + 20)]
    eventually(lambda: paused(gateway), 5)
    for conn in conns:
        conn.close()
    eventually(lambda: not paused(gateway), 5)
    assert gateway.metrics().value("sluice_accept_pauses_total") >= 1


def test_requests_in_flight_survive_the_limit(site: Site):
    """Idle connections fill the table; a stream that is under way goes on to its end."""
    def script(x):
        x.stream()
        for number in range(10):
            x.event(str(number))
            x.sleep(0.1)
        x.end()
    gateway = limited(site, workers=[site.fake(script)])
    gateway.client.close()
    stream = gateway.raw().send(post("/v1/chat/completions", chat(stream=True)))
    body = stream.body_of(stream.read_head())
    conns = [gateway.raw().send(HEALTH) for _ in range(LIMIT + 20)]
    assert body.read_to_end().complete
    assert body.data.count(b"data: ") == 10
    for conn in [*conns, stream]:
        conn.close()
