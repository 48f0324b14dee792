/* See gateway.h. Three servers: the API on the data loops, the metrics page and the probe port
 * on the control loop, where no load of the data plane reaches them. */
#include "gateway/gateway.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "gateway/counts.h"
#include "gateway/forward.h"
#include "gateway/identity.h"
#include "observe/access.h"

#define DRAIN_LOOK_MS 20
#define PROBE_MEMORY_MS 60000
#define PROBE_BODY_MAX 65536
#define WRITE_TIMEOUT_MS 60000

struct gateway {
    const struct gateway_settings *settings;
    struct policy *policy;
    struct http_server *api, *metrics, *probes;
    struct listener *api_listener, *metrics_listener, *probe_listener;
    int64_t started_ms;
    _Atomic int64_t probed_ms; /* last look at readiness, 0: never */
    _Atomic bool draining;
};

bool gateway_draining(const struct gateway *gateway) { return atomic_load(&gateway->draining); }
int64_t gateway_started_ms(const struct gateway *gateway) { return gateway->started_ms; }
struct policy *gateway_policy(const struct gateway *gateway) {
    return gateway->policy;
}
void gateway_probed(struct gateway *gateway) { atomic_store(&gateway->probed_ms, clock_ms()); }

uint64_t gateway_config_version(const struct gateway *gateway) {
    (void)gateway;
    return 1; /* rises with reloads, which a later version brings */
}

/* --- one request --- */

FIBER_FN bool gateway_authorize(struct request *request, enum route_auth auth) {
    if (auth == AUTH_PUBLIC || request->settings->api_key == NULL)
        return true;
    if (forward_own_key(request, headers_get(&request->http->headers, STR("authorization"))))
        return true;
    request_header(request, STR("www-authenticate"), STR("Bearer"));
    request_fail(request, PROBLEM_UNAUTHORIZED);
    return false;
}

static FIBER_FN void unroutable(struct request *request, struct str allow) {
    if (identity_preflight(request))
        return;
    if (allow.len == 0) {
        request_fail(request, PROBLEM_NOT_FOUND);
        return;
    }
    request_header(request, STR("allow"), allow);
    request_fail(request, PROBLEM_METHOD_NOT_ALLOWED);
}

/* A body that is announced too long is refused before anything else is looked at (layer order,
 * 01 section 2.5). */
static FIBER_FN bool body_fits(struct request *request) {
    uint64_t length = request->http->content_length, most = request->settings->limits.max_body;
    if (length == UINT64_MAX || length <= most)
        return true;
    struct problem problem = {.id = PROBLEM_PAYLOAD_TOO_LARGE};
    problem.message =
        arena_printf(request->arena, "request body larger than max_payload_size (%llu bytes)",
                     (unsigned long long)most);
    request_problem(request, problem);
    return false;
}

static FIBER_FN void serve(struct request *request, struct str allow) {
    if (!body_fits(request))
        return;
    if (request->route == NULL) {
        unroutable(request, allow);
        return;
    }
    if (!gateway_authorize(request, request->route->auth))
        return;
    if (request->route->handler == NULL)
        request_text(request, 501, str_from(request->route->missing));
    else
        request->route->handler(request);
}

static struct str version_text(const struct http_request *http) {
    return http->minor == 0 ? STR("HTTP/1.0") : STR("HTTP/1.1");
}

static struct access_record record_new(const struct request *request) {
    return (struct access_record){.method = request->http->method_text,
                                  .uri = request->http->target,
                                  .version = version_text(request->http),
                                  .request_id = request->id,
                                  .client = exchange_peer(request->exchange)};
}

static void record_start(const struct request *request) {
    struct access_record record = record_new(request);
    access_log_start(&record);
}

static void record_end(const struct request *request, int status, int64_t end_us) {
    struct exchange *exchange = request->exchange;
    const struct outcome *outcome = &request->outcome;
    int64_t started = exchange_started_us(exchange), head = exchange_head_us(exchange);
    struct access_record record = record_new(request);
    record.route = request->route ? request->route->path : STR("other");
    record.status = status;
    record.error_code = outcome->error_code;
    record.latency_us = head > 0 ? head - started : -1;
    record.total_us = end_us - started;
    record.bytes_in = exchange_bytes_in(exchange);
    record.bytes_out = exchange_bytes_out(exchange);
    record.worker = outcome->worker;
    record.model = outcome->model;
    record.attempts = outcome->attempts;
    record.stream = outcome->streamed;
    access_log(&record);
}

