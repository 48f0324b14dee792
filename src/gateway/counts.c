/* See counts.h. Label values are our own literals, route templates, and model ids of registered
 * workers. */
#include "gateway/counts.h"

#include <stdio.h>

#include "base/map.h"
#include "base/metric.h"
#include "gateway/inflight.h"
#include "gateway/routes.h"
#include "io/listener.h"

#define ATTEMPT_LABEL_MAX 6
#define STATUS_SLOTS 6

/* The series of one route on one loop. Numbers are looked up once and remembered; what varies by
 * status has a few slots, and past those is looked up each time. */
struct status_slot {
    int status;
    const char *code;
    metric_ref responses, upstream;
};
struct model_slot {
    metric_ref requests[2]; /* by streaming */
    metric_ref head, generation, ttft;
};
struct route_series {
    metric_ref arrivals, http_duration, requests, duration, generate, overhead;
    struct status_slot by_status[STATUS_SLOTS];
    struct map by_model; /* id to slot; as many as there were registered ids */
};

#define SERIES(family, ...)                                                                        \
    metric_series((family), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
/* The number in `place`, found the first time. */
#define REMEMBERED(place, family, ...)                                                             \
    (*((place) ? &(place) : ((place) = SERIES(family __VA_OPT__(, ) __VA_ARGS__), &(place))))

static struct route_series *series_of(const struct request *request) {
    static _Thread_local struct route_series *all;
    if (all == NULL) /* lives as long as the thread's loop: to the end of the process */
        all = mem_zalloc((route_count + 1) * sizeof *all);
    return &all[request->route ? route_index(request->route) : route_count];
}

/* --- label values --- */

const char *count_method(enum http_method method) {
    static const char *const names[] = {"GET",   "HEAD",   "POST",    "PUT",
                                        "PATCH", "DELETE", "OPTIONS", "OTHER"};
    return names[method];
}

static const char *path_label(const struct request *request) {
    return request->route ? request->route->path.ptr : "other";
}

/* A literal of our own tables. */
static const char *code_label(const struct request *request) {
    return request->outcome.answer_code ? request->outcome.answer_code : "";
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

/* --- slots --- */

static struct status_slot *status_slot(struct route_series *series, int status, const char *code) {
    for (size_t i = 0; i < STATUS_SLOTS; i++) {
        struct status_slot *slot = &series->by_status[i];
        if (slot->status == status && slot->code == code)
            return slot;
        if (slot->status == 0) {
            *slot = (struct status_slot){.status = status, .code = code};
            return slot;
        }
    }
    return NULL;
}

static struct model_slot *model_slot(struct route_series *series, struct str model) {
    struct model_slot *slot = map_get(&series->by_model, model);
    if (slot != NULL)
        return slot;
    slot = mem_zalloc(sizeof *slot);
    map_put(&series->by_model, model, slot);
    return slot;
}

/* --- events --- */

void count_arrival(const struct request *request) {
    struct route_series *series = series_of(request);
    enum http_method method = request->http->method;
    bool usual = request->route != NULL && method == request->route->method;
    metric_inc(
        usual ? REMEMBERED(series->arrivals, METRIC_SMG_HTTP_REQUESTS_TOTAL, count_method(method),
                           path_label(request))
              : SERIES(METRIC_SMG_HTTP_REQUESTS_TOTAL, count_method(method), path_label(request)));
}

static int reply_status(const struct reply *reply) {
    return reply->failure == ATTEMPT_OK ? reply->status : problem_status(reply->problem.id);
}

const char *count_code(const struct reply *reply) {
    if (reply->failure != ATTEMPT_OK)
        return problem_code(reply->problem.id).ptr;
    struct str theirs = headers_get(reply->headers, STR("x-smg-error-code"));
    if (theirs.ptr == NULL)
        return "";
    struct str known = problem_code_find(theirs);
    return known.ptr ? known.ptr : "upstream";
}

static void count_upstream(const struct request *request, int status, const char *code) {
    char text[12];
    struct status_slot *slot = status_slot(series_of(request), status, code);
    metric_ref ref = slot ? slot->upstream : 0;
    if (ref == 0)
        ref = SERIES(METRIC_SMG_ROUTER_UPSTREAM_RESPONSES_TOTAL, "http", status_label(status, text),
                     code);
    if (slot != NULL)
        slot->upstream = ref;
    metric_inc(ref);
}

void count_attempt(const struct request *request, const struct worker *worker,
                   const struct reply *reply) {
    if (reply->failure == ATTEMPT_CANCELLED)
        return;
    int status = reply_status(reply);
    count_upstream(request, status, count_code(reply));
    if (status >= 500 && reply->failure != ATTEMPT_NO_PLACE)
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
    metric_inc(
        SERIES(METRIC_SMG_WORKER_RETRIES_EXHAUSTED_TOTAL, "regular", endpoint_label(request)));
}

static void count_response(const struct request *request) {
    char text[12];
    int status = exchange_status(request->exchange);
    const char *code = code_label(request);
    struct status_slot *slot = status_slot(series_of(request), status, code);
    metric_ref ref = slot ? slot->responses : 0;
    if (ref == 0)
        ref = SERIES(METRIC_SMG_HTTP_RESPONSES_TOTAL, path_label(request),
                     status_label(status, text), code);
    if (slot != NULL)
        slot->responses = ref;
    metric_inc(ref);
}

/* The head as it was sent, whatever became of the body. */
static void count_http(const struct request *request) {
    struct route_series *series = series_of(request);
    int64_t head_us = exchange_head_us(request->exchange);
    if (head_us == 0)
        return;
    double elapsed = seconds(head_us - exchange_started_us(request->exchange));
    enum http_method method = request->http->method;
    bool usual = request->route != NULL && method == request->route->method;
    metric_observe(usual
                       ? REMEMBERED(series->http_duration, METRIC_SMG_HTTP_REQUEST_DURATION_SECONDS,
                                    count_method(method), path_label(request))
                       : SERIES(METRIC_SMG_HTTP_REQUEST_DURATION_SECONDS, count_method(method),
                                path_label(request)),
                   elapsed);
    count_response(request);
}

static void count_success(const struct request *request, struct model_slot *slot, const char *model,
                          int64_t end_us) {
    const char *endpoint = endpoint_label(request);
    int64_t started = exchange_started_us(request->exchange);
    double head = seconds(exchange_head_us(request->exchange) - started);
    metric_observe(REMEMBERED(slot->head, METRIC_SMG_ROUTER_REQUEST_DURATION_SECONDS, "http",
                              "regular", "http", model, endpoint),
                   head);
    metric_observe(REMEMBERED(series_of(request)->generate, METRIC_SGL_GENERATE_DURATION_SECONDS),
                   head);
    metric_observe(REMEMBERED(slot->generation, METRIC_SMG_ROUTER_GENERATION_DURATION_SECONDS,
                              "http", "regular", model, endpoint),
                   seconds(end_us - started));
    if (request->outcome.first_byte_us > 0)
        metric_observe(REMEMBERED(slot->ttft, METRIC_SMG_ROUTER_TTFT_SECONDS, "http", "regular",
                                  model, endpoint),
                       seconds(request->outcome.first_byte_us - started));
}

static void count_failure(const struct request *request, const char *model, int status) {
    if (request->outcome.error_status != 0)
        status = request->outcome.error_status;
    metric_inc(
        SERIES(METRIC_SGL_REQUEST_ERRORS_TOTAL, path_label(request), request->outcome.error_type));
    metric_inc(SERIES(METRIC_SMG_ROUTER_REQUEST_ERRORS_TOTAL, "http", "regular", "http", model,
                      endpoint_label(request), error_class(status)));
}

static void count_by_model(const struct request *request, int status, int64_t end_us) {
    const char *model = model_label(request);
    struct model_slot *slot = model_slot(series_of(request), str_from(model));
    bool stream = request->facts.stream;
    metric_inc(REMEMBERED(slot->requests[stream], METRIC_SMG_ROUTER_REQUESTS_TOTAL, "http",
                          "regular", "http", model, endpoint_label(request),
                          stream ? "true" : "false"));
    if (request->outcome.error_type != NULL)
        count_failure(request, model, status);
    else if (status / 100 == 2)
        count_success(request, slot, model, end_us);
}

static void count_routed(const struct request *request, int64_t end_us) {
    struct route_series *series = series_of(request);
    const char *path = path_label(request);
    int64_t started = exchange_started_us(request->exchange);
    metric_inc(REMEMBERED(series->requests, METRIC_SGL_REQUESTS_TOTAL, path, path,
                          count_method(request->http->method)));
    metric_observe(REMEMBERED(series->duration, METRIC_SGL_REQUEST_DURATION_SECONDS, path),
                   seconds(end_us - started));
    if (request->outcome.sent_us > 0)
        metric_observe(REMEMBERED(series->overhead, METRIC_SLUICE_OVERHEAD_SECONDS, "http"),
                       seconds(request->outcome.sent_us - request->outcome.ready_us));
}

void count_end(const struct request *request, int status, int64_t end_us) {
    count_http(request);
    if (request->facts.endpoint == NULL) /* no inference, or refused before it got there */
        return;
    count_routed(request, end_us);
    count_by_model(request, status, end_us);
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
    inflight_show();
}

void counts_init(const struct http_server *server) { metric_on_scrape(on_scrape, (void *)server); }

void count_config(uint64_t version) {
    metric_set(SERIES(METRIC_SLUICE_CONFIG_VERSION), (double)version);
}
