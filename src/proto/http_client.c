/* One connection to a worker, on the loop's stack. Bytes of the answer go to the waiting call straight out of the
 * read buffer; what it does not take before it parks elsewhere is held, at most about 64 KiB, and then the
 * socket is not read until it has caught up. */
#include "base/pool.h"
#include "proto/http_client_core.h"

#define HOLD_MAX 65536
#define HEAD_MAX 65536
#define FIELDS_MAX 1000
#define INTERIMS_MAX 16

static struct upstream *conn_of(struct stream *stream) {
    return container_of(stream, struct upstream, stream);
}

static struct pool *upstream_pool(void) {
    static _Thread_local struct pool *pool;
    if (pool == NULL)
        pool = pool_new("upstream", sizeof(struct upstream));
    return pool;
}

static void wake_caller(struct upstream *conn) {
    if (conn->call != NULL && conn->waiting)
        fiber_wake(conn->call->fiber);
}

struct http1_limits upstream_limits(size_t max_head) {
    size_t most = max_head > 0 ? max_head : HEAD_MAX;
    return (struct http1_limits){
        .head_bytes = most, .header_count = FIELDS_MAX, .line_bytes = most};
}

/* --- bytes --- */

static bool interim(const struct upstream *conn) {
    int status = conn->parser.ll.status_code;
    return status / 100 == 1 && status != 101;
}

static void head_take(struct upstream *conn) {
    struct http_call *call = conn->call;
    const llhttp_t *ll = &conn->parser.ll;
    bool chunked = ll->flags & F_CHUNKED, sized = ll->flags & F_CONTENT_LENGTH;
    call->response.status = ll->status_code;
    call->response.headers = (struct headers){
        .items = call->head.fields, .len = call->head.count, .cap = call->head.field_cap};
    call->response.content_length = sized && !chunked ? ll->content_length : UINT64_MAX;
    if (call->no_body || ll->status_code == 204 || ll->status_code == 304)
        http1_no_body(&conn->parser);
    conn->head_done = true;
    if (ll->status_code < 200) /* 101, or no status at all: "051" */
        conn->fault = true;
}

static void fresh_head(struct upstream *conn) {
    struct http_call *call = conn->call;
    http1_head_init(&call->head, call->arena, &call->limits);
    http1_begin(&conn->parser, &call->head);
}

/* Each takes memory of the call's arena, so there must be an end to them. */
static void interim_skip(struct upstream *conn) {
    if (++conn->interims > INTERIMS_MAX)
        conn->fault = true;
    fresh_head(conn);
}

/* Feeds one read. After the head the rest is fed even when it is empty: the parser finds the end of an
 * answer without a body only then. */
static void feed(struct upstream *conn, char *ptr, size_t len) {
    size_t used = 0;
    enum http1_progress progress = HTTP1_MORE;
    while (!conn->head_done && !conn->fault && len > 0) {
        progress = http1_feed(&conn->parser, ptr, len, &used);
        ptr += used;
        len -= used;
        if (progress != HTTP1_HEAD)
            break;
        if (interim(conn))
            interim_skip(conn);
        else
            head_take(conn);
    }
    if (conn->head_done && progress != HTTP1_FAULT && !conn->fault) {
        progress = http1_feed(&conn->parser, ptr, len, &used);
        conn->fresh = str_make(conn->parser.body, conn->parser.body_len);
        conn->excess = len > used;
    }
    conn->complete = progress == HTTP1_COMPLETE;
    conn->fault = conn->fault || progress == HTTP1_FAULT;
}

static void hold_rest(struct upstream *conn) {
    struct buf *held = &conn->held[conn->filling];
    if (buf_add(held, conn->fresh) < 0)
        conn->fault = true; /* cannot happen: reads stop before */
    conn->fresh = STR_NONE;
    if (held->len >= HOLD_MAX)
        stream_pause(&conn->stream);
}

static void on_data(struct stream *stream, const char *ptr, size_t len) {
    struct upstream *conn = conn_of(stream);
    if (conn->call == NULL || conn->complete || conn->fault) {
        conn->excess = true; /* bytes nobody asked for: it cannot be trusted with another request */
        if (conn->call == NULL)
            upstream_close(conn);
        return;
    }
    conn->any_byte = true;
    feed(conn, (char *)ptr, len);
    wake_caller(conn);
    if (conn->fresh.len > 0) /* none when the call has ended, or another one has begun */
        hold_rest(conn);
    if (conn->complete ||
        conn->fault) /* it answers before it has the whole request, and may read no more of it */
        stream_write_cut(stream);
}

static void on_end(struct stream *stream, int error) {
    struct upstream *conn = conn_of(stream);
    if (conn->call == NULL) {
        upstream_close(conn);
        return;
    }
    conn->error = error;
    if (!conn->complete && !conn->fault && error == 0 && conn->head_done)
        conn->complete = http1_end(&conn->parser) == HTTP1_COMPLETE;
    wake_caller(conn);
    stream_write_cut(stream);
}

static void upstream_free(struct upstream *conn) {
    buf_free(&conn->held[0]);
    buf_free(&conn->held[1]);
    http_peer_unref(conn->peer);
    pool_put(upstream_pool(), conn);
}

/* A write that failed closes the stream under a call, which may still read what is held: its end frees. */
static void on_closed(struct stream *stream) {
    struct upstream *conn = conn_of(stream);
    peer_opened(-1);
    conn->closed = true;
    if (conn->call == NULL)
        upstream_free(conn);
}

const struct stream_events upstream_events = {.data = on_data, .end = on_end, .closed = on_closed};

/* --- life --- */

static void on_idle_over(struct timer *timer) {
    upstream_close(container_of(timer, struct upstream, timer));
}

struct upstream *upstream_new(struct http_peer *peer) {
    struct upstream *conn = pool_get(upstream_pool());
    memset(conn, 0, sizeof *conn);
    conn->peer = http_peer_ref(peer);
    conn->timer.fire = on_idle_over;
    conn->held[0] = conn->held[1] = buf_make(HOLD_MAX + LOOP_READ_SIZE);
    http1_init(&conn->parser, HTTP_RESPONSE);
    return conn;
}

void upstream_begin(struct upstream *conn, struct http_call *call) {
    conn->call = call;
    conn->fresh = STR_NONE;
    conn->error = 1;
    conn->interims = 0;
    conn->any_byte = conn->head_done = conn->complete = conn->fault = conn->waiting = false;
    fresh_head(conn);
}

void upstream_close(struct upstream *conn) {
    peer_forget_idle(conn);
    conn->call = NULL;
    stream_close(&conn->stream);
}

void upstream_end(struct upstream *conn, bool keep) {
    keep = keep && conn->complete && !conn->excess && !conn->fault && conn->error == 1 &&
           http1_keep_alive(&conn->parser) && stream_open_now(&conn->stream);
    conn->call = NULL;
    conn->fresh = STR_NONE;
    buf_free(&conn->held[0]);
    buf_free(&conn->held[1]);
    if (conn->closed) {
        upstream_free(conn);
    } else if (keep) {
        stream_resume(&conn->stream);
        peer_put_idle(conn);
    } else {
        upstream_close(conn);
    }
}