static enum log_level record_level(int status) {
    return status >= 500 ? LOG_ERROR : status >= 400 ? LOG_WARN : LOG_INFO;
}

static int final_status(const struct request *request) {
    if (exchange_client_gone(request->exchange))
        return problem_status(PROBLEM_CLIENT_GONE);
    int status = exchange_status(request->exchange);
    return status != 0 ? status
                       : problem_status(PROBLEM_INTERNAL); /* which the server then answers */
}

/* The one place where a request ends. */
static void finish_request(struct request *request) {
    int64_t end_us = clock_us();
    int status = final_status(request);
    inflight_end(&request->inflight);
    count_end(request, status, end_us);
    if (log_enabled(record_level(status)))
        record_end(request, status, end_us);
}

static struct request *request_new(struct gateway *gateway, struct exchange *exchange) {
    struct arena *arena = exchange_arena(exchange);
    struct request *request = arena_zalloc(arena, sizeof *request);
    *request = (struct request){.gateway = gateway,
                                .settings = gateway->settings,
                                .exchange = exchange,
                                .http = exchange_request(exchange),
                                .arena = arena,
                                .deadline = loop_now_ms() + gateway->settings->request_timeout_ms};
    identity_set(request);
    identity_cors(request);
    return request;
}

static FIBER_FN void on_request(void *arg, struct exchange *exchange) {
    struct request *request = request_new(arg, exchange);
    struct str allow;
    request->route =
        route_find(request->http->method, request->http->path, &request->param, &allow);
    inflight_begin(&request->inflight, exchange_started_us(exchange));
    count_arrival(request);
    if (log_enabled(LOG_DEBUG))
        record_start(request);
    serve(request, allow);
    finish_request(request);
}

/* The server answered by itself: there is no request yet, but there is a record. */
static void on_refused(void *arg, struct exchange *exchange, struct problem problem) {
    (void)arg;
    struct access_record record = {.method = STR("-"),
                                   .uri = STR("-"),
                                   .version = STR("HTTP/1.1"),
                                   .status = problem_status(problem.id),
                                   .error_code = problem_code(problem.id),
                                   .latency_us = -1,
                                   .total_us = -1,
                                   .route = STR("other"),
                                   .client = exchange_peer(exchange)};
    access_log(&record);
}

/* --- the small servers --- */

static FIBER_FN void on_metrics(void *arg, struct exchange *exchange) {
    struct gateway *gateway = arg;
    const struct http_request *http = exchange_request(exchange);
    bool get = http->method == HTTP_GET_METHOD || http->method == HTTP_HEAD_METHOD;
    if (!str_eq(http->path, STR("/metrics")) || !get) {
        (void)exchange_problem(exchange, (struct problem){.id = PROBLEM_NOT_FOUND}, NULL);
        return;
    }
    struct buf page = buf_make(METRICS_MAX_BYTES);
    struct headers headers = {0};
    headers_add(&headers, exchange_arena(exchange), STR("content-type"), STR(METRICS_CONTENT_TYPE));
    if (metrics_render(&page, gateway->settings->metrics.naming) < 0)
        (void)exchange_problem(exchange, (struct problem){.id = PROBLEM_INTERNAL}, NULL);
    else
        (void)exchange_respond(exchange, 200, &headers, buf_str(&page));
    buf_free(&page);
}

/* The probe port serves three routes of the table and nothing else. */
static FIBER_FN void on_probe(void *arg, struct exchange *exchange) {
    struct request *request = request_new(arg, exchange);
    struct str path = request->http->path, allow;
    bool known = str_eq(path, STR("/liveness")) || str_eq(path, STR("/readiness")) ||
                 str_eq(path, STR("/health"));
    request->route =
        known ? route_find(request->http->method, path, &request->param, &allow) : NULL;
    if (request->route == NULL)
        request_fail(request, PROBLEM_NOT_FOUND);
    else if (str_eq(path, STR("/health")))
        request_text(request, 200, STR("OK"));
    else
        request->route->handler(request);
}

/* --- opening --- */

