"""Command line, configuration file, validation (spec 01 sections 1.1 to 1.3, 1.19, 1.20, 8.4)."""

from __future__ import annotations

import re
import socket
import time

import pytest

from lib import env
from lib.rawhttp import RawConn
from lib.site import Site

# Flags of issue 2, part 5: 01 sections 1.2, 1.3, 1.6, 1.7, 1.12 and the limits of 1.20.
WORKING = """
--host --port --health-check-port --max-payload-size --request-timeout-secs
--shutdown-grace-period-secs --cors-allowed-origins --runtime-worker-threads --backend
--worker-urls --worker-startup-timeout-secs --worker-startup-check-interval
--worker-startup-delay --api-key --dp-aware --enable-igw --policy
--retry-max-retries --retry-initial-backoff-ms --retry-max-backoff-ms
--retry-backoff-multiplier --retry-jitter-factor --disable-retries --cb-failure-threshold
--cb-success-threshold --cb-timeout-duration-secs --cb-window-duration-secs
--disable-circuit-breaker --health-failure-threshold --health-success-threshold
--health-check-timeout-secs --health-check-interval-secs --health-check-endpoint
--disable-health-check --remove-unhealthy-workers --drain-settle-secs
--log-level --log-dir --log-json --prometheus-port --prometheus-host
--prometheus-duration-buckets --request-id-headers
--config --max-connections --max-header-bytes --max-headers --header-timeout-secs
--idle-timeout-secs --connect-timeout-secs --first-byte-timeout-secs
--stream-idle-timeout-secs --upstream-idle-per-worker --max-upstream-connections
--retry-budget-percent --cb-fail-open --metrics-naming --shutdown-settle-secs
""".split()


# --- help and version -------------------------------------------------------------------------

@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(site: Site, flag: str):
    done = site.run(flag)
    assert done.returncode == 0
    assert done.stderr == ""
    missing = [name for name in WORKING if not re.search(rf"{name}\b", done.stdout)]
    assert missing == []


def test_help_of_the_sub_command(site: Site):
    assert "--worker-urls" in site.run("launch", "--help").stdout
    assert "--count" in site.run("mock-worker", "--help").stdout


def test_help_shows_seed_defaults(site: Site):
    text = site.run("--help").stdout
    for name, default in [("--port", "30000"), ("--host", "127.0.0.1"),
                          ("--max-payload-size", "268435456"), ("--cb-failure-threshold", "5"),
                          ("--prometheus-port", "29000"), ("--retry-max-retries", "5")]:
        at = text.index(name)
        assert default in text[at:at + 400], name


@pytest.mark.parametrize("argv", [["--version"], ["-V"], ["launch", "--version"],
                                  ["--port", "1", "--version"], ["--nonsense", "-V"]])
def test_version_wins_anywhere(site: Site, argv: list[str]):
    done = site.run(*argv)
    assert done.returncode == 0
    assert re.fullmatch(r"sluice \d+\.\d+\.\d+\S*\n", done.stdout), done.stdout
    assert done.stderr == ""


def test_verbose_version(site: Site):
    done = site.run("--version-verbose")
    assert done.returncode == 0
    assert site.run("--version").stdout.split()[1] in done.stdout
    assert len(done.stdout.splitlines()) > 1


# --- usage errors: exit 2 ---------------------------------------------------------------------

USAGE = [
    (["--nonsense"], "--nonsense"), (["--port"], "--port"), (["--port", "many"], "--port"),
    (["--port", "1.5"], "--port"), (["--port", ""], "--port"), (["--port", "0x50"], "--port"),
    (["--policy", "best"], "--policy"), (["--backend", "none"], "--backend"),
    (["--metrics-naming", "all"], "--metrics-naming"),
    (["--request-timeout-secs", "ten"], "--request-timeout-secs"),
    (["--retry-jitter-factor", "much"], "--retry-jitter-factor"),
    (["--log-json=maybe"], "--log-json"), (["stray"], "stray"), (["launch", "stray"], "stray"),
    (["-p", "1"], "-p"), (["--port", "1", "launch"], "launch"),
]


