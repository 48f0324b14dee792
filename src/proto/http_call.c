/* Calls of the HTTP client (http_client.h), on the caller's fiber. */
#include <errno.h>

#include "base/panic.h"
#include "io/resolver.h"
#include "proto/http_client_core.h"

#define BODY_PARTS_MAX 8
#define OPEN_RETRY_MS 10

static int fail(struct http_call *call, enum http_failure failure, int error, const char *text) {
    call->failure = error == -ECANCELED ? HTTP_CANCELLED : failure;
    call->error = str_from(text);
    return error;
}

static int fail_errno(struct http_call *call, enum http_failure failure, int error) {
    return fail(call, failure, error,
                error == -EHOSTUNREACH ? "cannot resolve or reach the host" : uv_strerror(error));
}

/* --- connecting --- */

static bool take_idle(struct http_call *call) {
    call->conn = peer_take_idle(call->peer);
    return call->conn != NULL;
}

/* Until a connection to this peer comes free or there is place for a new one. */
static FIBER_FN int place_wait(struct http_call *call, bool fresh, deadline_ms deadline) {
    for (;;) {
        if ((!fresh && take_idle(call)) || peer_may_open())
            return 0;
        if (clock_ms() >= deadline)
            return -EMFILE;
        if (fiber_sleep(OPEN_RETRY_MS) < 0)
            return -ECANCELED;
    }
}

static FIBER_FN int dial_address(struct http_call *call, const struct sockaddr *address,
                                 deadline_ms deadline) {
    struct upstream *conn = upstream_new(call->peer);
    peer_opened(1);
    int rc = stream_connect(&conn->stream, address, &upstream_events, deadline);
    if (rc == 0) /* else the stream is closing and takes the object with it */
        call->conn = conn;
    return rc;
}

static FIBER_FN int dial(struct http_call *call, deadline_ms deadline) {
    const struct http_peer_options *options = &call->peer->options;
    struct resolver_addresses all;
    int rc = resolver_lookup_all(options->host, options->port, deadline, &all);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < all.len; i++) {
        rc = -EACCES;
        if (options->permits != NULL && !options->permits(options->host, &all.items[i]))
            continue;
        rc = dial_address(call, (struct sockaddr *)&all.items[i], deadline);
        if (rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT)
            break;
    }
    return rc;
}

/* An idle connection, unless it shall be a fresh one, or a new one. */
static FIBER_FN int connection(struct http_call *call, bool fresh) {
    deadline_ms by = deadline_sooner(call->deadline, deadline_in(call->peer->options.connect_ms));
    int rc = place_wait(call, fresh, by);
    if (rc == -EMFILE)
        return fail(call, HTTP_NO_CONNECTION, rc, "all upstream connections are busy");
    call->response.reused_connection = call->conn != NULL;
    if (rc == 0 && call->conn == NULL)
        rc = dial(call, by);
    if (rc == -ETIMEDOUT)
        return fail(call, HTTP_CONNECT_FAILED, rc, "connect timed out");
    if (rc < 0)
        return fail_errno(call, HTTP_CONNECT_FAILED, rc);
    upstream_begin(call->conn, call);
    stream_resume(&call->conn->stream);
    return 0;
}

/* --- sending --- */

static struct str request_head(struct http_call *call, uint64_t length) {
    const struct http_call_request *request = call->request;
    struct str authority = call->peer->authority;
    size_t room =
        request->method.len + request->target.len + authority.len + request->head.len + 128;
    char *start = arena_alloc(call->arena, room), *at = start;
    at = str_put(at, request->method);
    at = str_put(at, STR(" "));
    at = str_put(at, request->target);
    at = str_put(at, STR(" HTTP/1.1\r\nhost: "));
    at = str_put(at, authority);
    at = str_put(at, STR("\r\naccept-encoding: identity\r\n"));
    at = str_put(at, request->head);
    if (request->has_body || length > 0)
        at = str_put(str_put_u64(str_put(at, STR("content-length: ")), length), STR("\r\n"));
    at = str_put(at, STR("\r\n"));
    return str_make(start, (size_t)(at - start));
}

