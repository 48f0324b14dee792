/* See relay.h. An event stream goes out event by event: the unfinished tail is held back (at
 * most 64 KiB) so that a break almost always falls between two events, where it can be told
 * instead of tearing JSON. */
#include "gateway/relay.h"

#include <errno.h>

#include "gateway/forward.h"
#include "gateway/routes.h"
#include "proto/json.h"
#include "proto/sse.h"

#define TAIL_MAX 65536
#define TAIL_ROOM (TAIL_MAX + PIECE_MAX)

static enum relay_end end_of(int rc) {
    if (rc == -ECANCELED)
        return RELAY_CLIENT_GONE;
    return rc == -ETIMEDOUT ? RELAY_TIMED_OUT : RELAY_BROKEN;
}

/* A client that takes its time does not keep the worker beyond the request's deadline, though no
 * read waits. */
static FIBER_FN int next_piece(struct request *request, struct reply *reply, struct str *piece) {
    if (loop_now_ms() >= request->deadline)
        return -ETIMEDOUT;
    return reply->ops->read(request, reply, piece);
}

/* --- plain bodies --- */

static FIBER_FN enum relay_end relay_pieces(struct request *request, struct reply *reply) {
    struct exchange *exchange = request->exchange;
    struct str piece = reply->held;
    int rc = 1;
    while (rc == 1) {
        if (exchange_write(exchange, piece) < 0)
            return RELAY_CLIENT_GONE;
        rc = next_piece(request, reply, &piece);
    }
    if (rc == 0)
        return exchange_end(exchange) < 0 ? RELAY_CLIENT_GONE : RELAY_DONE;
    exchange_abort(exchange);
    return end_of(rc);
}

static FIBER_FN enum relay_end relay_plain(struct request *request, struct reply *reply) {
    struct headers headers = forward_answer(request, reply->headers, false);
    if (!reply->whole) {
        exchange_begin(request->exchange, reply->status, &headers, reply->length);
        exchange_drop_body(request->exchange); /* no retry from here on */
        return relay_pieces(request, reply);
    }
    int rc = exchange_respond(request->exchange, reply->status, &headers, reply->held);
    return rc < 0 ? RELAY_CLIENT_GONE : RELAY_DONE;
}

/* --- event streams --- */

struct sse_relay {
    struct request *request;
    struct reply *reply;
    struct sse_border border;
    struct buf tail; /* of an event that is not complete yet */
    bool torn;       /* part of an unfinished event has been sent */
};

static FIBER_FN int sse_send(struct sse_relay *relay, struct str bytes) {
    struct outcome *outcome = &relay->request->outcome;
    if (outcome->first_byte_us == 0 && bytes.len > 0)
        outcome->first_byte_us = clock_us();
    return exchange_write(relay->request->exchange, bytes);
}

static FIBER_FN int tail_send(struct sse_relay *relay) {
    struct buf tail = relay->tail;
    relay->tail = buf_make(TAIL_ROOM);
    int rc = tail.len > 0 ? sse_send(relay, buf_str(&tail)) : 0;
    buf_free(&tail);
    return rc;
}

/* Sends what is held and `whole`, which ends an event; `rest` is what is held from now on. It is
 * put by first, because the piece that both lie in is gone once the fiber has parked. */
static FIBER_FN int events_send(struct sse_relay *relay, struct str whole, struct str rest) {
    struct buf held = relay->tail;
    relay->tail = buf_make(TAIL_ROOM);
    relay->torn = false;
    int rc = held.len > 0 ? buf_add(&held, whole) : 0;
    if (rc == 0)
        rc = buf_add(&relay->tail, rest);
    if (rc == 0)
        rc = sse_send(relay, held.len > 0 ? buf_str(&held) : whole);
    buf_free(&held);
    return rc;
}

