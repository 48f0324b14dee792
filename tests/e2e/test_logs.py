"""Logs (spec 06, section 2): line shapes, levels, files, one access record, no secrets."""

from __future__ import annotations

import json
import re
import time

import pytest

from lib.fake_worker import closing, replying
from lib.gateway import Gateway
from lib.rawhttp import post, request_bytes
from lib.site import Site
from lib.wait import eventually

TEXT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG| INFO| WARN|ERROR) (.+)")
PLACE = re.compile(r"\S+: \S+\.[ch]:\d+: ")
ENDINGS = {"INFO": "finished processing request", "WARN": "request failed with client error",
           "ERROR": "request failed with server error"}


def out_lines(gateway: Gateway) -> list[str]:
    return gateway.stdout().splitlines()


def objects(gateway: Gateway) -> list[dict]:
    return [json.loads(line) for line in out_lines(gateway)]


def holds(value: object, wanted: object) -> bool:
    """True when wanted is somewhere in the object (fields may sit in a span)."""
    if isinstance(value, dict):
        return any(holds(v, wanted) for v in value.values())
    if isinstance(value, list):
        return any(holds(v, wanted) for v in value)
    return value == wanted


def find_field(value: object, name: str) -> object:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        for inner in value.values():
            found = find_field(inner, name)
            if found is not None:
                return found
    if isinstance(value, list):
        for inner in value:
            found = find_field(inner, name)
            if found is not None:
                return found
    return None


def access(gateway: Gateway, request_id: str) -> dict:
    """The one record of the request's end."""
    def record():
        found = [o for o in objects(gateway)
                 if o["target"] == "smg::response" and holds(o, request_id)]
        return found or None
    found = eventually(record, 5, what=f"access record of {request_id}")
    time.sleep(0.1)
    found = record()
    assert len(found) == 1, found
    return found[0]


# --- shapes -----------------------------------------------------------------------------------

def test_text_lines(site: Site):
    gateway = site.gateway(workers=[site.fake()])
    gateway.chat(headers={"x-request-id": "text-1"})
    eventually(lambda: "text-1" in gateway.stdout(), 5)
    lines = out_lines(gateway)
    for line in lines:
        assert TEXT.fullmatch(line), line
        assert PLACE.search(line), f"no target and place: {line}"
    assert "\x1b" not in gateway.logs(), "colour codes only on a terminal"
    ended = [line for line in lines if "text-1" in line and ENDINGS["INFO"] in line]
    assert len(ended) == 1, ended
    assert "smg::response" in ended[0]
    for part in ("method=POST", "/v1/chat/completions", "status_code=200", "latency="):
        assert part in ended[0], ended[0]


def test_start_line(site: Site):
    gateway = site.gateway()
    eventually(lambda: "Starting router on" in gateway.stdout(), 5)
    line = next(line for line in out_lines(gateway) if "Starting router on" in line)
    assert f"Starting router on 127.0.0.1:{gateway.port} | " in line
    assert "max_payload: 256MB" in line
    assert re.search(r"descriptors: \d+ -> \d+", line), line


def test_json_lines(site: Site):
    gateway = site.gateway("--log-json", workers=[site.fake()])
    gateway.chat(headers={"x-request-id": "json-1"})
    record = access(gateway, "json-1")
    for entry in objects(gateway):
        assert {"timestamp", "level", "message", "target", "filename", "line_number"} <= \
            set(entry), entry
        assert entry["level"] in ("DEBUG", "INFO", "WARN", "ERROR")
        assert isinstance(entry["line_number"], int)
    assert record["level"] == "INFO"
    assert record["message"] == ENDINGS["INFO"]
    assert find_field(record, "status_code") in (200, "200")
    assert isinstance(find_field(record, "latency"), int), "integer microseconds"
    assert find_field(record, "method") == "POST"
    assert find_field(record, "uri") == "/v1/chat/completions"
    assert find_field(record, "request_id") == "json-1"