static struct http_server_options server_options(struct gateway *gateway) {
    const struct gateway_settings *settings = gateway->settings;
    return (struct http_server_options){
        .max_header_bytes = settings->limits.max_header_bytes,
        .max_headers = settings->limits.max_headers,
        .max_request_line = settings->limits.max_request_line,
        .max_body = settings->limits.max_body,
        .header_timeout_ms = settings->limits.header_timeout_ms,
        .idle_timeout_ms = settings->limits.idle_timeout_ms,
        .body_idle_timeout_ms = settings->limits.body_idle_timeout_ms,
        .write_timeout_ms = WRITE_TIMEOUT_MS,
        .handler = on_request,
        .refused = on_refused,
        .arg = gateway,
    };
}

static struct http_server *small_server(struct gateway *gateway,
                                        void (*handler)(void *arg, struct exchange *exchange)) {
    struct http_server_options options = server_options(gateway);
    options.max_body = PROBE_BODY_MAX;
    options.handler = handler;
    options.refused = NULL;
    return http_server_new(&options);
}

struct binding {
    const char *what, *host;
    uint16_t port;
    bool control_loop;
    struct http_server *server;
    struct listener **listener;
};

static int bind_one(const struct binding *binding, char *error, size_t size) {
    struct listener_options options = {.host = binding->host,
                                       .port = binding->port,
                                       .control_loop = binding->control_loop,
                                       .unlimited = binding->control_loop,
                                       .accepted = http_server_accept,
                                       .arg = binding->server};
    int rc = listener_open(&options, binding->listener);
    if (rc < 0)
        snprintf(error, size, "cannot bind %s to %s:%u: %s", binding->what, binding->host,
                 binding->port, uv_strerror(rc));
    return rc;
}

static int bind_all(struct gateway *gateway, char *error, size_t size) {
    const struct gateway_settings *settings = gateway->settings;
    const struct binding bindings[] = {
        {"the API", settings->host, settings->port, false, gateway->api, &gateway->api_listener},
        {"the metrics page", settings->metrics.host, settings->metrics.port, true, gateway->metrics,
         &gateway->metrics_listener},
        {"the probe port", settings->host, settings->health_check_port, true, gateway->probes,
         &gateway->probe_listener},
    };
    for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++) {
        if (bindings[i].port == 0)
            continue;
        int rc = bind_one(&bindings[i], error, size);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int gateway_open(const struct gateway_settings *settings, struct policy *policy,
                 struct gateway **out, char *error, size_t size) {
    struct gateway *gateway = mem_zalloc(sizeof *gateway);
    gateway->settings = settings;
    gateway->policy = policy;
    gateway->started_ms = clock_ms();
    routes_init();
    forward_init(&settings->request_id_headers);
    struct http_server_options options = server_options(gateway);
    gateway->api = http_server_new(&options);
    gateway->metrics = small_server(gateway, on_metrics);
    gateway->probes = small_server(gateway, on_probe);
    counts_init(gateway->api);
    count_config(gateway_config_version(gateway));
    inflight_start();
    *out = gateway;
    return bind_all(gateway, error, size);
}

void gateway_start(struct gateway *gateway) {
    listener_start(gateway->api_listener);
    listener_start(gateway->metrics_listener);
    if (gateway->probe_listener != NULL)
        listener_start(gateway->probe_listener);
}

/* --- stopping --- */

bool gateway_unwatched(const struct gateway *gateway) {
    int64_t probed = atomic_load(&gateway->probed_ms);
    bool watched = probed != 0 && clock_ms() - probed < PROBE_MEMORY_MS;
    return !watched && http_server_connections(gateway->api) == 0;
}

static FIBER_FN void drain_wait(struct gateway *gateway, int64_t drain_ms) {
    deadline_ms until = deadline_in(drain_ms);
    while (http_server_connections(gateway->api) > 0 && clock_ms() < until)
        if (fiber_sleep(DRAIN_LOOK_MS) < 0)
            return;
}

FIBER_FN void gateway_stop(struct gateway *gateway, int64_t settle_ms, int64_t drain_ms) {
    atomic_store(&gateway->draining, true);
    log_info("gateway", "draining", F_INT("settle_ms", settle_ms), F_INT("drain_ms", drain_ms),
             F_INT("connections", (int64_t)http_server_connections(gateway->api)));
    if (settle_ms > 0)
        (void)fiber_sleep(settle_ms);
    listener_close(gateway->api_listener);
    http_server_drain(gateway->api);
    drain_wait(gateway, drain_ms);
    uint64_t left = http_server_connections(gateway->api);
    if (left > 0) {
        log_warn("gateway", "grace period over, cutting connections", F_INT("left", (int64_t)left));
        http_server_cut(gateway->api);
        drain_wait(gateway, 1000);
    }
}
