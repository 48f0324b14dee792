"""REST of the fleet: /workers and the legacy endpoints (spec 01 sections 3.1, 3.2; 02, 4.1)."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from lib.fake_worker import FakeWorker
from lib.gateway import Gateway
from lib.site import Site
from lib.wait import Stopwatch, eventually

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def gateway(site: Site) -> Gateway:
    return site.gateway()


@pytest.fixture(scope="module")
def standing(shared_site: Site) -> Gateway:
    """A gateway with one worker for tests that change nothing."""
    return shared_site.gateway(workers=[shared_site.fake()])


def check_error(answer, status: int, code: str) -> str:
    """3.1: {"error": text, "code": CODE}."""
    assert answer.status_code == status, answer.text
    got = answer.json()
    assert set(got) == {"error", "code"}
    assert got["code"] == code
    assert got["error"]
    return got["error"]


def gone(gateway: Gateway, worker_id: str) -> bool:
    return gateway.get(f"/workers/{worker_id}").status_code == 404


# --- adding -----------------------------------------------------------------------------------

def test_add(gateway: Gateway, site: Site):
    worker = site.fake()
    answer = gateway.post("/workers", {"url": worker.url})
    assert answer.status_code == 202
    got = answer.json()
    assert UUID.fullmatch(got["worker_id"])
    assert got == {"status": "accepted", "worker_id": got["worker_id"], "url": worker.url,
                   "location": f"/workers/{got['worker_id']}",
                   "message": "Worker addition queued for background processing"}
    assert answer.headers["location"] == f"/workers/{got['worker_id']}"
    eventually(lambda: gateway.worker(worker)["is_healthy"], 10)
    assert gateway.chat().status_code == 200


def test_worker_info(gateway: Gateway, site: Site):
    worker = site.fake(model="some-model")
    worker_id = gateway.add(worker, labels={"zone": "a"}, priority=70, cost=2.5,
                            bootstrap_port=9001, unknown_key={"x": 1})
    info = gateway.get(f"/workers/{worker_id}").json()
    assert info["id"] == worker_id
    assert info["url"] == worker.url
    assert info["model_id"] == "some-model"
    assert [m["id"] for m in info["models"]] == ["some-model"]
    assert info["worker_type"] == "regular"
    assert info["connection_mode"] == "http"
    assert info["runtime_type"] == "sglang"
    assert (info["priority"], info["cost"]) == (70, 2.5)
    assert info["labels"]["zone"] == "a"
    assert info["metadata"] == info["labels"]
    assert info["bootstrap_port"] == 9001
    assert info["is_healthy"] is True
    assert info["status"] == "ready"
    assert info["load"] == 0
    assert "api_key" not in info
    assert "job_status" not in info, "a finished job leaves no entry"


def test_defaults_of_worker_info(gateway: Gateway, site: Site):
    worker_id = gateway.add(site.fake())
    info = gateway.get(f"/workers/{worker_id}").json()
    assert (info["priority"], info["cost"]) == (50, 1.0)
    assert info["max_connection_attempts"] == 20
    assert "bootstrap_port" not in info


def test_list(gateway: Gateway, site: Site):
    empty = gateway.get("/workers").json()
    assert empty == {"workers": [], "total": 0, "stats": {
        "prefill_count": 0, "decode_count": 0, "regular_count": 0}}
    workers = [site.fake(model="one"), site.fake(model="two"), site.fake(model="two")]
    ids = [gateway.add(worker) for worker in workers]
    got = gateway.get("/workers").json()
    assert got["total"] == 3
    assert got["stats"] == {"prefill_count": 0, "decode_count": 0, "regular_count": 3}
    assert {w["id"] for w in got["workers"]} == set(ids)
    two = gateway.get("/workers?model=two").json()
    assert (two["total"], two["stats"]["regular_count"]) == (2, 2)
    assert {w["url"] for w in two["workers"]} == {workers[1].url, workers[2].url}
    none = gateway.get("/workers?model=nobody").json()
    assert (none["workers"], none["total"]) == ([], 0)


def test_given_model_id_wins_over_discovery(gateway: Gateway, site: Site):
    gateway.add(site.fake(model="found"), model_id="told")
    assert [m["id"] for m in gateway.get("/v1/models").json()["data"]] == ["told"]


def test_model_cards(gateway: Gateway, site: Site):
    worker_id = gateway.add(site.fake(), models=[{"id": "a", "context_length": 4096}, {"id": "b"}])
    info = gateway.get(f"/workers/{worker_id}").json()
    assert [m["id"] for m in info["models"]] == ["a", "b"]
    assert info["models"][0]["context_length"] == 4096


def test_discovered_facts_become_labels(gateway: Gateway, site: Site):
    """02 section 4.4: parsed keys become labels; labels of the call win."""
    worker = site.fake()
    for path in ("/server_info", "/get_server_info"):
        worker.routes[path] = lambda x: x.reply(200, {
            "tp_size": 4, "version": "9.9", "max_running_requests": 64, "unrelated": [1]})
    worker_id = gateway.add(worker, labels={"version": "mine"})
    labels = gateway.get(f"/workers/{worker_id}").json()["labels"]
    assert labels["tp_size"] == "4"
    assert labels["max_running_requests"] == "64"
    assert labels["version"] == "mine"


@pytest.mark.parametrize("body", [b"[1,2]", b'"text"', b"not json", b"", b"{}", b"17",
                                  b'{"tp_size":[{}],"version":null,"model_id":7}'])
def test_odd_discovery_answers_count_as_absent(gateway: Gateway, site: Site, body: bytes):
    """02 section 4.4 [DO]: a wrong shape counts as absent; discovery goes on."""
    worker = site.fake()
    for path in ("/server_info", "/get_server_info", "/model_info", "/get_model_info"):
        worker.routes[path] = lambda x: x.reply(200, body)
    gateway.add(worker)
    assert gateway.worker(worker)["model_id"] == "fake-model"


@pytest.mark.parametrize("body", [b"[]", b'{"data":{}}', b'{"data":[{}]}', b'{"data":[7]}',
                                  b"nonsense"])
def test_odd_model_list_leaves_the_worker_usable(gateway: Gateway, site: Site, body: bytes):
    worker = site.fake()
    worker.routes["/v1/models"] = lambda x: x.reply(200, body)
    gateway.add(worker)
    assert gateway.chat().status_code == 200


def test_add_twice_is_a_conflict(gateway: Gateway, site: Site):
    worker = site.fake()
    gateway.add(worker)
    check_error(gateway.post("/workers", {"url": worker.url}), 409, "WORKER_ALREADY_EXISTS")
    check_error(gateway.post("/workers", {"url": worker.url + "/"}), 409,
                "WORKER_ALREADY_EXISTS")
    assert gateway.get("/workers").json()["total"] == 1


BAD_URLS = ["", " ", "nonsense", "127.0.0.1:8000", "ftp://127.0.0.1:1", "http://", "http:///x",
            "HTTP//x", "http://host:port", "http://h:99999", "http://h:-1", "http://h:0x10",
            "http://[::1", "http://a b:1", "//127.0.0.1:1", "http:127.0.0.1:80", "ipc://",
            "http://h\n:80", "http://h:80\r\nX: y", "http://\x00"]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_url(standing: Gateway, url: str):
    check_error(standing.post("/workers", {"url": url}), 400, "BAD_REQUEST")
    assert standing.get("/workers").json()["total"] == 1


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:31000", "grpcs://127.0.0.1:31000"])
def test_grpc_is_refused_with_its_reason(standing: Gateway, url: str):
    text = check_error(standing.post("/workers", {"url": url}), 400, "BAD_REQUEST")
    assert re.search(r"grpc", text, re.IGNORECASE)
    assert re.search(r"issue", text, re.IGNORECASE), text


def check_object(answer, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-smg-error-code"] == code


@pytest.mark.parametrize("body", [b"", b"{", b"url=http://x:1", b'{"url":"http://h:1"'])
def test_body_that_is_no_json(standing: Gateway, body: bytes):
    check_object(standing.post("/workers", body), 400, "json_parse_error")


@pytest.mark.parametrize("body", [
    {}, {"uri": "http://h:1"}, {"url": None}, {"url": 7}, {"url": ["http://h:1"]},
    {"url": "http://127.0.0.1:9", "priority": "high"},
    {"url": "http://127.0.0.1:9", "priority": -1},
    {"url": "http://127.0.0.1:9", "priority": 2**32},
    {"url": "http://127.0.0.1:9", "cost": "cheap"},
    {"url": "http://127.0.0.1:9", "labels": ["a"]},
    {"url": "http://127.0.0.1:9", "labels": {"a": 1}},
    {"url": "http://127.0.0.1:9", "api_key": 5},
    {"url": "http://127.0.0.1:9", "worker_type": "irregular"},
    {"url": "http://127.0.0.1:9", "bootstrap_port": 70000},
    {"url": "http://127.0.0.1:9", "health": "good"},
], ids=str)
def test_wrong_or_missing_field(standing: Gateway, body: dict):
    answer = standing.post("/workers", body)
    check_object(answer, 422, "invalid_field")
    wrong = next((key for key in body if key not in ("url", "uri")), "url")
    assert wrong in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded"])
def test_foreign_media_type(standing: Gateway, media: str):
    answer = standing.post("/workers", b'{"url":"http://127.0.0.1:9"}', {"content-type": media})
    check_object(answer, 415, "unsupported_media_type")


# --- naming a worker in the path (D5) ---------------------------------------------------------

def names_of(worker: FakeWorker, worker_id: str) -> dict[str, str]:
    return {
        "uuid": worker_id,
        "uuid in capitals": worker_id.upper(),
        "encoded url": quote(worker.url, safe=""),
        "encoded in lower case": quote(worker.url, safe="").replace("%3A", "%3a")
                                                          .replace("%2F", "%2f"),
        "raw url": worker.url,
        "raw url with slash": worker.url + "/",
        "collapsed slashes": worker.url.replace("://", ":/"),
        "encoded colon only": worker.url.replace(":", "%3A"),
    }


NAMES = ["uuid", "uuid in capitals", "encoded url", "encoded in lower case", "raw url",
         "raw url with slash", "collapsed slashes", "encoded colon only"]


@pytest.mark.parametrize("name", NAMES)
def test_get_by(gateway: Gateway, site: Site, name: str):
    worker = site.fake()
    worker_id = gateway.add(worker)
    target = "/workers/" + names_of(worker, worker_id)[name]
    answer = gateway.raw_request("GET", target)
    assert answer.status == 200, answer
    assert answer.json()["id"] == worker_id


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("name", ["uuid", "encoded url", "raw url"])
def test_change_by(gateway: Gateway, site: Site, method: str, name: str):
    worker = site.fake()
    worker_id = gateway.add(worker)
    target = "/workers/" + names_of(worker, worker_id)[name]
    body = None if method == "DELETE" else b'{"priority":99}'
    answer = gateway.raw_request(method, target, [("Content-Type", "application/json")], body)
    assert answer.status == 202, answer
    assert answer.json()["worker_id"] == worker_id
    if method == "DELETE":
        eventually(lambda: gone(gateway, worker_id), 10)
    else:
        eventually(lambda: gateway.worker(worker)["priority"] == 99, 5)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("name", ["01890a5d-ac96-774b-bcce-b302099a8057",
                                  quote("http://127.0.0.1:1", safe=""), "http://127.0.0.1:1"])
def test_unknown_worker(standing: Gateway, method: str, name: str):
    body = b"{}" if method in ("PUT", "PATCH") else None
    answer = standing.raw_request(method, f"/workers/{name}",
                                  [("Content-Type", "application/json")], body)
    assert answer.status == 404, answer
    assert answer.json()["code"] == "WORKER_NOT_FOUND"
    if method == "GET":
        assert "not found" in answer.json()["error"]


@pytest.mark.parametrize("name", ["nonsense", "123", "%00", "abc%20def"])
def test_malformed_id(standing: Gateway, name: str):
    answer = standing.raw_request("GET", f"/workers/{name}")
    assert answer.status == 400, answer
    assert answer.json()["code"] == "BAD_REQUEST"


# --- jobs -------------------------------------------------------------------------------------

def test_pending_worker(site: Site):
    dead = f"http://127.0.0.1:{site.unused_port()}"
    gateway = site.gateway("--worker-startup-timeout-secs", "60")
    worker_id = gateway.add(dead, wait=False)
    info = gateway.get(f"/workers/{worker_id}").json()
    assert info["id"] == worker_id
    assert info["url"] == dead
    assert (info["is_healthy"], info["status"], info["load"]) == (False, "pending", 0)
    job = info["job_status"]
    assert job["job_type"] == "AddWorker"
    assert job["worker_url"] == dead
    assert job["status"] in ("pending", "processing")
    assert isinstance(job["timestamp"], int)
    assert "message" in job
    listed = gateway.get("/workers").json()
    assert (listed["total"], listed["workers"]) == (0, [])
    assert gateway.readiness() == {"status": "not ready",
                                   "reason": "insufficient healthy workers"}


def test_failed_job(site: Site):
    dead = f"http://127.0.0.1:{site.unused_port()}"
    gateway = site.gateway("--worker-startup-timeout-secs", "2")
    worker_id = gateway.add(dead, wait=False)

    def failed():
        job = gateway.get(f"/workers/{worker_id}").json()["job_status"]
        return job if job["status"] == "failed" else None
    job = eventually(failed, 15)
    assert job["message"]
    assert gateway.alive()
    assert gateway.get("/workers").json()["total"] == 0


def test_worker_that_failed_can_be_added_again(site: Site):
    worker = site.fake()
    worker.die()
    gateway = site.gateway("--worker-startup-timeout-secs", "2")
    first = gateway.add(worker, wait=False)
    eventually(lambda: gateway.get(f"/workers/{first}").json()["job_status"]["status"]
               == "failed", 15)
    worker.start()
    assert gateway.add(worker) == first, "the id is reserved per URL"


def test_id_is_stable_across_removal(gateway: Gateway, site: Site):
    worker = site.fake()
    first = gateway.add(worker)
    gateway.remove(worker)
    eventually(lambda: gone(gateway, first), 5)
    assert gateway.add(worker) == first


def test_add_and_remove_of_one_url_are_in_order(gateway: Gateway, site: Site):
    """02 section 4.2 [DO]: FIFO per URL. The last word wins."""
    worker = site.fake()
    for _ in range(5):
        gateway.post("/workers", {"url": worker.url})
        gateway.call("DELETE", f"/workers/{quote(worker.url, safe='')}")
    gateway.call("DELETE", f"/workers/{quote(worker.url, safe='')}")
    eventually(lambda: gateway.get("/workers").json()["total"] == 0, 15)
    assert gateway.add(worker)


def test_many_at_once(gateway: Gateway, site: Site):
    workers = [site.fake() for _ in range(40)]
    for worker in workers:
        gateway.add(worker, wait=False)
    eventually(lambda: gateway.get("/workers").json()["total"] == 40, 15)
    ids = [w["id"] for w in gateway.workers()]
    assert len(set(ids)) == 40
    for worker in workers:
        gateway.remove(worker, wait=False)
    eventually(lambda: gateway.get("/workers").json()["total"] == 0, 15)


# --- changing ---------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_partial_update(gateway: Gateway, site: Site, method: str):
    worker = site.fake()
    worker_id = gateway.add(worker, labels={"a": "1", "b": "2"}, priority=10, bootstrap_port=77)
    answer = gateway.call(method, f"/workers/{worker_id}", json={
        "priority": 20, "cost": 3.5, "labels": {"b": "3", "c": "4"}})
    assert answer.status_code == 202
    assert answer.json() == {"status": "accepted", "worker_id": worker_id,
                             "message": "Worker update queued for background processing"}

    def updated():
        info = gateway.get(f"/workers/{worker_id}").json()
        return info if info["priority"] == 20 else None
    info = eventually(updated, 5)
    assert info["cost"] == 3.5
    assert {k: info["labels"].get(k) for k in "abc"} == {"a": "1", "b": "3", "c": "4"}
    assert info["bootstrap_port"] == 77, "02 section 4.8 [DO]: copy, then modify"
    assert gateway.chat().status_code == 200


def test_put_with_url_replaces(gateway: Gateway, site: Site):
    worker = site.fake()
    worker_id = gateway.add(worker, labels={"old": "1"}, priority=10)
    answer = gateway.call("PUT", f"/workers/{worker_id}",
                          json={"url": worker.url, "labels": {"new": "2"}})
    assert answer.status_code == 202

    def replaced():
        info = gateway.get(f"/workers/{worker_id}").json()
        return info if info.get("labels", {}).get("new") == "2" else None
    info = eventually(replaced, 10)
    assert "old" not in info["labels"]
    assert info["priority"] == 50
    assert info["id"] == worker_id


def test_put_cannot_change_the_url(gateway: Gateway, site: Site):
    worker_id = gateway.add(site.fake())
    answer = gateway.call("PUT", f"/workers/{worker_id}", json={"url": site.fake().url})
    check_error(answer, 400, "BAD_REQUEST")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_update_with_a_wrong_field(gateway: Gateway, site: Site, method: str):
    worker_id = gateway.add(site.fake())
    answer = gateway.call(method, f"/workers/{worker_id}", json={"priority": "high"})
    check_object(answer, 422, "invalid_field")
    answer = gateway.call(method, f"/workers/{worker_id}", content=b"{",
                          headers={"content-type": "application/json"})
    check_object(answer, 400, "json_parse_error")


def test_patch_of_the_key(gateway: Gateway, site: Site):
    worker = site.fake()
    worker_id = gateway.add(worker)
    gateway.chat()
    assert worker.last.all("authorization") == []
    gateway.call("PATCH", f"/workers/{worker_id}", json={"api_key": "new-worker-key"})

    def used():
        gateway.chat()
        return worker.last.all("authorization") == ["Bearer new-worker-key"]
    eventually(used, 5)
    assert "new-worker-key" not in gateway.get(f"/workers/{worker_id}").text


def test_update_keeps_the_load_count(gateway: Gateway, site: Site):
    """02 section 1.4: a same-URL replace keeps the shared runtime block."""
    worker = site.fake(lambda x: (x.sleep(1.0), x.reply(200, {})))
    worker_id = gateway.add(worker)
    with gateway.raw() as conn:
        conn.send(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        eventually(lambda: gateway.load(worker) == 1, 5)
        gateway.call("PATCH", f"/workers/{worker_id}", json={"priority": 1})
        eventually(lambda: gateway.worker(worker)["priority"] == 1, 5)
        assert gateway.load(worker) == 1
        conn.read_answer()
    eventually(lambda: gateway.load(worker) == 0, 2)


# --- removing ---------------------------------------------------------------------------------

def test_remove(gateway: Gateway, site: Site):
    worker = site.fake()
    worker_id = gateway.add(worker)
    answer = gateway.call("DELETE", f"/workers/{worker_id}")
    assert answer.status_code == 202
    assert answer.json() == {"status": "accepted", "worker_id": worker_id,
                             "message": "Worker removal queued for background processing"}
    watch = Stopwatch()
    eventually(lambda: gone(gateway, worker_id), 10)
    assert watch() < 3.0, "an idle worker is not waited for (02 section 4.7 [DO])"
    assert gateway.get("/workers").json()["total"] == 0
    answer = gateway.chat()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_available_workers"


# --- legacy endpoints -------------------------------------------------------------------------

def test_legacy_life(gateway: Gateway, site: Site):
    worker = site.fake()
    answer = gateway.post(f"/add_worker?url={quote(worker.url, safe='')}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert gateway.get("/list_workers").json() == {"urls": [worker.url]}
    assert gateway.chat().status_code == 200, "it answers after registration completes"
    answer = gateway.post(f"/remove_worker?url={quote(worker.url, safe='')}")
    assert answer.status_code == 200
    assert answer.text == f"Successfully removed worker: {worker.url}"
    assert gateway.get("/list_workers").json() == {"urls": []}


def test_legacy_url_may_be_raw(gateway: Gateway, site: Site):
    worker = site.fake()
    assert gateway.raw_request("POST", f"/add_worker?url={worker.url}").status == 200
    assert gateway.get("/list_workers").json() == {"urls": [worker.url]}
    assert gateway.raw_request("POST", f"/remove_worker?url={worker.url}").status == 200


def test_legacy_key(gateway: Gateway, site: Site):
    worker = site.fake()
    target = f"/add_worker?url={quote(worker.url, safe='')}&api_key=legacy-key"
    assert gateway.post(target).status_code == 200
    gateway.chat()
    assert worker.last.get("authorization") == "Bearer legacy-key"
    assert "legacy-key" not in gateway.logs()


@pytest.mark.parametrize("target", ["/add_worker", "/add_worker?url=", "/add_worker?uri=http://x",
                                    "/add_worker?url=nonsense", "/add_worker?url=grpc://h:1",
                                    "/remove_worker", "/remove_worker?url=",
                                    "/remove_worker?url=http://127.0.0.1:1"])
def test_legacy_errors(standing: Gateway, target: str):
    answer = standing.raw_request("POST", target)
    assert answer.status == 400, answer
    assert answer.head.get("content-type").startswith("text/plain")
    assert answer.body


def test_legacy_add_that_fails(site: Site):
    """It waits for the job, and says 400 when the job failed."""
    gateway = site.gateway("--worker-startup-timeout-secs", "1")
    answer = gateway.post(f"/add_worker?url=http://127.0.0.1:{site.unused_port()}", timeout=60)
    assert answer.status_code == 400
    assert answer.text


def test_legacy_add_of_a_known_worker(gateway: Gateway, site: Site):
    worker = site.fake()
    gateway.add(worker)
    answer = gateway.post(f"/add_worker?url={worker.url}")
    assert answer.status_code in (200, 400)
    assert gateway.get("/list_workers").json() == {"urls": [worker.url]}