@pytest.mark.parametrize(("argv", "named"), USAGE, ids=lambda v: " ".join(v)
                         if isinstance(v, list) else v)
def test_usage_error(site: Site, argv: list[str], named: str):
    done = site.run(*argv)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert done.stdout == ""


# --- validation: exit 1 -----------------------------------------------------------------------

INVALID = [
    (["--port", "0"], "port"), (["--port", "70000"], "port"), (["--port", "-1"], "port"),
    (["--max-payload-size", "99999999999999999999999"], "max_payload_size"),
    (["--health-check-port", "0"], "health_check_port"),
    (["--max-payload-size", "0"], "max_payload_size"),
    (["--request-timeout-secs", "0"], "request_timeout_secs"),
    (["--worker-startup-timeout-secs", "0"], "worker_startup_timeout_secs"),
    (["--worker-startup-check-interval", "0"], "worker_startup_check_interval"),
    (["--retry-max-retries", "0"], "retry."), (["--retry-initial-backoff-ms", "0"], "retry."),
    (["--retry-initial-backoff-ms", "100", "--retry-max-backoff-ms", "50"], "retry."),
    (["--retry-backoff-multiplier", "0.9"], "retry."),
    (["--retry-jitter-factor", "1.1"], "retry."), (["--retry-jitter-factor", "-0.1"], "retry."),
    (["--cb-failure-threshold", "0"], "circuit_breaker."),
    (["--cb-success-threshold", "0"], "circuit_breaker."),
    (["--cb-timeout-duration-secs", "0"], "circuit_breaker."),
    (["--cb-window-duration-secs", "0"], "circuit_breaker."),
    (["--prometheus-port", "0"], "metrics."), (["--prometheus-host", ""], "metrics."),
    (["--max-header-bytes", "0"], "max_header_bytes"), (["--max-headers", "0"], "max_headers"),
    (["--header-timeout-secs", "0"], "header_timeout_secs"),
    (["--idle-timeout-secs", "0"], "idle_timeout_secs"),
    (["--connect-timeout-secs", "0"], "connect_timeout_secs"),
    (["--worker-urls", "nonsense"], "worker_url"), (["--worker-urls", "ftp://h:1"], "worker_url"),
    (["--worker-urls", "HTTP://h:1"], "worker_url"), (["--worker-urls", "http://"], "worker_url"),
    (["--worker-urls", ""], "worker_url"), (["--worker-urls", "http://h:99999"], "worker_url"),
    (["--worker-urls", "http://a:1", "http://b:x"], "worker_url"),
]
LAYOUT = r"Invalid value for field '{field}[^']*': .* - .+"


@pytest.mark.parametrize(("argv", "field"), INVALID, ids=lambda v: " ".join(v)
                         if isinstance(v, list) else v)
def test_invalid_value(site: Site, argv: list[str], field: str):
    done = site.run(*argv)
    assert done.returncode == 1, done.stderr
    assert re.search(LAYOUT.format(field=re.escape(field)), done.stderr), done.stderr


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_grpc_workers_are_refused_with_the_reason(site: Site, scheme: str):
    done = site.run("--worker-urls", f"{scheme}://127.0.0.1:31000")
    assert done.returncode == 1
    assert re.search(r"Incompatible configuration: .*grpc", done.stderr, re.IGNORECASE)
    assert "issue" in done.stderr.lower(), "it names the issue that brings it"


LATER = [
    ["--pd-disaggregation"], ["--prefill", "http://h:1"], ["--decode", "http://h:1"],
    ["--service-discovery"], ["--selector", "app=x"], ["--tls-cert-path", "/x"],
    ["--control-plane-api-keys", "a:b:admin:c"], ["--jwt-issuer", "http://x"],
    ["--enable-trace"], ["--priority-scheduler-enabled"], ["--tenant-rate-limit-enabled"],
    ["--mcp-config-path", "/x"], ["--enable-wasm"], ["--enable-mesh"],
    ["--history-backend", "postgres"], ["--history-backend", "oracle"], ["--stream-resume"],
    ["--explain-header"], ["--record", "/x"], ["--supervise"], ["--model-path", "/x"],
    ["--tokenizer-path", "/x"], ["--reasoning-parser", "qwen3"],
    ["--tenant-api-key", "a:b"], ["--model-alias", "a=b"], ["--routing-key-override"],
]


