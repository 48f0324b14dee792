"""Models, info, loads, cache, profile, engine metrics, health details (spec 01, 3.3 and 3.4)."""

from __future__ import annotations

import json

import httpx
import pytest

from lib.fake_worker import FakeWorker, hanging, replying, sending
from lib.gateway import Gateway
from lib.metrics import Metrics
from lib.ports import Port
from lib.rawhttp import RawConn, post
from lib.site import Site
from lib.wait import Stopwatch, eventually


def text(status: int, body: str):
    return replying(status, body, content_type="text/plain")


# --- models -----------------------------------------------------------------------------------

def test_models(site: Site):
    gateway = site.gateway()
    for model in ("one", "two", "one"):
        gateway.add(site.fake(model=model))
    answer = gateway.get("/v1/models")
    assert answer.status_code == 200
    got = answer.json()
    assert got["object"] == "list"
    assert [m["id"] for m in got["data"]] == ["one", "two"], "registry order, no doubles"
    for model in got["data"]:
        assert model == {"id": model["id"], "object": "model", "created": 0,
                         "owned_by": "self_hosted"}


def test_models_with_a_provider(site: Site):
    gateway = site.gateway()
    gateway.add(site.fake(model="m"), models=[{"id": "m", "provider": "somebody"}])
    assert gateway.get("/v1/models").json()["data"][0]["owned_by"] == "somebody"


def test_no_models(site: Site):
    answer = site.gateway().get("/v1/models")
    assert answer.status_code == 503
    assert answer.text == "No models available"
    assert answer.headers["content-type"].startswith("text/plain")


def test_models_of_a_removed_worker_leave(site: Site):
    gateway = site.gateway()
    workers = [site.fake(model="one"), site.fake(model="two")]
    for worker in workers:
        gateway.add(worker)
    gateway.remove(workers[0])
    assert [m["id"] for m in gateway.get("/v1/models").json()["data"]] == ["two"]


# --- relayed info -----------------------------------------------------------------------------

INFO = ["/get_model_info", "/model_info", "/get_server_info", "/server_info",
        "/health_generate"]


@pytest.mark.parametrize("path", INFO)
def test_info_is_relayed(site: Site, path: str):
    """Status, body and headers of the first healthy worker."""
    first, second = site.fake(), site.fake()
    gateway = site.gateway()
    gateway.add(first)
    gateway.add(second)
    for alias in INFO:
        first.routes[alias] = replying(218, b'{"of": "first" }', [("X-Own", "1")])
    answer = gateway.get(path)
    assert answer.status_code == 218
    assert answer.content == b'{"of": "first" }'
    assert answer.headers["x-own"] == "1"


@pytest.mark.parametrize("path", INFO)
def test_info_skips_unhealthy_workers(site: Site, path: str):
    first, second = site.fake(), site.fake()
    gateway = site.gateway("--health-check-interval-secs", "1", "--health-failure-threshold",
                           "1")
    gateway.add(first)
    gateway.add(second)
    first.set_health(False)
    eventually(lambda: not gateway.worker(first)["is_healthy"], 8)
    for alias in INFO:
        second.routes[alias] = replying(200, b'{"of":"second"}')
    assert gateway.get(path).content == b'{"of":"second"}'


@pytest.mark.parametrize("path", INFO)
def test_info_of_a_worker_that_just_died(site: Site, path: str):
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    worker.die()
    answer = gateway.get(path)
    assert answer.status_code in (502, 503)
    assert answer.json()["error"]["code"]


# --- loads ------------------------------------------------------------------------------------

def loads_v1(*used: int) -> dict:
    return {"timestamp": "2025-11-04T10:05:37Z", "dp_rank_count": len(used), "loads": [
        {"dp_rank": rank, "num_running_reqs": 1, "num_waiting_reqs": 0,
         "num_waiting_uncached_tokens": 0, "num_total_reqs": 1, "num_used_tokens": tokens,
         "max_total_num_tokens": 65536, "token_usage": 0.02, "gen_throughput": 0.0,
         "cache_hit_rate": 0.0, "utilization": 0.0, "max_running_requests": 0}
        for rank, tokens in enumerate(used)]}


def loads(gateway: Gateway, path: str = "/get_loads") -> dict[str, dict]:
    answer = gateway.get(path)
    assert answer.status_code == 200
    got = answer.json()
    assert set(got) == {"workers"}
    return {entry["worker"]: entry for entry in got["workers"]}


