/* Rows: the server itself, limits of connections, start and stop. A pure table. */
#include "app/option_table.h"

static const struct opt_row core_rows[] = {
    {.name = "host", .type = OPT_STR, .tag = "SEED", FILLS_GATEWAY(host), .initial = "127.0.0.1",
     .value = "ADDRESS", OPT_NOT_EMPTY,
     .help = "Address to listen on: IPv4, IPv6 (with or without brackets) or a host name."},
    {.name = "port", .type = OPT_INT, .tag = "SEED", FILLS_GATEWAY(port), .initial = "30000",
     PORT_RANGE, .help = "Port to listen on."},
    {.name = "health-check-port", .type = OPT_INT, .tag = "SMG", FILLS_GATEWAY(health_check_port),
     PORT_RANGE,
     .help = "One more listener that serves only /liveness, /readiness and /health. The main port "
             "serves them too."},
    {.name = "max-payload-size", .type = OPT_INT, .tag = "SEED", FILLS_GATEWAY(limits.max_body),
     .initial = "268435456", .value = "BYTES", OPT_MIN(1),
     .help = "Largest request body; a larger one is answered 413."},
    {.name = "request-timeout-secs", .type = OPT_INT, .tag = "SEED", FILLS(request_timeout_s),
     .initial = "600", SECS_FROM(1),
     .help = "Deadline of a whole client request: all attempts, waits and the stream included."},
    {.name = "cors-allowed-origins", .type = OPT_LIST, .tag = "0.3.2",
     FILLS_GATEWAY(cors_origins), .value = "ORIGIN...",
     .help = "Origins that browsers may call from. Empty: any origin."},
    {.name = "runtime-worker-threads", .type = OPT_INT, .tag = "SMG",
     FILLS_GATEWAY(runtime_threads), OPT_RANGE(1, 256),
     .initial_help = "CPUs of the process (quota and affinity)",
     .help = "Event loops that serve requests, one thread each."},
    {.name = "backend", .aliases = "runtime", .type = OPT_CHOICE, .tag = "SEED",
     FILLS(settings.backend), .initial = "sglang",
     .choices = "sglang vllm trtllm tokenspeed openai anthropic gemini",
     .help = "What kind of workers stand behind. openai, anthropic and gemini are known, but not "
             "available yet."},
    {.name = "api-key", .type = OPT_STR, .tag = "SEED", FILLS(api_key), .secret = true,
     .value = "KEY", OPT_NOT_EMPTY,
     .help = "Key that clients must send (Authorization: Bearer KEY); workers named by "
             "--worker-urls get it too. Unset: no key is asked for."},
    {.name = "api-key-file", .type = OPT_STR, .tag = "OURS", .status = OPT_NOT_YET,
     .value = "FILE", .help = "File that holds the key of --api-key."},
    {.name = "config", .type = OPT_STR, .tag = "OURS", FILLS(settings.config_path),
     .value = "FILE", OPT_NOT_EMPTY,
     .help = "YAML file with the names of these flags, without the dashes in front. The command "
             "line and the environment go before it."},
    {.name = "seed", .type = OPT_INT, .tag = "OURS", FILLS(settings.seed),
     .initial_help = "random",
     .help = "Seed of every random choice: the same seed gives the same choices."},
};
OPTION_GROUP(core, "Server");

static const struct opt_row limits_rows[] = {
    {.name = "max-connections", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(limits.max_connections), .initial = "0", OPT_MIN(0),
     .help = "Client connections open at once; new ones wait in the kernel's queue at the limit. "
             "0: as many as the descriptor limit allows."},
    {.name = "max-header-bytes", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(limits.max_header_bytes), .initial = "65536", .value = "BYTES",
     OPT_RANGE(1, 1 << 30),
     .help = "Largest request head (431 above it; 414 for a request line over 8 KiB)."},
    {.name = "max-headers", .type = OPT_INT, .tag = "OURS", FILLS_GATEWAY(limits.max_headers),
     .initial = "100", OPT_RANGE(1, 1000000), .help = "Most header lines of a request (431)."},
    {.name = "header-timeout-secs", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(limits.header_timeout_ms), .initial = "10", SECS_FROM(1), SECS_TO_MS,
     .help = "Longest time from the first byte of a request head to its end; then 408 and close."},
    {.name = "idle-timeout-secs", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(limits.idle_timeout_ms), .initial = "75", SECS_FROM(1), SECS_TO_MS,
     .help = "Idle time after which a client's kept-alive connection is closed."},
    {.name = "connect-timeout-secs", .type = OPT_INT, .tag = "OURS", FILLS(connect_timeout_s),
     .initial = "10", SECS_FROM(1),
     .help = "Longest time for one connect to a worker; then another worker is tried."},
    {.name = "first-byte-timeout-secs", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(first_byte_timeout_ms), .initial = "0", SECS_FROM(0), SECS_TO_MS,
     .help = "Longest time from the request sent to the worker to the head of its answer; then "
             "504, not sent again. 0: off."},
    {.name = "stream-idle-timeout-secs", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(stream_idle_timeout_ms), .initial = "0", SECS_FROM(0), SECS_TO_MS,
     .help = "Longest silence between two pieces of a worker's answer; then the answer is ended. "
             "0: off."},
    {.name = "stream-resume", .type = OPT_BOOL, .tag = "OURS", .status = OPT_NOT_YET,
     .help = "When a worker dies inside a stream, go on with it on another worker (chat and "
             "completions)."},
    {.name = "upstream-idle-per-worker", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(limits.upstream_idle_per_worker), .initial = "64", OPT_RANGE(0, 1000000),
     .help = "Idle connections kept to each worker, per event loop. 0: none."},
    {.name = "max-upstream-connections", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(limits.max_upstream), .initial = "0", OPT_MIN(0),
     .help = "Connections to workers open at once, busy ones included. When all are busy a "
             "request waits up to --connect-timeout-secs. 0: as many as the descriptor limit "
             "allows."},
    {.name = "memory-limit", .type = OPT_INT, .tag = "OURS", FILLS_GATEWAY(limits.memory_bytes),
     .value = "BYTES", OPT_MIN(0), .initial_help = "3/4 of the memory of the cgroup or machine",
     .help = "Memory quota of the process: bodies over 1 MiB are not read while there is no room. "
             "0: off."},
    {.name = "overload-retry-after-secs", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(overload_retry_after_s), .initial = "1", SECS_FROM(1),
     .help = "Retry-After of the answer 503 overloaded."},
    {.name = "prefix-index-memory", .type = OPT_INT, .tag = "OURS", .status = OPT_NOT_YET,
     .value = "BYTES", OPT_MIN(1),
     .initial_help = "512 MiB, or 1/8 of the cgroup memory limit if that is less",
     .help = "Most memory of the prefix index, all workers together."},
    {.name = "worker-url-allow", .type = OPT_LIST, .tag = "OURS", FILLS(worker_url_allow),
     .value = "CIDR|HOST...",
     .help = "Addresses of workers that REST calls may add, checked after name resolution. Empty: "
             "any."},
    {.name = "strict-urls", .type = OPT_BOOL, .tag = "OURS", FILLS_FLEET(strict_urls),
     .help = "Refuse private, loopback and link-local worker addresses unless "
             "--worker-url-allow lists them."},
    {.name = "allow-link-local-workers", .type = OPT_BOOL, .tag = "OURS",
     FILLS_FLEET(allow_link_local),
     .help = "Allow workers at link-local addresses (169.254.0.0/16, fe80::/10), where clouds "
             "keep their metadata services."},
};
OPTION_GROUP(limits, "Connections and limits");