CASES = [("ok", "/v1/completions", 200, "INFO"), ("bad", "/v1/completions", 404, "WARN"),
         ("down", "/v1/completions", 500, "ERROR")]


@pytest.mark.parametrize(("name", "path", "status", "level"), CASES)
def test_level_follows_the_status(site: Site, name: str, path: str, status: int, level: str):
    gateway = site.gateway("--log-json", "--disable-retries",
                           workers=[site.fake(replying(status, b"{}"))])
    gateway.post(path, {"model": "m"}, {"x-request-id": f"level-{name}"})
    record = access(gateway, f"level-{name}")
    assert (record["level"], record["message"]) == (level, ENDINGS[level])
    assert find_field(record, "status_code") in (status, str(status))


def test_access_record_of_every_kind_of_request(site: Site):
    worker = site.fake()
    gateway = site.gateway("--log-json", "--disable-retries", workers=[worker])
    gateway.get("/health", {"x-request-id": "a-health"})
    gateway.get("/nope", {"x-request-id": "a-404"})
    gateway.post("/v1/chat/completions", b"{", {"x-request-id": "a-400"})
    gateway.post("/v1/tokenize", {}, {"x-request-id": "a-501"})
    worker.queue.append(closing)
    worker.queue.append(closing)
    gateway.chat(headers={"x-request-id": "a-502"})

    def broken(x):
        x.stream()
        x.event("one")
        x.sleep(0.02)
        x.close()
    worker.queue.clear()
    worker.queue.append(broken)
    gateway.chat(stream=True, headers={"x-request-id": "a-broken"})
    for name in ("a-health", "a-404", "a-400", "a-501", "a-502", "a-broken"):
        access(gateway, name)
    assert holds(access(gateway, "a-502"), "call_upstream_connection_failed") or \
        "call_upstream" in json.dumps(access(gateway, "a-502"))
    assert "upstream_stream_broken" in json.dumps(access(gateway, "a-broken"))


def test_access_record_of_a_client_that_left(site: Site):
    worker = site.fake(lambda x: x.wait_gone(30))
    gateway = site.gateway("--log-json", workers=[worker])
    conn = gateway.raw().send(post("/v1/chat/completions", b"{}",
                                   [("X-Request-Id", "left-1")]))
    eventually(lambda: worker.requests, 5)
    conn.close()
    access(gateway, "left-1")


def test_hostile_values_stay_on_their_line(site: Site):
    """What a client or worker sends can neither forge a line nor break the JSON."""
    worker = site.fake(replying(500, b"x\n2025-01-01 00:00:00 ERROR forged: a.c:1: x"))
    for flags in ((), ("--log-json",)):
        gateway = site.gateway("--log-level", "debug", "--disable-retries", *flags,
                               workers=[worker])
        gateway.raw_request("GET", "/nope/%0a%0dforged%1b[31m\"}{", [
            ("X-Request-Id", 'quote"back\\slash'), ("User-Agent", "a\tb\x80")])
        gateway.chat(model='m"\n\r\u2028\x1b[0m')
        gateway.post("/workers", {"url": "http://x\n2025-01-01 00:00:00  INFO forged"})
        time.sleep(0.3)
        for line in out_lines(gateway):
            if flags:
                json.loads(line)
            else:
                assert TEXT.fullmatch(line), line
        assert "\x1b" not in gateway.stdout()


# --- levels -----------------------------------------------------------------------------------

LEVELS = ["DEBUG", "INFO", "WARN", "ERROR"]


