/* One row a route. Every request goes the same way: body, record, key, faults, JSON, handler. */
#include "lab/mock_routes.h"

#include <errno.h>

#include "lab/mock_control.h"
#include "lab/mock_formats.h"
#include "lab/mock_info.h"

enum {
    GET = 1,
    POST = 2,
    INFERENCE = 4, /* the faults' usual scope; the body must be a JSON object */
    HEALTH = 8,
    OPEN = 16, /* needs no key, as with the engines */
    CONTROL =
        32,      /* of the mock itself: not recorded, no faults; a body is JSON when there is one */
    POLLED = 64, /* counted, but not kept among the last requests */
    TAIL = 128,  /* the path goes on: an id */
};
enum { BODY_SECONDS = 60 };

static const struct route {
    struct str path;
    unsigned flags;
    mock_handler *handler;
} routes[] = {
    {STR_INIT("/v1/chat/completions"), POST | INFERENCE, mock_chat},
    {STR_INIT("/v1/completions"), POST | INFERENCE, mock_completions},
    {STR_INIT("/generate"), POST | INFERENCE, mock_generate},
    {STR_INIT("/v1/responses"), POST | INFERENCE, mock_responses},
    {STR_INIT("/v1/responses/"), POST | TAIL, mock_cancel_response},
    {STR_INIT("/v1/messages"), POST | INFERENCE, mock_messages},
    {STR_INIT("/v1/embeddings"), POST | INFERENCE, mock_embeddings},
    {STR_INIT("/v1/rerank"), POST | INFERENCE, mock_rerank},
    {STR_INIT("/rerank"), POST | INFERENCE, mock_rerank},
    {STR_INIT("/v1/classify"), POST | INFERENCE, mock_classify},
    {STR_INIT("/v1/models"), GET, mock_models},
    {STR_INIT("/v1/models/"), GET | TAIL, mock_models},
    {STR_INIT("/get_model_info"), GET, mock_model_info},
    {STR_INIT("/model_info"), GET, mock_model_info},
    {STR_INIT("/get_server_info"), GET, mock_server_info},
    {STR_INIT("/server_info"), GET, mock_server_info},
    {STR_INIT("/get_load"), GET | POLLED, mock_get_load},
    {STR_INIT("/v1/loads"), GET | POLLED, mock_loads},
    {STR_INIT("/metrics"), GET | OPEN | POLLED, mock_metrics},
    {STR_INIT("/health"), GET | OPEN | HEALTH | POLLED, mock_health},
    {STR_INIT("/health_generate"), GET | OPEN | HEALTH | POLLED, mock_health},
    {STR_INIT("/flush_cache"), GET | POST, mock_flush_cache},
    {STR_INIT("/start_profile"), GET | POST, mock_start_profile},
    {STR_INIT("/stop_profile"), GET | POST, mock_stop_profile},
    {STR_INIT("/mock/faults"), GET | POST | OPEN | CONTROL, mock_control_faults},
    {STR_INIT("/mock/requests"), GET | OPEN | CONTROL, mock_control_requests},
    {STR_INIT("/mock/reset"), POST | OPEN | CONTROL, mock_control_reset},
};

static bool matches(const struct route *route, struct str path) {
    if (route->flags & TAIL)
        return path.len > route->path.len && str_starts(path, route->path);
    return str_eq(path, route->path);
}

static const struct route *find(const struct http_request *request) {
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (matches(&routes[i], request->path))
            return &routes[i];
    }
    return NULL;
}

static unsigned method_bit(enum http_method method) {
    switch (method) {
    case HTTP_GET_METHOD:
    case HTTP_HEAD_METHOD: return GET;
    case HTTP_POST_METHOD: return POST;
    default: return 0;
    }
}

/* --- the way of a request -------------------------------------------------------------------- */

static bool has_key(const struct mock_call *call) {
    struct str key = str_from(call->site->options->api_key);
    if (key.ptr == NULL)
        return true;
    struct str given = headers_get(&call->request->headers, STR("authorization"));
    return str_istarts(given, STR("bearer ")) && str_eq(str_trim(str_skip(given, 7)), key);
}

/* Number of the kept request, or UINT64_MAX. */
static uint64_t note(struct mock_call *call, unsigned flags) {
    const struct http_request *request = call->request;
    uint64_t number = UINT64_MAX;
    if (flags & CONTROL)
        return number;
    mock_site_lock(call->site);
    mock_record_count(&call->site->record, request->path);
    if (!(flags & POLLED))
        number = mock_record_keep(&call->site->record, request->method_text, request->target,
                                  &request->headers, call->body);
    mock_site_unlock(call->site);
    return number;
}