@pytest.mark.parametrize("argv", LATER, ids=" ".join)
def test_flag_of_a_later_part_is_refused_not_ignored(site: Site, argv: list[str]):
    done = site.run(*argv)
    assert done.returncode in (1, 2), "it was accepted"
    assert argv[0] in done.stderr or argv[0][2:].replace("-", "_") in done.stderr, done.stderr
    assert "unknown" not in done.stderr.lower(), "the flag is known, its part is not there yet"


@pytest.mark.parametrize("policy", ["cache_aware", "random", "round_robin"])
def test_policies_are_accepted(site: Site, policy: str):
    gateway = site.gateway("--policy", policy, workers=[site.fake(), site.fake()])
    assert gateway.chat().status_code == 200


# --- grammar ----------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [(), ("launch",), ("start",)])
def test_sub_commands(site: Site, command: tuple[str, ...]):
    assert site.gateway(command=command).get("/health").text == "OK"


def test_equals_form(site: Site):
    worker = site.fake()
    gateway = site.gateway(f"--worker-urls={worker.url}", "--max-payload-size=50", wait="live")
    gateway.wait_ready(1)
    assert gateway.post("/v1/completions", b'{"a":1}').status_code == 200
    assert gateway.post("/v1/completions", b'{"a":"' + b"b" * 60 + b'"}').status_code == 413


def test_lists_take_many_and_add_up(site: Site):
    workers = [site.fake() for _ in range(4)]
    gateway = site.gateway("--worker-urls", workers[0].url, workers[1].url, "--log-level",
                           "info", "--worker-urls", workers[2].url,
                           f"--worker-urls={workers[3].url}", wait="live")
    gateway.wait_ready(4)
    assert {w["url"] for w in gateway.workers()} == {w.url for w in workers}


def test_empty_list(site: Site):
    assert site.gateway("--worker-urls", "--log-level", "info").get("/health").text == "OK"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "[::1]", "::"])
def test_host_forms(site: Site, host: str):
    """D7: IPv4, IPv6 (bare or bracketed) and names."""
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    port = site.unused_port()
    gateway = site.gateway("--host", host, "--port", str(port), wait=None)
    gateway.port = port
    gateway.host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
    gateway.client.base_url = gateway.base
    gateway.wait_live()


def test_seed_default_address(site: Site):
    """Without flags it would be 127.0.0.1:30000; the help says so and nothing else is bound."""
    gateway = site.gateway()
    with socket.socket() as sock:
        sock.settimeout(2)
        address = next((a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None,
                                                            socket.AF_INET)
                        if not a[4][0].startswith("127.")), None)
        if address is None:
            pytest.skip("no address beside loopback here")
        with pytest.raises(OSError):
            sock.connect((address, int(gateway.port)))


# --- ports in use -----------------------------------------------------------------------------

@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.mark.parametrize("flag", ["--port", "--prometheus-port", "--health-check-port"])
def test_port_in_use(site: Site, taken: int, flag: str):
    argv = {"--port": str(site.unused_port()), "--prometheus-port": str(site.unused_port()),
            "--prometheus-host": "127.0.0.1"} | {flag: str(taken)}
    done = site.run(*[part for pair in argv.items() for part in pair])
    assert done.returncode == 1, done.stderr
    assert str(taken) in done.stderr + done.stdout, "the message names the address"


def test_second_gateway_on_the_same_port(site: Site):
    gateway = site.gateway()
    done = site.run("--port", gateway.port, "--prometheus-port", site.unused_port(),
                    "--prometheus-host", "127.0.0.1")
    assert done.returncode == 1
    assert gateway.get("/health").text == "OK"