def exercised(site: Site, *flags: str, **kw: object) -> Gateway:
    worker = site.fake()
    gateway = site.gateway("--log-json", "--disable-retries", *flags, workers=[worker], **kw)
    gateway.chat(headers={"x-request-id": "fine"})
    worker.queue.append(replying(404, b"{}"))
    gateway.chat()
    worker.queue.append(replying(500, b"{}"))
    gateway.chat(headers={"x-request-id": "last"})
    if gateway.stdout():
        eventually(lambda: "last" in gateway.stdout(), 5)
    time.sleep(0.2)
    return gateway


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_log_level(site: Site, level: str):
    gateway = exercised(site, "--log-level", level)
    seen = {entry["level"] for entry in objects(gateway)}
    wanted = set(LEVELS[LEVELS.index(level.upper()):])
    assert seen <= wanted, seen
    assert wanted - {"DEBUG"} <= seen, seen


@pytest.mark.parametrize("name", ["RUST_LOG", "SGL_LOG"])
def test_environment_overrides_the_flag(site: Site, name: str):
    gateway = exercised(site, "--log-level", "debug", environ={name: "error"})
    assert {entry["level"] for entry in objects(gateway)} == {"ERROR"}


def test_policy_warning(site: Site):
    """Issue part 5: a name of a later issue is served by round_robin and named in one line."""
    gateway = site.gateway("--policy", "cache_aware", workers=[site.fake(), site.fake()])
    gateway.chat()
    time.sleep(0.2)
    named = [line for line in out_lines(gateway) if "cache_aware" in line and " WARN " in line]
    assert len(named) == 1, named
    assert "round_robin" in named[0]


def test_default_policy_says_what_serves(site: Site):
    gateway = site.gateway()
    eventually(lambda: "round_robin" in gateway.stdout(), 5)


# --- files ------------------------------------------------------------------------------------

def test_log_dir(site: Site):
    directory = site.directory / "made" / "logs"
    gateway = site.gateway("--log-dir", str(directory), workers=[site.fake()])
    gateway.chat(headers={"x-request-id": "filed-1"})
    gateway.stop()
    names = [p.name for p in directory.iterdir()]
    assert names == [time.strftime("smg.%Y-%m-%d", time.gmtime())]
    text = (directory / names[0]).read_text()
    assert "filed-1" in text
    assert "\x1b" not in text
    assert all(TEXT.fullmatch(line) for line in text.splitlines())
    assert [line for line in gateway.stdout().splitlines() if "filed-1" in line], \
        "stdout has the lines too"


def test_log_dir_json(site: Site):
    directory = site.directory / "logs"
    gateway = site.gateway("--log-dir", str(directory), "--log-json", workers=[site.fake()])
    gateway.chat()
    gateway.stop()
    for line in next(directory.iterdir()).read_text().splitlines():
        json.loads(line)


def test_log_file_is_appended_to(site: Site):
    directory = site.directory / "logs"
    for name in ("first-run", "second-run"):
        gateway = site.gateway("--log-dir", str(directory), workers=[site.fake()])
        gateway.chat(headers={"x-request-id": name})
        gateway.stop()
    text = next(directory.iterdir()).read_text()
    assert "first-run" in text and "second-run" in text


def test_log_dir_that_cannot_be_made(site: Site):
    """Never silently without logs: it starts and logs to stdout, or refuses with the reason."""
    (site.directory / "file").write_text("x")
    done = site.gateway("--log-dir", str(site.directory / "file" / "logs"), wait=None)
    eventually(lambda: not done.alive() or done.stdout(), 10)
    assert "file/logs" in done.logs()
    if not done.alive():
        done.expect_exit(1)


def test_no_line_is_lost_under_load(site: Site):
    gateway = site.gateway("--log-json", workers=[site.fake()])
    with gateway.raw() as conn:
        for number in range(2000):
            conn.send(request_bytes("GET", "/health", [("X-Request-Id", f"load-{number}")]))
        for _ in range(2000):
            conn.read_answer()
    gateway.stop()
    seen = [find_field(o, "request_id") for o in objects(gateway)
            if o["target"] == "smg::response"]
    mine = [name for name in seen if str(name).startswith("load-")]
    assert len(mine) == 2000
    assert len(set(mine)) == 2000


# --- secrets ----------------------------------------------------------------------------------