/* The fate of this request; takes a copy of the faults when it is concerned. */
static enum mock_fate draw(struct mock_call *call, unsigned flags) {
    struct mock_site *site = call->site;
    enum mock_fate fate = MOCK_SERVE;
    if (flags & CONTROL)
        return fate;
    mock_site_lock(site);
    if (mock_faults_concern(&site->faults, flags & INFERENCE, flags & HEALTH)) {
        fate = mock_faults_draw(&site->faults, &site->rand);
        call->wire.faults = site->faults;
        site->totals.failed += fate == MOCK_FAIL;
    }
    mock_site_unlock(site);
    return fate;
}

static FIBER_FN void fail(struct mock_call *call) {
    const struct mock_faults *faults = &call->wire.faults;
    if (faults->retry_after >= 0)
        headers_add(&call->wire.headers, call->arena, STR("retry-after"),
                    arena_printf(call->arena, "%lld", (long long)faults->retry_after));
    struct str text =
        arena_printf(call->arena, "simulated failure, served-by-%u", call->site->port);
    mock_call_error(call, (int)faults->fail_status, text);
}

/* True when the request is to be served. */
static FIBER_FN bool suffer(struct mock_call *call, unsigned flags) {
    enum mock_fate fate = draw(call, flags);
    if (call->wire.faults.delay_ms > 0 && fiber_sleep(call->wire.faults.delay_ms))
        return false;
    switch (fate) {
    case MOCK_SERVE: return true;
    case MOCK_FAIL: fail(call); return false;
    case MOCK_HANG: (void)mock_wire_hang(&call->wire); return false;
    case MOCK_DROP: (void)mock_wire_drop(&call->wire); return false;
    default: (void)mock_wire_garbage(&call->wire); return false;
    }
}

/* The JSON object of the body, where the route wants one. 0, or -EINVAL and answered. */
static FIBER_FN int read_object(struct mock_call *call, unsigned flags) {
    bool wanted = (flags & INFERENCE) || ((flags & CONTROL) && call->body.len > 0);
    if (!wanted)
        return 0;
    struct str error = STR("the body must be a JSON object");
    yyjson_doc *doc = json_parse(call->arena, call->body, &error);
    call->root = doc ? yyjson_doc_get_root(doc) : NULL;
    if (yyjson_is_obj(call->root))
        return 0;
    mock_call_error(call, 400, error);
    return -EINVAL;
}

static FIBER_FN void serve_route(struct mock_call *call, const struct route *route) {
    if (!(route->flags & OPEN) && !has_key(call)) {
        mock_call_error(call, 401, STR("missing or wrong API key"));
        return;
    }
    if (suffer(call, route->flags) && read_object(call, route->flags) == 0)
        route->handler(call);
}

static FIBER_FN void refuse_method(struct mock_call *call, unsigned flags) {
    struct str allow = (flags & GET) && (flags & POST) ? STR("GET, HEAD, POST")
                       : (flags & GET)                 ? STR("GET, HEAD")
                                                       : STR("POST");
    headers_add(&call->wire.headers, call->arena, STR("allow"), allow);
    mock_call_error(call, 405, STR("this path does not take this method"));
}

static FIBER_FN void serve(struct mock_call *call) {
    const struct route *route = find(call->request);
    unsigned flags = route ? route->flags : 0;
    uint64_t number = note(call, flags);
    if (route == NULL)
        mock_call_error(call, 404, STR("no such path"));
    else if (!(flags & method_bit(call->request->method)))
        refuse_method(call, flags);
    else
        serve_route(call, route);
    if (number == UINT64_MAX)
        return;
    mock_site_lock(call->site);
    mock_record_status(&call->site->record, number, exchange_status(call->exchange));
    mock_site_unlock(call->site);
}

FIBER_FN void mock_serve(void *door_arg, struct exchange *exchange) {
    const struct mock_door *door = door_arg;
    struct mock_call call = {
        .site = door->site,
        .lab = door->lab,
        .exchange = exchange,
        .request = exchange_request(exchange),
        .arena = exchange_arena(exchange),
        .wire = {.exchange = exchange, .faults = mock_faults_none()},
    };
    headers_add(&call.wire.headers, call.arena, STR("x-mock-worker"),
                str_from(door->site->port_text));
    if (call.request->has_body) {
        struct problem problem =
            exchange_body(exchange, deadline_in(BODY_SECONDS * 1000), &call.body);
        if (problem.id != PROBLEM_NONE) {
            mock_call_error(&call, problem_status(problem.id), problem_text(problem));
            return;
        }
    }
    serve(&call);
}
