/* See counts.h. The memory of series is a small open-addressing table per thread, keyed by a hash of family and
 * label values; it can only fill with bounded label values, and forgets nothing. */
#include "gateway/counts.h"

#include <stdio.h>

#include "base/hash.h"
#include "base/metric.h"
#include "gateway/routes.h"
#include "io/listener.h"

#define CACHE_SIZE 4096 /* a power of two */
#define ATTEMPT_LABEL_MAX 6

static struct cached {
    uint64_t key;
    metric_ref ref;
} *cache_here(void) {
    static _Thread_local struct cached *cache;
    if (cache == NULL)
        cache = mem_zalloc(CACHE_SIZE * sizeof *cache);
    return cache;
}

static uint64_t key_of(enum metric_id family, const char *const *values) {
    uint64_t key = (uint64_t)family + 1;
    for (; *values != NULL; values++)
        key = hash_seeded(*values, strlen(*values), key);
    return key | 1;
}

static metric_ref series(enum metric_id family, const char *const *values) {
    struct cached *cache = cache_here();
    uint64_t key = key_of(family, values);
    for (size_t i = 0; i < 8; i++) {
        struct cached *slot = &cache[(key + i) & (CACHE_SIZE - 1)];
        if (slot->key == key)
            return slot->ref;
        if (slot->key == 0) {
            slot->ref = metric_series(family, values);
            slot->key = key;
            return slot->ref;
        }
    }
    return metric_series(family, values);
}

#define SERIES(family, ...) series((family), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* --- label values --- */

const char *count_method(enum http_method method) {
    static const char *const names[] = {"GET",   "HEAD",   "POST",    "PUT",
                                        "PATCH", "DELETE", "OPTIONS", "OTHER"};
    return names[method];
}

static const char *path_label(const struct request *request) {
    return request->route ? request->route->path.ptr : "other";
}

/* The code of an answer that we made: all of them are literals of our own tables. */
static const char *code_label(const struct request *request) {
    return request->outcome.error_code.len > 0 ? request->outcome.error_code.ptr : "";
}

static const char *status_label(int status, char out[12]) {
    snprintf(out, 12, "%d", status);
    return out;
}

/* Only ids of registered workers get here (dispatch.c), so clients cannot make series. */
static const char *model_label(const struct request *request) {
    return request->outcome.model.len > 0 ? request->outcome.model.ptr : "unknown";
}

static const char *error_class(int status) {
    if (status == 400)
        return "validation_error";
    if (status == 404)
        return "no_workers";
    if (status == 408 || status == 504)
        return "timeout";
    return status >= 500 ? "backend_error" : "internal_error";
}

static const char *endpoint_label(const struct request *request) {
    return request->route->endpoint ? request->route->endpoint : "other";
}

static const char *attempt_label(uint32_t attempt, char out[12]) {
    if (attempt >= ATTEMPT_LABEL_MAX)
        return "6+";
    snprintf(out, 12, "%u", attempt);
    return out;
}

static double seconds(int64_t us) { return (double)us / 1e6; }

/* --- events --- */

void count_arrival(const struct request *request) {
    metric_inc(SERIES(METRIC_SMG_HTTP_REQUESTS_TOTAL, count_method(request->http->method),
                      path_label(request)));
}

static int reply_status(const struct reply *reply) {
    return reply->failure == ATTEMPT_OK ? reply->status : problem_status(reply->problem.id);
}

/* A worker's own code passes only if it is one of our table. */
static const char *reply_code(const struct reply *reply) {
    if (reply->failure != ATTEMPT_OK)
        return problem_code(reply->problem.id).ptr;
    struct str theirs = headers_get(reply->headers, STR("x-smg-error-code"));
    if (theirs.ptr == NULL)
        return "";
    struct str known = problem_code_find(theirs);
    return known.ptr ? known.ptr : "upstream";
}

void count_attempt(const struct worker *worker, const struct reply *reply) {
    char text[12];
    int status = reply_status(reply);
    if (reply->failure == ATTEMPT_CANCELLED)
        return;
    metric_inc(SERIES(METRIC_SMG_ROUTER_UPSTREAM_RESPONSES_TOTAL, "http", status_label(status, text),
                      reply_code(reply)));
    if (status >= 500)
        metric_inc(SERIES(METRIC_SMG_WORKER_ERRORS_TOTAL, worker_role_name(worker->role), "http",
                          error_class(status)));
}

void count_retry(const struct request *request, uint32_t attempt, int64_t wait_ms) {
    char text[12];
    const char *label = attempt_label(attempt, text);
    metric_inc(SERIES(METRIC_SGL_RETRIES_TOTAL, path_label(request)));
    metric_inc(SERIES(METRIC_SMG_WORKER_RETRIES_TOTAL, "regular", endpoint_label(request)));
    metric_observe(SERIES(METRIC_SGL_RETRY_BACKOFF_DURATION_SECONDS, label), (double)wait_ms / 1e3);
    metric_observe(SERIES(METRIC_SMG_WORKER_RETRY_BACKOFF_SECONDS, label), (double)wait_ms / 1e3);
}