# --- the configuration file -------------------------------------------------------------------

def config(site: Site, text: str, name: str = "sluice.yaml") -> str:
    path = site.directory / name
    path.write_text(text)
    return str(path)


def test_config_file(site: Site):
    workers = [site.fake(), site.fake()]
    path = config(site, f"""
# a comment
max-payload-size: 100
policy: round_robin
worker-urls:
  - {workers[0].url}
  - {workers[1].url}
disable-retries: true
retry-jitter-factor: 0.5
api-key: "from-the-file"
request-id-headers: [x-mine]
""")
    gateway = site.gateway("--config", path, wait="live")
    gateway.key = "from-the-file"
    gateway.wait_ready(2)
    assert gateway.client.get("/workers").status_code == 401
    assert gateway.post("/v1/completions", b"x" * 101).status_code == 413
    answer = gateway.post("/v1/completions", {}, {"x-mine": "id-1"})
    assert answer.headers["x-request-id"] == "id-1"


def test_command_line_wins_over_the_file(site: Site):
    path = config(site, "max-payload-size: 10\nlog-level: debug\n")
    gateway = site.gateway("--config", path, "--max-payload-size", "1000", workers=[site.fake()])
    assert gateway.post("/v1/completions", b'{"a":"' + b"b" * 500 + b'"}').status_code == 200


@pytest.mark.parametrize(("text", "named"), [
    ("nonsense: 1\n", "nonsense"), ("port: many\n", "port"), ("port: 0\n", "port"),
    ("- a\n- b\n", ""), ("port: [1\n", ""), ("retry-jitter-factor: 7\n", "retry"),
    ("policy: best\n", "policy"), ("port: 1\nport: 2\n", "port"),
    ("worker-urls: {a: b}\n", "worker"), ("disable-retries: perhaps\n", "disable"),
    ("stream-resume: true\n", "stream"),
])
def test_bad_config_file(site: Site, text: str, named: str):
    path = config(site, text, "broken.yaml")
    done = site.run("--config", path)
    assert done.returncode in (1, 2), done.stderr
    assert named in done.stderr
    assert "broken.yaml" in done.stderr, "the message names the file"


def test_missing_config_file(site: Site):
    done = site.run("--config", "/nowhere/sluice.yaml")
    assert done.returncode == 1
    assert "/nowhere/sluice.yaml" in done.stderr


def test_empty_config_file(site: Site):
    gateway = site.gateway("--config", config(site, "# nothing\n"))
    assert gateway.get("/health").text == "OK"


def test_config_file_names_with_underscores_or_not_at_all(site: Site):
    """Same names as the flags without --: another spelling is either that flag or an error."""
    path = config(site, "max_payload_size: 10\n")
    done = site.gateway("--config", path, wait=None)
    try:
        done.wait_live()
    except AssertionError:
        done.expect_exit(None)
        assert "max_payload_size" in done.stderr()
        return
    assert done.post("/v1/completions", b"x" * 11).status_code == 413


# --- small promises ---------------------------------------------------------------------------

@pytest.mark.skipif(env.sanitized() if env.BINARY.exists() else False,
                    reason="times and sizes mean nothing under a sanitizer")
def test_start_is_quick_and_small(site: Site):
    """The issue: ready in under 50 ms, RSS at start under 12 MB, under 5 MB stripped.

    The best of ten, since other tests use the same CPUs.
    """
    times = []
    for _ in range(10):
        begin = time.monotonic()
        gateway = site.gateway(wait=None)
        while True:
            try:
                RawConn(int(gateway.port)).close()
                break
            except OSError:
                assert gateway.alive(), gateway.logs()
                time.sleep(0.001)
        times.append(time.monotonic() - begin)
        gateway.wait_live()
        assert gateway.rss() < 12 << 20
        gateway.stop()
    assert min(times) < 0.05, times
    assert env.BINARY.stat().st_size < 5 << 20