static FIBER_FN int sse_piece(struct sse_relay *relay, struct str piece) {
    size_t ends = sse_border_feed(&relay->border, piece);
    int rc = ends > 0 ? events_send(relay, str_head(piece, ends), str_skip(piece, ends))
                      : buf_add(&relay->tail, piece);
    if (rc < 0 || (!relay->torn && relay->tail.len <= TAIL_MAX))
        return rc;
    relay->torn = true;
    return tail_send(relay);
}

static struct str error_type(enum relay_end end) {
    return end == RELAY_TIMED_OUT ? STR("Gateway Timeout") : STR("Bad Gateway");
}

static enum problem_id error_problem(enum relay_end end) {
    return end == RELAY_TIMED_OUT ? PROBLEM_UPSTREAM_TIMEOUT : PROBLEM_STREAM_BROKEN;
}

/* The error event in the form of the API that the client speaks. */
static struct str error_event(struct request *request, enum relay_end end) {
    struct problem problem = {.id = error_problem(end)};
    struct str text = problem_text(problem), code = problem_code(problem.id),
               type = error_type(end);
    if (str_eq(request->route->path, STR("/v1/messages")))
        return arena_printf(
            request->arena,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\","
            "\"message\":\"%.*s\"}}\n\n",
            STR_ARG(text));
    if (str_eq(request->route->path, STR("/v1/responses")))
        return arena_printf(request->arena,
                            "event: error\ndata: {\"type\":\"error\",\"code\":\"%.*s\",\"message\":"
                            "\"%.*s\",\"param\":null}\n\n",
                            STR_ARG(code), STR_ARG(text));
    return arena_printf(
        request->arena,
        "data: {\"error\":{\"type\":\"%.*s\",\"code\":\"%.*s\",\"message\":\"%.*s\","
        "\"param\":null}}\n\n",
        STR_ARG(type), STR_ARG(code), STR_ARG(text));
}

static FIBER_FN enum relay_end sse_broken(struct sse_relay *relay, int rc) {
    struct request *request = relay->request;
    enum relay_end end = end_of(rc);
    bool announced = relay->reply->length != UINT64_MAX; /* the worker told how much was to come */
    if (end == RELAY_CLIENT_GONE || relay->torn || announced) {
        exchange_abort(request->exchange);
        return end;
    }
    if (sse_send(relay, error_event(request, end)) < 0 || exchange_end(request->exchange) < 0)
        return RELAY_CLIENT_GONE;
    return end;
}

static FIBER_FN enum relay_end sse_finish(struct sse_relay *relay) {
    int rc = tail_send(relay);
    if (rc == 0)
        rc = exchange_end(relay->request->exchange);
    return rc < 0 ? RELAY_CLIENT_GONE : RELAY_DONE;
}

static FIBER_FN enum relay_end sse_run(struct sse_relay *relay) {
    struct str piece;
    for (;;) {
        if (!relay->reply->ops->ready(relay->reply) && exchange_flush(relay->request->exchange) < 0)
            return RELAY_CLIENT_GONE;
        int rc = next_piece(relay->request, relay->reply, &piece);
        if (rc == 0)
            return sse_finish(relay);
        if (rc < 0)
            return sse_broken(relay, rc);
        if (sse_piece(relay, piece) < 0)
            return RELAY_CLIENT_GONE;
    }
}

static FIBER_FN enum relay_end relay_sse(struct request *request, struct reply *reply) {
    struct sse_relay relay = {.request = request, .reply = reply, .tail = buf_make(TAIL_ROOM)};
    struct headers headers = forward_answer(request, reply->headers, true);
    request->outcome.streamed = true;
    exchange_begin(request->exchange, reply->status, &headers, UINT64_MAX);
    exchange_drop_body(request->exchange); /* no retry from here on */
    enum relay_end end = sse_run(&relay);
    buf_free(&relay.tail);
    return end;
}

FIBER_FN enum relay_end relay_reply(struct request *request, struct reply *reply) {
    return reply->event_stream ? relay_sse(request, reply) : relay_plain(request, reply);
}
