/* See relay_one.h. */
#include "gateway/admin/relay_one.h"

#include <errno.h>

#include "fleet/fleet.h"
#include "gateway/forward.h"

#define ANSWER_MAX ((size_t)16 << 20)

struct relay_one {
    struct request *request;
    struct worker *worker;
    struct http_call *call;
    struct buf body;
};

static struct worker *first_ready(void) {
    const struct fleet_group *group = &fleet_now()->by_role[ROLE_REGULAR];
    if (fleet_ready_count(ROLE_REGULAR) == 0)
        return NULL;
    for (size_t i = 0; i < group->count; i++) {
        if (worker_status(group->workers[i]) == WORKER_READY)
            return worker_ref(group->workers[i]);
    }
    return NULL;
}

static void unref(void *arg) { worker_unref(arg); }

static FIBER_FN int collect(struct relay_one *relay) {
    struct str piece;
    int rc;
    while ((rc = http_call_read(relay->call, &piece, 0)) == 1) {
        if (buf_add(&relay->body, piece) < 0)
            return -EMSGSIZE;
    }
    return rc;
}

/* 0 with status, headers and body, or a negative errno. The call is to be finished in any case. */
static FIBER_FN int ask(struct relay_one *relay, struct str route) {
    struct request *request = relay->request;
    struct http_call_request up = {
        .method = STR("GET"),
        .target = arena_printf(request->arena, "%.*s%.*s", STR_ARG(relay->worker->base_path),
                               STR_ARG(route)),
        .head = forward_head(request, relay->worker),
        .deadline = request->deadline,
    };
    buf_clear(&relay->body);
    int rc = http_call_start(request->arena, relay->worker->peer, &up, &relay->call);
    return rc < 0 ? rc : collect(relay);
}

static FIBER_FN void answer(struct relay_one *relay) {
    const struct http_response *response = http_call_response(relay->call);
    struct headers headers = forward_answer(relay->request, &response->headers, false);
    (void)exchange_respond(relay->request->exchange, response->status, &headers,
                           buf_str(&relay->body));
}

/* A body that broke off is told apart from a head that never came. */
static enum problem_id problem_of(const struct http_call *call) {
    switch (http_call_failure(call)) {
    case HTTP_TIMED_OUT: return PROBLEM_UPSTREAM_TIMEOUT;
    case HTTP_CANCELLED: return PROBLEM_CLIENT_GONE;
    case HTTP_NO_CONNECTION: return PROBLEM_NO_AVAILABLE_WORKERS;
    default: return http_call_response(call)->status ? PROBLEM_READ_BODY : PROBLEM_UPSTREAM_CONNECT;
    }
}

static FIBER_FN void refuse(struct relay_one *relay, int rc, struct str route) {
    struct request *request = relay->request;
    enum problem_id id = problem_of(relay->call);
    if (id == PROBLEM_CLIENT_GONE) {
        request->outcome.error_code = problem_code(id);
        return;
    }
    struct str why =
        rc == -EMSGSIZE ? STR("the answer is larger than 16 MiB") : http_call_error(relay->call);
    request_problem(request,
                    (struct problem){
                        .id = id,
                        .message = arena_printf(request->arena, "%.*s. URL: %.*s%.*s", STR_ARG(why),
                                                STR_ARG(relay->worker->url), STR_ARG(route)),
                    });
}
_Static_assert(ANSWER_MAX == 16777216, "the message above names the limit");

static FIBER_FN void relay_run(struct relay_one *relay, struct str route, struct str other) {
    int rc = ask(relay, route);
    if (rc == 0 && other.len > 0 && http_call_response(relay->call)->status == 404) {
        http_call_finish(relay->call);
        route = other;
        rc = ask(relay, route);
    }
    if (rc < 0)
        refuse(relay, rc, route);
    else
        answer(relay);
    http_call_finish(relay->call);
}

FIBER_FN void relay_one(struct request *request, struct str route, struct str other) {
    struct relay_one relay = {
        .request = request, .worker = first_ready(), .body = buf_make(ANSWER_MAX)};
    if (relay.worker == NULL) {
        request_fail(request, PROBLEM_NO_WORKERS);
        return;
    }
    arena_defer(request->arena, unref, relay.worker);
    request->facts.authorization = headers_get(&request->http->headers, STR("authorization"));
    request->outcome.worker = relay.worker->url;
    request->outcome.attempts = 1;
    relay_run(&relay, route, other);
    buf_free(&relay.body);
}