@pytest.mark.parametrize("path", ["/get_loads", "/v1/loads"])
def test_loads_from_every_kind_of_worker(site: Site, path: str):
    modern, old, scraped, silent = (site.fake() for _ in range(4))
    modern.routes["/v1/loads"] = replying(200, loads_v1(1000, 234))
    old.routes["/get_load"] = replying(200, [{"dp_rank": 0, "num_tokens": 70},
                                             {"dp_rank": 1, "num_tokens": 7}])
    scraped.routes["/metrics"] = text(200, "# TYPE sglang:num_used_tokens gauge\n"
                                           "sglang:num_used_tokens{model=\"m\"} 55\n"
                                           "# TYPE sglang:token_usage gauge\n"
                                           "sglang:token_usage 0.1\n")
    workers = [modern, old, scraped, silent]
    gateway = site.gateway(workers=workers)
    got = loads(gateway, path)
    assert set(got) == {w.url for w in workers}
    assert got[modern.url]["load"] == 1234
    details = got[modern.url]["details"]
    assert details["dp_rank_count"] == 2
    assert [rank["num_used_tokens"] for rank in details["loads"]] == [1000, 234]
    assert details["loads"][0]["max_total_num_tokens"] == 65536
    assert got[old.url]["load"] == 77
    assert got[scraped.url]["load"] == 55
    assert got[silent.url] == {"worker": silent.url, "load": -1}


@pytest.mark.parametrize("script", [text(500, "no"), text(200, "no json"),
                                    replying(200, b"[1,2]"), replying(200, b'{"loads":7}'),
                                    replying(200, b'{"loads":[{"num_used_tokens":"x"}]}'),
                                    sending(b"garbage"), sending(b"")])
def test_odd_loads_are_unknown(site: Site, script):
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    for path in ("/v1/loads", "/get_load", "/metrics"):
        worker.routes[path] = script
    assert loads(gateway)[worker.url]["load"] == -1


def test_no_loads(site: Site):
    assert site.gateway().get("/get_loads").json() == {"workers": []}


# --- flush and profile ------------------------------------------------------------------------

FANOUTS = {"/flush_cache": "workers_flushed", "/start_profile": "workers_profiled",
           "/stop_profile": "workers_profiled"}


@pytest.mark.parametrize(("path", "count"), FANOUTS.items())
def test_fan_out_to_all(site: Site, path: str, count: str):
    workers = [site.fake() for _ in range(3)]
    gateway = site.gateway(workers=workers)
    for worker in workers:
        worker.routes[path] = text(200, "done")
    answer = gateway.post(path)
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert got["status"] == "success"
    assert got["message"]
    assert got[count] == 3
    assert (got["total_http_workers"], got["total_grpc_workers"], got["total_workers"]) == \
        (3, 0, 3)
    assert got["total_zmq_workers_skipped"] == 0
    assert "failed" not in got
    for worker in workers:
        assert [r.method for r in worker.seen(path)] == ["POST"]


@pytest.mark.parametrize(("path", "count"), FANOUTS.items())
def test_fan_out_with_failures_is_206(site: Site, path: str, count: str):
    good, bad, dead = site.fake(), site.fake(), site.fake()
    gateway = site.gateway(workers=[good, bad, dead])
    good.routes[path] = text(200, "done")
    bad.routes[path] = text(500, "no")
    dead.die()
    answer = gateway.post(path)
    assert answer.status_code == 206, answer.text
    got = answer.json()
    assert got["status"] == "partial_success"
    assert got[count] == 1
    assert got["total_workers"] == 3
    assert got["successful"] == [good.url]
    failed = {entry["worker"]: entry["error"] for entry in got["failed"]}
    assert set(failed) == {bad.url, dead.url}
    assert failed[bad.url] == "HTTP 500"
    assert failed[dead.url]


def test_flush_without_workers(site: Site):
    answer = site.gateway().post("/flush_cache")
    assert answer.status_code == 200
    assert answer.json()["status"] == "success"
    assert answer.json()["total_workers"] == 0


def test_flush_runs_in_parallel(site: Site):
    workers = [site.fake() for _ in range(8)]
    gateway = site.gateway(workers=workers)
    for worker in workers:
        worker.routes["/flush_cache"] = lambda x: (x.sleep(0.5), x.reply(200, b"ok"))
    watch = Stopwatch()
    assert gateway.post("/flush_cache").status_code == 200
    assert watch() < 2.0