void count_exhausted(const struct request *request) {
    metric_inc(SERIES(METRIC_SGL_RETRIES_EXHAUSTED_TOTAL, path_label(request)));
    metric_inc(SERIES(METRIC_SMG_WORKER_RETRIES_EXHAUSTED_TOTAL, "regular", endpoint_label(request)));
}

static void count_http(const struct request *request, int status) {
    char text[12];
    int64_t head_us = exchange_head_us(request->exchange);
    if (head_us == 0)
        return;
    metric_observe(SERIES(METRIC_SMG_HTTP_REQUEST_DURATION_SECONDS, count_method(request->http->method),
                          path_label(request)),
                   seconds(head_us - exchange_started_us(request->exchange)));
    metric_inc(SERIES(METRIC_SMG_HTTP_RESPONSES_TOTAL, path_label(request), status_label(status, text),
                      code_label(request)));
}

static void count_success(const struct request *request, const char *model, int64_t end_us) {
    const char *endpoint = endpoint_label(request);
    int64_t started = exchange_started_us(request->exchange);
    double head = seconds(exchange_head_us(request->exchange) - started);
    metric_observe(SERIES(METRIC_SMG_ROUTER_REQUEST_DURATION_SECONDS, "http", "regular", "http", model,
                          endpoint),
                   head);
    metric_observe(SERIES(METRIC_SGL_GENERATE_DURATION_SECONDS), head);
    metric_observe(
        SERIES(METRIC_SMG_ROUTER_GENERATION_DURATION_SECONDS, "http", "regular", model, endpoint),
        seconds(end_us - started));
    if (request->outcome.first_byte_us > 0)
        metric_observe(SERIES(METRIC_SMG_ROUTER_TTFT_SECONDS, "http", "regular", model, endpoint),
                       seconds(request->outcome.first_byte_us - started));
}

static void count_failure(const struct request *request, const char *model, int status) {
    metric_inc(SERIES(METRIC_SGL_REQUEST_ERRORS_TOTAL, path_label(request), request->outcome.error_type));
    metric_inc(SERIES(METRIC_SMG_ROUTER_REQUEST_ERRORS_TOTAL, "http", "regular", "http", model,
                      endpoint_label(request), error_class(status)));
}

static void count_routed(const struct request *request, int status, int64_t end_us) {
    const char *model = model_label(request);
    int64_t started = exchange_started_us(request->exchange);
    metric_inc(SERIES(METRIC_SGL_REQUESTS_TOTAL, path_label(request), path_label(request),
                      count_method(request->http->method)));
    metric_observe(SERIES(METRIC_SGL_REQUEST_DURATION_SECONDS, path_label(request)),
                   seconds(end_us - started));
    metric_inc(SERIES(METRIC_SMG_ROUTER_REQUESTS_TOTAL, "http", "regular", "http", model,
                      endpoint_label(request), request->facts.stream ? "true" : "false"));
    if (request->outcome.sent_us > 0)
        metric_observe(SERIES(METRIC_SLUICE_OVERHEAD_SECONDS, "http"),
                       seconds(request->outcome.sent_us - started));
    if (request->outcome.error_type != NULL)
        count_failure(request, model, status);
    else if (status / 100 == 2)
        count_success(request, model, end_us);
}

void count_end(const struct request *request, int status, int64_t end_us) {
    count_http(request, status);
    if (request->route != NULL && request->route->endpoint != NULL && request->facts.endpoint != NULL)
        count_routed(request, status, end_us);
}

/* --- read at scrape --- */

static void loop_figures(unsigned index) {
    char name[12];
    const struct loop_stats *stats = loop_stats(loop_at(index));
    snprintf(name, sizeof name, "%u", index);
    metric_set(SERIES(METRIC_SLUICE_LOOP_FIBERS, name), (double)stats->fibers);
    metric_set(SERIES(METRIC_SLUICE_LOOP_TURNS_TOTAL, name), (double)stats->turns);
    metric_set(SERIES(METRIC_SLUICE_LOOP_STALLS_TOTAL, name), (double)stats->stalls);
    metric_set(SERIES(METRIC_SLUICE_LOOP_STACK_HIGH_WATER_BYTES, name), (double)stats->stack_high);
}

static void on_scrape(void *arg) {
    double stalls = 0, upstream = 0;
    for (unsigned i = 0; i < loops_count(); i++) {
        loop_figures(i);
        stalls += (double)loop_stats(loop_at(i))->stalls;
        upstream += (double)(int64_t)loop_stats(loop_at(i))->upstream;
    }
    metric_set(SERIES(METRIC_SMG_TOKIO_EVENT_LOOP_STALLS_TOTAL), stalls);
    metric_set(SERIES(METRIC_SMG_WORKER_CONNECTIONS_ACTIVE, "regular", "http"), upstream);
    metric_set(SERIES(METRIC_SMG_HTTP_CONNECTIONS_ACTIVE), (double)http_server_exchanges(arg));
    metric_set(SERIES(METRIC_SLUICE_ACCEPT_PAUSED), listener_paused());
    metric_set(SERIES(METRIC_SLUICE_ACCEPT_PAUSES_TOTAL), (double)listener_pauses());
}

void counts_init(const struct http_server *server) { metric_on_scrape(on_scrape, (void *)server); }
