/* See http_regular.h. The client's body goes on byte for byte. A short answer is read to its end
 * before it is handed on, and then the connection is free for others, however slowly the client
 * takes it. */
#include "gateway/backend/http_regular.h"

#include <errno.h>

#include "gateway/forward.h"
#include "gateway/routes.h"

#define HOLD_MAX 65536
#define HEARD_EVERY_MS 250

struct exchange_up {
    struct worker *worker; /* the dispatcher's guard keeps it */
    struct http_call *call;
    struct http_call_request up;
    struct str body;
    struct buf held;
    int64_t heard_ms;
};

static enum attempt_failure failure_of(enum http_failure failure) {
    static const enum attempt_failure table[] = {
        [HTTP_FINE] = ATTEMPT_OK,
        [HTTP_CONNECT_FAILED] = ATTEMPT_CONNECT,
        [HTTP_BROKEN] = ATTEMPT_BROKEN,
        [HTTP_TIMED_OUT] = ATTEMPT_TIMED_OUT,
        [HTTP_CANCELLED] = ATTEMPT_CANCELLED,
        [HTTP_NO_CONNECTION] = ATTEMPT_NO_PLACE,
    };
    return table[failure];
}

static enum problem_id problem_of(enum attempt_failure failure, bool in_body) {
    switch (failure) {
    case ATTEMPT_TIMED_OUT: return PROBLEM_UPSTREAM_TIMEOUT;
    case ATTEMPT_CANCELLED: return PROBLEM_CLIENT_GONE;
    case ATTEMPT_NO_PLACE: return PROBLEM_NO_AVAILABLE_WORKERS;
    case ATTEMPT_BROKEN: return in_body ? PROBLEM_READ_BODY : PROBLEM_UPSTREAM_CONNECT;
    default: return PROBLEM_UPSTREAM_CONNECT;
    }
}

/* A connect that the request's own deadline cut short is no fault of the connection. */
static enum problem_id problem_now(const struct request *request, const struct reply *reply,
                                   bool in_body) {
    bool late = reply->failure == ATTEMPT_CONNECT && deadline_left(request->deadline) == 0;
    return late ? PROBLEM_UPSTREAM_TIMEOUT : problem_of(reply->failure, in_body);
}

static void failed(struct request *request, struct reply *reply, struct worker *worker,
                   bool in_body) {
    struct exchange_up *up = reply->state;
    reply->failure = failure_of(http_call_failure(up->call));
    if (reply->failure == ATTEMPT_OK) /* the call is fine, but we had no room for its answer */
        reply->failure = ATTEMPT_BROKEN;
    reply->problem.id = problem_now(request, reply, in_body);
    reply->problem.message =
        arena_printf(request->arena, "%.*s. URL: %.*s%.*s", STR_ARG(http_call_error(up->call)),
                     STR_ARG(worker->url), STR_ARG(request->route->upstream));
}

/* Reads until the body is complete or too long to hold. The usual short answer is there in one
 * piece that is still in the read buffer: one copy. */
static FIBER_FN int hold(struct request *request, struct reply *reply) {
    struct exchange_up *up = reply->state;
    struct str piece;
    int rc = 1;
    while (up->held.len <= HOLD_MAX &&
           (rc = http_call_read(up->call, &piece, request->settings->stream_idle_timeout_ms)) == 1)
        if (buf_add(&up->held, piece) < 0)
            return -ENOMEM;
    if (rc < 0)
        return rc;
    reply->held = buf_str(&up->held);
    reply->whole = rc == 0;
    if (reply->whole)
        http_call_finish(up->call);
    return 0;
}

static bool is_event_stream(const struct request *request, const struct http_response *response) {
    if (response->status / 100 != 2)
        return false;
    struct str type = headers_get(&response->headers, STR("content-type"));
    return request->facts.stream || str_istarts(type, STR("text/event-stream"));
}

static struct str target_of(struct request *request, const struct worker *worker) {
    if (worker->base_path.len == 0)
        return request->route->upstream;
    return arena_printf(request->arena, "%.*s%.*s", STR_ARG(worker->base_path),
                        STR_ARG(request->route->upstream));
}

/* A worker that sends bytes is alive, whatever its health probe says. Told once a while: every
 * loop writes there. */
static void heard(struct exchange_up *up) {
    int64_t now = loop_now_ms();
    if (now - up->heard_ms < HEARD_EVERY_MS)
        return;
    up->heard_ms = now;
    worker_heard(up->worker, now);
}

static deadline_ms call_deadline(const struct request *request, const struct worker *worker) {
    if (worker->request_timeout_ms < 0)
        return request->deadline;
    return deadline_sooner(request->deadline, deadline_in(worker->request_timeout_ms));
}

static void request_prepare(struct request *request, struct worker *worker,
                            struct exchange_up *up) {
    up->body = request->body;
    up->held = buf_make(HOLD_MAX + PIECE_MAX);
    up->up = (struct http_call_request){
        .method = STR("POST"),
        .target = target_of(request, worker),
        .head = forward_head(request, worker),
        .body = &up->body,
        .body_parts = 1,
        .has_body = true,
        .deadline = call_deadline(request, worker),
        .head_ms = request->settings->first_byte_timeout_ms,
    };
}

static FIBER_FN void regular_start(struct request *request, struct worker *worker,
                                   struct reply *reply) {
    struct exchange_up *up = arena_zalloc(request->arena, sizeof *up);
    up->worker = worker;
    *reply = (struct reply){.ops = &backend_http_regular, .state = up, .length = UINT64_MAX};
    request_prepare(request, worker, up);
    int rc = http_call_start(request->arena, worker->peer, &up->up, &up->call);
    if (request->outcome.sent_us == 0)
        request->outcome.sent_us = http_call_sent_us(up->call);
    if (rc < 0) {
        failed(request, reply, worker, false);
        return;
    }
    heard(up);
    const struct http_response *response = http_call_response(up->call);
    reply->status = response->status;
    reply->headers = &response->headers;
    reply->length = response->content_length;
    reply->event_stream = is_event_stream(request, response);
    if (!reply->event_stream && hold(request, reply) < 0)
        failed(request, reply, worker, true);
}

static FIBER_FN int regular_read(struct request *request, struct reply *reply, struct str *piece) {
    struct exchange_up *up = reply->state;
    int rc = http_call_read(up->call, piece, request->settings->stream_idle_timeout_ms);
    if (rc == 1)
        heard(up);
    return rc;
}

static bool regular_ready(const struct reply *reply) {
    const struct exchange_up *up = reply->state;
    return http_call_ready(up->call);
}

static void regular_finish(struct reply *reply) {
    struct exchange_up *up = reply->state;
    http_call_finish(up->call);
    buf_free(&up->held);
}

const struct backend_ops backend_http_regular = {.name = "http_regular",
                                                 .start = regular_start,
                                                 .read = regular_read,
                                                 .ready = regular_ready,
                                                 .finish = regular_finish};