static FIBER_FN int send_request(struct http_call *call) {
    const struct http_call_request *request = call->request;
    struct iovec parts[1 + BODY_PARTS_MAX];
    uint64_t length = 0;
    int count = 1;
    assert_always(request->body_parts <= BODY_PARTS_MAX);
    for (size_t i = 0; i < request->body_parts; i++) {
        if (request->body[i].len == 0)
            continue;
        length += request->body[i].len;
        parts[count++] = (struct iovec){(void *)request->body[i].ptr, request->body[i].len};
    }
    struct str head = request_head(call, length);
    parts[0] = (struct iovec){(void *)head.ptr, head.len};
    return stream_write(&call->conn->stream, parts, count, call->deadline);
}

/* --- waiting --- */

static FIBER_FN int wait_bytes(struct http_call *call, deadline_ms deadline) {
    call->fiber = fiber_self(); /* one may start a call and another read it */
    call->conn->waiting = true;
    int rc = fiber_park(deadline);
    call->conn->waiting = false;
    return rc;
}

/* What the end of the connection, or of our patience, means. */
static int broken(struct http_call *call, int rc) {
    if (rc == -ETIMEDOUT)
        return fail(call, HTTP_TIMED_OUT, rc, "no answer in time");
    if (rc == -ECANCELED)
        return fail(call, HTTP_CANCELLED, rc, "given up");
    if (call->conn->fault)
        return fail(call, HTTP_BROKEN, -EPROTO, "malformed answer");
    if (call->conn->error < 0)
        return fail_errno(call, HTTP_BROKEN, call->conn->error);
    return fail(call, HTTP_BROKEN, -ECONNRESET, "connection closed before the answer was complete");
}

static bool over(const struct upstream *conn) { return conn->fault || conn->error <= 0; }

static FIBER_FN int wait_head(struct http_call *call) {
    int64_t patience = call->request->head_ms;
    deadline_ms by =
        deadline_sooner(call->deadline, patience > 0 ? deadline_in(patience) : DEADLINE_NEVER);
    int rc = 0;
    while (!call->conn->head_done && !over(call->conn) && rc == 0)
        rc = wait_bytes(call, by);
    bool good = call->conn->head_done && !call->conn->fault;
    return good && rc != -ECANCELED ? 0 : broken(call, rc);
}

static FIBER_FN int exchange_once(struct http_call *call) {
    int rc = send_request(call);
    call->sent_us = clock_us();
    if (rc == -ETIMEDOUT || rc == -ECANCELED)
        return broken(call, rc);
    if (rc < 0 && call->conn->error > 0)
        call->conn->error = rc; /* no bytes will follow, but an early answer may be here */
    return wait_head(call);
}

static void let_go(struct http_call *call, bool keep) {
    struct upstream *conn = call->conn;
    call->conn = NULL;
    if (conn != NULL)
        upstream_end(conn, keep);
}

static FIBER_FN int attempt(struct http_call *call, bool fresh) {
    int rc = connection(call, fresh);
    return rc < 0 ? rc : exchange_once(call);
}

/* A kept connection that the worker closed under our hands: nothing of the request was served. */
static bool stale(const struct http_call *call) {
    return call->response.reused_connection && call->failure == HTTP_BROKEN &&
           !call->conn->any_byte;
}

static void call_forgotten(void *arg) { let_go(arg, false); }