def test_profile_body_and_choice_of_worker(site: Site):
    workers = [site.fake() for _ in range(2)]
    gateway = site.gateway(workers=workers)
    for worker in workers:
        worker.routes["/start_profile"] = text(200, "done")
    answer = gateway.post("/start_profile", {"url": workers[0].url, "output_dir": "/x",
                                             "num_steps": 5})
    assert answer.status_code == 200, answer.text
    assert answer.json()["workers_profiled"] == 1
    sent = workers[0].seen("/start_profile")[0].json()
    assert sent["output_dir"] == "/x"
    assert sent["num_steps"] == 5
    assert workers[1].seen("/start_profile") == []


@pytest.mark.parametrize("path", ["/start_profile", "/stop_profile"])
def test_profile_of_nobody_is_404(site: Site, path: str):
    gateway = site.gateway(workers=[site.fake()])
    answer = gateway.post(path, {"url": "http://127.0.0.1:1"})
    assert answer.status_code == 404, answer.text
    assert answer.json()["status"] == "error"


# --- cancelling a response (6.9) --------------------------------------------------------------

CANCEL = "/v1/responses/resp_1/cancel"


def test_cancel_goes_to_all_and_the_first_success_wins(site: Site):
    workers = [site.fake() for _ in range(3)]
    gateway = site.gateway(workers=workers)
    for worker in workers:
        worker.routes[CANCEL] = replying(404, b'{"no":1}')
    workers[1].routes[CANCEL] = replying(200, b'{"id":"resp_1","status":"cancelled"}')
    answer = gateway.post(CANCEL)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    workers[1].routes[CANCEL] = replying(404, b'{"no":1}')
    assert gateway.post(CANCEL).status_code == 404
    assert [r.body for r in workers[2].seen(CANCEL)] == [b""] * len(workers[2].seen(CANCEL))
    assert len(workers[2].seen(CANCEL)) >= 1


def test_cancel_without_workers(site: Site):
    answer = site.gateway().post(CANCEL)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_workers"


def test_cancel_when_nobody_answers(site: Site):
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    worker.die()
    answer = gateway.post(CANCEL)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "no_worker_response"


# --- engine metrics (06 section 1.10) ---------------------------------------------------------