static const struct opt_row lifecycle_rows[] = {
    {.name = "shutdown-grace-period-secs", .type = OPT_INT, .tag = "0.3.2",
     FILLS_GATEWAY(shutdown_grace_ms), .initial = "180", SECS_FROM(0), SECS_TO_MS,
     .help = "Longest time that requests in flight get to finish after SIGTERM."},
    {.name = "shutdown-settle-secs", .type = OPT_INT, .tag = "OURS",
     FILLS_GATEWAY(shutdown_settle_ms), .initial = "5", SECS_FROM(0), SECS_TO_MS,
     .help = "After SIGTERM new connections are still accepted for this long, at most half the "
             "grace period, so that load balancers can notice."},
    {.name = "upgrade-timeout-secs", .type = OPT_INT, .tag = "OURS", .status = OPT_NOT_YET,
     .initial = "30", SECS_FROM(1),
     .help = "An upgrade's new process must be ready within this time, else the old one goes on."},
    {.name = "handover-index", .type = OPT_BOOL, .tag = "OURS", .status = OPT_NOT_YET,
     .help = "Hand the prefix index to the new process of an upgrade."},
    {.name = "supervise", .type = OPT_BOOL, .tag = "OURS", .status = OPT_NOT_YET,
     .help = "Keep a small parent process whose pid stays over upgrades."},
};
OPTION_GROUP(lifecycle, "Stop and upgrade");

static const struct opt_row commands_rows[] = {
    {.name = "connection-mode", .type = OPT_CHOICE, .tag = "SMG", .status = OPT_NOT_YET,
     .initial = "grpc", .choices = "grpc http zmq",
     .help = "serve: how the gateway talks to the workers it starts."},
    {.name = "data-parallel-size", .aliases = "dp-size", .type = OPT_INT, .tag = "SMG",
     .status = OPT_NOT_YET, .initial = "1", OPT_MIN(1), .help = "serve: number of workers."},
    {.name = "worker-host", .type = OPT_STR, .tag = "SMG", .status = OPT_NOT_YET,
     .initial = "127.0.0.1", .value = "ADDRESS", .help = "serve: address of the workers."},
    {.name = "worker-base-port", .type = OPT_INT, .tag = "SMG", .status = OPT_NOT_YET,
     .initial = "31000", PORT_RANGE, .help = "serve: first port to look for free ones."},
    {.name = "worker-startup-timeout", .type = OPT_INT, .tag = "SMG", .status = OPT_NOT_YET,
     .initial = "300", SECS_FROM(1), .help = "serve: longest time for one worker to start."},
    {.name = "enable-token-usage-details", .type = OPT_BOOL, .tag = "SMG",
     .status = OPT_NOT_YET, .help = "serve: ask workers for cached-token counts in HTTP mode."},
    {.name = "router-dp-worker-base-port", .type = OPT_INT, .tag = "SEED",
     .status = OPT_NOT_YET, .initial = "31000", PORT_RANGE,
     .help = "launch-server: first port to look for free ones."},
    {.name = "router-disable-arg-fallback", .type = OPT_BOOL, .tag = "SMG",
     .status = OPT_NOT_YET,
     .help = "launch-server, serve: do not use a worker's flag for the router's flag of that "
             "name."},
    {.name = "now", .type = OPT_STR, .tag = "OURS", .status = OPT_NOT_YET, .value = "TIME",
     .initial_help = "the clock", .help = "render: local time that templates see (ISO 8601)."},
};
OPTION_GROUP(commands, "Other sub-commands");