FIBER_FN int http_call_start(struct arena *arena, struct http_peer *peer,
                             const struct http_call_request *request, struct http_call **out) {
    struct http_call *call = arena_zalloc(arena, sizeof *call);
    *call = (struct http_call){.arena = arena,
                               .peer = peer,
                               .request = request,
                               .limits = upstream_limits(request->max_head),
                               .deadline = request->deadline,
                               .no_body = str_eq(request->method, STR("HEAD"))};
    *out = call;
    call->defer = arena_defer(arena, call_forgotten, call);
    if (peer->options.tls)
        return fail(call, HTTP_CONNECT_FAILED, -EPROTONOSUPPORT,
                    "TLS to workers is not available yet");
    int rc = attempt(call, false);
    if (rc == 0 || !stale(call))
        return rc;
    let_go(call, false);
    call->failure = HTTP_FINE;
    return attempt(call, true);
}

const struct http_response *http_call_response(const struct http_call *call) {
    return &call->response;
}
enum http_failure http_call_failure(const struct http_call *call) { return call->failure; }
int64_t http_call_sent_us(const struct http_call *call) { return call->sent_us; }
struct str http_call_error(const struct http_call *call) {
    return call->error;
}

/* --- the body --- */

bool http_call_ready(const struct http_call *call) {
    const struct upstream *conn = call->conn;
    return conn == NULL || conn->fresh.len > 0 || conn->held[conn->filling].len > 0 ||
           conn->complete || over(conn);
}

/* Lends the filled buffer and fills the other one from now on. */
static struct str lend_held(struct upstream *conn) {
    struct buf *lent = &conn->held[conn->filling];
    conn->filling ^= 1;
    buf_clear(&conn->held[conn->filling]);
    stream_resume(&conn->stream);
    return buf_str(lent);
}

static bool take_piece(struct upstream *conn, struct str *piece) {
    if (conn->held[conn->filling].len > 0) {
        *piece = lend_held(conn);
        return true;
    }
    if (conn->fresh.len == 0)
        return false;
    *piece = conn->fresh;
    conn->fresh = STR_NONE;
    return true;
}

FIBER_FN int http_call_read(struct http_call *call, struct str *piece, int64_t idle) {
    struct upstream *conn = call->conn;
    int rc = 0;
    if (conn == NULL)
        return fail(call, HTTP_BROKEN, -EPIPE, "the call is finished");
    while (!take_piece(conn, piece)) {
        if (conn->complete)
            return 0;
        if (over(conn) || rc < 0)
            return broken(call, rc);
        deadline_ms by = idle > 0 ? deadline_in(idle) : DEADLINE_NEVER;
        rc = wait_bytes(call, deadline_sooner(call->deadline, by));
    }
    return 1;
}

void http_call_finish(struct http_call *call) {
    if (call->defer != NULL)
        defer_drop(call->defer);
    call->defer = NULL;
    let_go(call, true);
}

/* --- small requests in one piece --- */

static FIBER_FN int body_collect(struct arena *arena, struct http_call *call, size_t max,
                                 struct str *body) {
    struct buf buf = buf_make(max);
    struct str piece = STR_NONE;
    int rc;
    while ((rc = http_call_read(call, &piece, 0)) == 1)
        if (buf_add(&buf, piece) < 0) {
            rc = fail(call, HTTP_BROKEN, -EMSGSIZE, "answer too large");
            break;
        }
    if (rc == 0)
        *body = arena_dup(arena, buf_str(&buf));
    buf_free(&buf);
    return rc;
}

FIBER_FN int http_fetch(struct arena *arena, struct http_peer *peer, const struct http_fetch *fetch,
                        struct str *body, struct str *failure_text) {
    struct http_call_request request = {.method = fetch->method,
                                        .target = fetch->target,
                                        .head = fetch->head,
                                        .body = &fetch->body,
                                        .body_parts = 1,
                                        .has_body = fetch->has_body,
                                        .deadline = fetch->deadline};
    struct http_call *call;
    int rc = http_call_start(arena, peer, &request, &call);
    if (rc == 0)
        rc = body_collect(arena, call, fetch->max_body, body);
    if (rc < 0 && failure_text != NULL)
        *failure_text = arena_dup(arena, http_call_error(call));
    int status = call->response.status;
    http_call_finish(call);
    return rc < 0 ? rc : status;
}