def engine(gateway: Gateway) -> Metrics:
    answer = gateway.get("/engine_metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Metrics(answer.text)


def with_metrics(site: Site, *bodies: str) -> tuple[Gateway, list[FakeWorker]]:
    workers = [site.fake() for _ in bodies]
    gateway = site.gateway(workers=workers)
    for worker, body in zip(workers, bodies, strict=True):
        worker.routes["/metrics"] = text(200, body)
    return gateway, workers


PACK = ('# HELP http_requests_total Total\n# TYPE http_requests_total counter\n'
        'http_requests_total{{method="post",code="200",source="{0}"}} 1027.0\n'
        'http_requests_total{{method="post",code="400",source="{0}"}} 3\n')


def test_engine_metrics_are_merged(site: Site):
    gateway, workers = with_metrics(site, PACK.format("w1"), PACK.format("w2"))
    got = engine(gateway)
    assert got.text.count("# HELP http_requests_total") == 1
    assert got.text.count("# TYPE http_requests_total counter") == 1
    assert len(got.find("http_requests_total")) == 4
    for worker, source in zip(workers, ("w1", "w2"), strict=True):
        sample = got.only("http_requests_total", worker_addr=worker.url, code="200")
        assert sample.value == 1027
        assert sample.labels == {"method": "post", "code": "200", "source": source,
                                 "worker_addr": worker.url}
    assert " 1027\n" in got.text, "1027.0 is shown as 1027"


def test_engine_metric_names_lose_their_colons(site: Site):
    gateway, (worker,) = with_metrics(
        site, '# HELP sglang:num_running_reqs Running: now\n'
              '# TYPE sglang:num_running_reqs gauge\n'
              'sglang:num_running_reqs{host="a:80",model_name="m:1"} 8.128902e+06\n')
    got = engine(gateway)
    sample = got.only("sglang_num_running_reqs")
    assert sample.labels == {"host": "a:80", "model_name": "m:1", "worker_addr": worker.url}
    assert sample.value == 8128902
    assert "8128902" in got.text


def test_engine_metrics_pad_missing_labels(site: Site):
    gateway, workers = with_metrics(site, "# TYPE x gauge\nx 1\n",
                                    '# TYPE x gauge\nx{dp_rank="0"} 2\n')
    got = engine(gateway)
    assert got.only("x", worker_addr=workers[0].url).labels["dp_rank"] == ""
    assert got.only("x", worker_addr=workers[1].url).labels["dp_rank"] == "0"


def test_engine_histograms_stay_in_order(site: Site):
    body = ('# TYPE h histogram\nh_bucket{le="0.1"} 1\nh_bucket{le="1.0"} 2\n'
            'h_bucket{le="+Inf"} 3\nh_sum 4.5\nh_count 3\n')
    gateway, workers = with_metrics(site, body, body)
    got = engine(gateway)
    assert got.text.count("# TYPE h histogram") == 1
    for worker in workers:
        assert got.value("h_count", worker_addr=worker.url) == 3
        assert got.only("h_bucket", worker_addr=worker.url, le="+Inf").value == 3
        lines = [line for line in got.text.splitlines() if f'"{worker.url}"' in line]
        assert [line.split("{")[0] for line in lines] == ["h_bucket"] * 3 + ["h_sum", "h_count"]
        assert all(line.split("}")[0].endswith(('"0.1"', '"1.0"', '"1"', '"+Inf"'))
                   for line in lines[:3]), lines


def test_engine_metrics_keep_escapes(site: Site):
    gateway, _ = with_metrics(site, '# TYPE x gauge\nx{p="a\\\\b\\"c\\nd"} 1\n')
    assert engine(gateway).only("x").labels["p"] == 'a\\b"c\nd'


def test_engine_metrics_with_clashing_types(site: Site):
    """[US]: the first type stays, the second family is dropped; no 500."""
    gateway, _ = with_metrics(site, "# TYPE x gauge\nx 1\n", "# TYPE x counter\nx 2\n")
    got = engine(gateway)
    assert len(got.find("x")) + len(got.find("x_total")) == 1


@pytest.mark.parametrize("bad", [text(500, "no"), text(200, "this { is no } exposition\n\x00"),
                                 sending(b"garbage"), sending(b"")])
def test_engine_metrics_skip_bad_workers(site: Site, bad):
    good, other = site.fake(), site.fake()
    gateway = site.gateway(workers=[good, other])
    good.routes["/metrics"] = text(200, "# TYPE x gauge\nx 1\n")
    other.routes["/metrics"] = bad
    got = engine(gateway)
    assert [s.labels["worker_addr"] for s in got.find("x")] == [good.url]


def test_engine_metrics_take_unhealthy_workers_too(site: Site):
    worker = site.fake()
    gateway = site.gateway("--health-check-interval-secs", "1", "--health-failure-threshold",
                           "1", workers=[worker])
    worker.routes["/metrics"] = text(200, "# TYPE x gauge\nx 1\n")
    worker.set_health(False)
    eventually(lambda: not gateway.worker(worker)["is_healthy"], 8)
    assert engine(gateway).value("x") == 1


def test_engine_metrics_without_workers(site: Site):
    answer = site.gateway().get("/engine_metrics")
    assert (answer.status_code, answer.text) == (500, "No available workers")


def test_engine_metrics_when_all_fail(site: Site):
    worker = site.fake()
    gateway = site.gateway(workers=[worker])
    worker.die()
    answer = gateway.get("/engine_metrics")
    assert (answer.status_code, answer.text) == (500, "All backend requests failed")


def test_engine_metrics_do_not_wait_for_ever(site: Site):
    good, slow = site.fake(), site.fake()
    gateway = site.gateway(workers=[good, slow])
    good.routes["/metrics"] = text(200, "# TYPE x gauge\nx 1\n")
    slow.routes["/metrics"] = hanging
    watch = Stopwatch()
    assert engine(gateway).value("x") == 1
    assert watch() < 8.0


# --- health details, probe port ---------------------------------------------------------------

def test_health_details(site: Site):
    gateway = site.gateway()
    answer = gateway.get("/health?details")
    assert answer.status_code == 200
    got = answer.json()
    assert set(got) >= {"status", "version", "config_version", "uptime_s"}
    assert got["status"] == "ok"
    assert got["config_version"] == 1
    assert got["version"] in site.run("--version").stdout
    assert 0 <= got["uptime_s"] < 60
    assert gateway.get("/health").text == "OK"
    assert gateway.get("/health?other").text == "OK"


def test_health_details_need_the_key(site: Site):
    gateway = site.gateway("--api-key", "k")
    assert gateway.client.get("/health?details").status_code == 401
    assert gateway.client.get("/health").text == "OK"
    assert gateway.get("/health?details").status_code == 200


def probe(port: Port, path: str, method: str = "GET"):
    return httpx.request(method, f"http://127.0.0.1:{port}{path}", trust_env=False)


def test_probe_port(site: Site):
    port = site.unused_port()
    worker = site.fake()
    gateway = site.gateway("--health-check-port", str(port), "--api-key", "k", workers=[worker])
    assert probe(port, "/liveness").text == "OK"
    assert probe(port, "/health").text == "OK"
    assert probe(port, "/health?details").text == "OK"
    ready = probe(port, "/readiness")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    for path in ("/", "/workers", "/v1/models", "/metrics", "/v1/chat/completions"):
        assert probe(port, path).status_code == 404, path
    assert probe(port, "/health", "POST").status_code in (404, 405)
    assert gateway.get("/liveness").text == "OK", "the routes stay on the main port too"


def test_probe_port_answers_while_the_api_is_busy(site: Site):
    """The probes run apart: --max-connections used up on the main port does not touch them."""
    port = site.unused_port()
    gateway = site.gateway("--health-check-port", str(port), "--max-connections", "2",
                           wait=None)
    eventually(lambda: probe_or_none(port), 10)
    held = [gateway.raw().send(b"GET /health HTTP/1.1\r\n") for _ in range(8)]
    assert probe(port, "/liveness").text == "OK"
    for conn in held:
        conn.close()


def probe_or_none(port: Port):
    try:
        return probe(port, "/liveness")
    except httpx.TransportError:
        return None


def test_probe_port_shrugs_off_garbage(site: Site):
    port = site.unused_port()
    site.gateway("--health-check-port", str(port))
    for raw in (b"\x00\x01", b"GET / HTTP/1.1\r\n\r\n", post("/health", b"x" * 100_000)):
        with RawConn(int(port)) as conn:
            conn.send(raw)
    assert probe(port, "/liveness").text == "OK"


# --- rerank (6.8) -----------------------------------------------------------------------------

RANKED = [{"score": 0.9, "document": "b", "index": 1, "meta_info": {"n": 1}},
          {"score": 0.5, "document": "a", "index": 0}, {"score": 0.1, "index": 2}]


def rerank(site: Site, path: str, reply, **fields: object):
    worker = site.fake(reply)
    gateway = site.gateway("--disable-retries", workers=[worker])
    return gateway.post(path, {"query": "q", "documents": ["a", "b", "c"], **fields})


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_rerank_reply(site: Site, path: str):
    answer = rerank(site, path, replying(200, RANKED), model="ranker", rid="r-1")
    got = answer.json()
    assert answer.status_code == 200
    assert got["results"] == RANKED
    assert got["id"] == "r-1"
    assert got["usage"] is None
    assert got["object"] == "rerank"
    if path == "/rerank":
        assert got["model"] == "ranker"
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(("fields", "count", "documents"), [
    ({"top_k": 2}, 2, True), ({"top_k": 0}, None, True), ({"top_k": 99}, 3, True),
    ({"top_k": "2"}, 3, True), ({"return_documents": False}, 3, False),
    ({"return_documents": "no"}, 3, True), ({"top_k": 1, "return_documents": False}, 1, False),
])
def test_rerank_options(site: Site, fields: dict, count: int | None, documents: bool):
    answer = rerank(site, "/rerank", replying(200, RANKED), **fields)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    if count is not None:
        assert results == [
            {k: v for k, v in item.items() if documents or k != "document"}
            for item in RANKED[:count]]


def test_rerank_without_rid(site: Site):
    assert rerank(site, "/rerank", replying(200, [])).json()["id"] is None


@pytest.mark.parametrize("status", [400, 404, 500])
def test_rerank_error_passes_through(site: Site, status: int):
    answer = rerank(site, "/rerank", replying(status, b'{"no":1}'))
    assert (answer.status_code, answer.content) == (status, b'{"no":1}')


@pytest.mark.parametrize("body", [b"{}", b"nonsense", b'"x"', b"[1]", b""])
def test_rerank_reply_that_is_no_array(site: Site, body: bytes):
    answer = rerank(site, "/rerank", replying(200, body))
    assert answer.status_code == 500, answer.text
    assert answer.json()["error"]["code"] == "rerank_response_build_failed"


def test_rerank_reply_larger_than_the_hold(site: Site):
    """More than 64 KiB of results is still an array to be turned into the object."""
    many = [{"score": 1.0 - n / 5000, "document": "d" * 50, "index": n} for n in range(4000)]
    assert len(json.dumps(many)) > 200_000
    answer = rerank(site, "/rerank", replying(200, many), top_k=10)
    assert answer.status_code == 200
    assert answer.json()["results"] == many[:10]