SECRETS = {
    "gateway key": "sk-gateway-4f9b", "worker key": "sk-worker-77aa",
    "patched key": "sk-patched-1c2d", "client key": "sk-client-93be",
    "wrong key": "sk-wrong-0d0d", "legacy key": "sk-legacy-5e5e", "query key": "sk-query-8a8a",
    "query token": "sk-token-6b6b", "prompt": "the-secret-prompt-of-the-client",
    "answer": "the-secret-answer-of-the-worker", "cookie": "sk-cookie-2f2f",
    "broken worker key": "sk-broken-3d3d",
}


def everything_that_can_leak(site: Site, *flags: str) -> tuple[Gateway, list[str]]:
    """A gateway that has met every secret on good and bad paths, and what it answered."""
    s = SECRETS
    worker, keyed = site.fake(replying(200, {"text": s["answer"]})), site.fake()
    gateway = site.gateway("--log-level", "debug", "--api-key", s["gateway key"],
                           "--retry-initial-backoff-ms", "1", *flags, workers=[worker])
    worker_id = gateway.add(keyed, api_key=s["worker key"])
    gateway.call("PATCH", f"/workers/{worker_id}", json={"api_key": s["patched key"]})
    answers = [
        gateway.chat(s["prompt"]), gateway.chat(s["prompt"], stream=True),
        gateway.chat(headers={"authorization": f"Bearer {s['wrong key']}"}),
        gateway.chat(headers={"authorization": f"Basic {s['client key']}",
                              "cookie": s["cookie"]}),
        gateway.get("/get_model_info", {"authorization": f"Bearer {s['client key']}"}),
        gateway.get(f"/nope?api_key={s['query key']}&token={s['query token']}"),
        gateway.get(f"/health?key={s['query key']}"),
        gateway.post(f"/add_worker?url=http://127.0.0.1:1x&api_key={s['legacy key']}"),
        gateway.post("/workers", {"url": "nonsense", "api_key": s["broken worker key"]}),
        gateway.post("/workers", b'{"api_key":"' + s["broken worker key"].encode() + b'",}'),
        gateway.get("/workers"), gateway.get(f"/workers/{worker_id}"),
        gateway.get("/health?details"), gateway.get("/get_loads"), gateway.post("/flush_cache"),
        gateway.get("/engine_metrics"), gateway.get("/v1/models"),
    ]
    worker.die()
    keyed.die()
    answers += [gateway.chat(s["prompt"]), gateway.get("/get_server_info")]
    allowed = {s["answer"]}
    texts = [a.text + str(a.headers) for a in answers]
    return gateway, [t for t in texts if not any(word in t for word in allowed)]


@pytest.mark.parametrize("flags", [(), ("--log-json",)], ids=["text", "json"])
def test_no_secret_shows_anywhere(site: Site, flags: tuple[str, ...]):
    directory = site.directory / "logs"
    gateway, answers = everything_that_can_leak(site, "--log-dir", str(directory), *flags)
    metrics = gateway.metrics().text
    gateway.stop()
    files = "".join(p.read_text() for p in directory.iterdir())
    assert "processing request" in files
    for name, secret in SECRETS.items():
        for place, text in [("log", gateway.logs()), ("log file", files), ("metrics", metrics),
                            *[(f"answer {n}", a) for n, a in enumerate(answers)]]:
            assert secret not in text, f"{name} in the {place}"


@pytest.mark.parametrize("argv", [
    ["--api-key", "sk-argv-1", "--port", "0"], ["--api-key", "sk-argv-1", "--nonsense"],
    ["--api-key=sk-argv-1", "--retry-max-retries", "x"],
    ["--worker-urls", "http://user:sk-argv-1@h:1", "--port", "0"]])
def test_no_secret_in_a_refusal(site: Site, argv: list[str]):
    done = site.run(*argv)
    assert done.returncode != 0
    assert "sk-argv-1" not in done.stdout + done.stderr
