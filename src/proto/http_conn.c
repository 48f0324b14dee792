/* One client connection of the HTTP/1 server, on the loop's stack. It holds no fiber and no buffers while idle:
 * the first byte of a head brings an exchange with its arena, the complete head a fiber. Bytes that come
 * while an exchange is in flight are its body, or wait in `ahead` (pipelining, at most 64 KiB). */
#include "base/pool.h"
#include "proto/http_server_core.h"

#define AHEAD_MAX 65536
#define LINGER_MS 2000

static void conn_feed(struct http_conn *conn, char *ptr, size_t len);

static struct http_conn *conn_of(struct stream *stream) {
    return container_of(stream, struct http_conn, stream);
}

static struct pool **conn_pool(void) {
    static _Thread_local struct pool *pool;
    return &pool;
}

/* --- closing --- */

static void conn_free(struct http_conn *conn) {
    timer_clear(&conn->timer);
    list_remove(&conn->link);
    buf_free(&conn->ahead);
    if (conn->exchange != NULL) /* a head that never became complete */
        exchange_free(conn->exchange);
    atomic_fetch_sub(&server_here(conn->server)->connections, 1);
    listener_connection_closed();
    pool_put(*conn_pool(), conn);
}

/* A fiber that still serves an exchange may park on its way out (a hard park, a message); it then frees. */
static void on_closed(struct stream *stream) {
    struct http_conn *conn = conn_of(stream);
    if (conn->exchange != NULL && conn->exchange->fiber != NULL)
        conn->closed = true;
    else
        conn_free(conn);
}

static void conn_close(struct http_conn *conn) {
    conn->state = CONN_CLOSING;
    stream_close(&conn->stream);
}

static void conn_abort(struct http_conn *conn) {
    conn->state = CONN_CLOSING;
    stream_abort(&conn->stream);
}

/* Our side is done, but the client may still be sending: a plain close would answer its bytes with a reset,
 * which can take our last answer out of its hands. */
static void conn_linger(struct http_conn *conn) {
    uv_os_fd_t fd;
    if (!stream_open_now(&conn->stream) || uv_fileno(&conn->stream.handle, &fd) != 0 ||
        shutdown(fd, SHUT_WR) != 0) {
        conn_close(conn);
        return;
    }
    conn->state = CONN_LINGER;
    buf_free(&conn->ahead);
    timer_set(&conn->timer, deadline_in(LINGER_MS));
    stream_resume(&conn->stream);
}

/* --- between requests --- */

static void conn_idle(struct http_conn *conn) {
    conn->state = CONN_IDLE;
    timer_set(&conn->timer, loop_now_ms() + conn->server->options.idle_timeout_ms);
    stream_resume(&conn->stream);
}

/* A fault before a handler runs: answered from here, without a fiber. The few hundred bytes fit into any socket
 * buffer; if they do not, the client loses nothing it could use. */
static void conn_refuse(struct http_conn *conn, enum problem_id id) {
    struct exchange *exchange = conn->exchange;
    struct problem problem = {.id = id};
    struct str answer = exchange_refusal(exchange, problem);
    struct iovec part = {.iov_base = (void *)answer.ptr, .iov_len = answer.len};
    (void)stream_try_write(&conn->stream, &part, 1);
    if (conn->server->options.refused != NULL)
        conn->server->options.refused(conn->server->options.arg, exchange, problem);
    conn->exchange = NULL;
    exchange_free(exchange);
    conn_linger(conn);
}

static void on_timer(struct timer *timer) {
    struct http_conn *conn = container_of(timer, struct http_conn, timer);
    if (conn->state == CONN_HEAD)
        conn_refuse(conn, PROBLEM_HEADER_TIMEOUT);
    else
        conn_close(conn);
}

/* --- bytes of a head --- */

static bool blank(char c) { return c == '\r' || c == '\n'; }

static void head_start(struct http_conn *conn) {
    conn->exchange = exchange_new(conn);
    conn->state = CONN_HEAD;
    http1_begin(&conn->parser, &conn->exchange->head);
    timer_set(&conn->timer, loop_now_ms() + conn->server->options.header_timeout_ms);
}

static void exchange_start(struct http_conn *conn) {
    timer_clear(&conn->timer);
    conn->state = CONN_BUSY;
    atomic_fetch_add(&server_here(conn->server)->exchanges, 1);
}

/* Body bytes that came with the head are taken before the handler starts, so that it mostly finds its body
 * complete and never parks for it. */
static size_t feed_head(struct http_conn *conn, char *ptr, size_t len) {
    size_t used;
    enum http1_progress progress = http1_feed(&conn->parser, ptr, len, &used);
    if (progress == HTTP1_MORE)
        return used;
    enum problem_id fault =
        progress == HTTP1_FAULT ? conn->exchange->head.fault : exchange_head_done(conn->exchange);
    if (fault != PROBLEM_NONE) {
        conn_refuse(conn, fault);
        return len;
    }
    exchange_start(conn);
    return used;
}

/* --- bytes of a body --- */

static void body_end(struct exchange *exchange, enum problem_id fault) {
    exchange->body_done = true;
    exchange->body_fault = fault;
}

static size_t feed_body(struct http_conn *conn, char *ptr, size_t len) {
    struct exchange *exchange = conn->exchange;
    size_t used;
    enum http1_progress progress = http1_feed(&conn->parser, ptr, len, &used);
    exchange_body_bytes(exchange, conn->parser.body, conn->parser.body_len);
    if (progress == HTTP1_COMPLETE)
        exchange->body_done = true;
    else if (progress == HTTP1_FAULT)
        body_end(exchange, PROBLEM_BAD_REQUEST);
    if (exchange->starved && !exchange->body_done)
        stream_pause(&conn->stream);
    return progress == HTTP1_FAULT ? len : used;
}

static void keep_ahead(struct http_conn *conn, const char *ptr, size_t len) {
    if (buf_append(&conn->ahead, ptr, len) < 0) {
        conn->exchange->keep_alive = false; /* cannot happen: reads stop at the limit */
        return;
    }
    if (conn->ahead.len >= AHEAD_MAX)
        stream_pause(&conn->stream);
}

/* Wakes the handler when its body got on: it waits for the end, for budget, or to see a fault. */
static void body_progress(struct exchange *exchange) {
    if (exchange->body_wanted && (exchange->body_done || exchange->starved))
        fiber_wake(exchange->fiber);
}

static void feed_busy(struct http_conn *conn, char *ptr, size_t len) {
    struct exchange *exchange = conn->exchange;
    if (!exchange->body_done) {
        size_t used = feed_body(conn, ptr, len);
        ptr += used;
        len -= used;
    }
    if (exchange->fiber == NULL && exchange->body_fault == PROBLEM_BAD_REQUEST) {
        atomic_fetch_sub(&server_here(conn->server)->exchanges, 1);
        conn_refuse(conn, PROBLEM_BAD_REQUEST); /* whatever the path says: it was no HTTP */
        return;
    }
    if (len > 0)
        keep_ahead(conn, ptr, len);
    if (exchange->fiber == NULL)
        fiber_spawn(exchange_main, exchange);
    else
        body_progress(exchange);
}

static void conn_feed(struct http_conn *conn, char *ptr, size_t len) {
    while (len > 0 && conn->state == CONN_IDLE && blank(*ptr)) {
        ptr++; /* blank lines between requests (RFC 9112 section 2.2) */
        len--;
    }
    if (len > 0 && conn->state == CONN_IDLE)
        head_start(conn);
    if (len > 0 && conn->state == CONN_HEAD) {
        size_t used = feed_head(conn, ptr, len);
        ptr += used;
        len -= used;
        if (conn->state == CONN_BUSY)
            feed_busy(conn, ptr, len);
    } else if (conn->state == CONN_BUSY && len > 0) {
        feed_busy(conn, ptr, len);
    }
}

/* --- stream events --- */

static void on_data(struct stream *stream, const char *ptr, size_t len) {
    struct http_conn *conn = conn_of(stream);
    if (conn->state != CONN_LINGER)
        conn_feed(conn, (char *)ptr, len);
}

static void on_end(struct stream *stream, int error) {
    struct http_conn *conn = conn_of(stream);
    (void)error;
    if (conn->state != CONN_BUSY) {
        conn_close(conn);
        return;
    }
    struct exchange *exchange = conn->exchange;
    exchange->gone = true;
    exchange->keep_alive = false;
    if (!exchange->body_done)
        body_end(exchange, PROBLEM_CLIENT_GONE);
    fiber_cancel(exchange->fiber);
}

static const struct stream_events conn_events = {
    .data = on_data, .end = on_end, .closed = on_closed};

/* --- life --- */

void conn_open(struct http_server *server, int fd) {
    struct pool **pool = conn_pool();
    if (*pool == NULL)
        *pool = pool_new("http_conn", sizeof(struct http_conn));
    struct http_conn *conn = pool_get(*pool);
    memset(conn, 0, sizeof *conn);
    conn->server = server;
    conn->timer.fire = on_timer;
    conn->ahead = buf_make(AHEAD_MAX + LOOP_READ_SIZE);
    http1_init(&conn->parser, HTTP_REQUEST);
    struct server_loop *here = server_here(server);
    list_push_back(&here->conns, &conn->link);
    atomic_fetch_add(&here->connections, 1);
    if (stream_open(&conn->stream, fd, &conn_events) < 0) {
        conn->state = CONN_CLOSING;
        return;
    }
    stream_peer(&conn->stream, &conn->peer);
    conn_idle(conn);
}

void conn_resume(struct http_conn *conn) { stream_resume(&conn->stream); }

static bool conn_reusable(const struct http_conn *conn, const struct exchange *exchange) {
    return !atomic_load_explicit(&conn->server->draining, memory_order_relaxed) &&
           exchange->keep_alive && exchange->body_done && exchange->body_fault == PROBLEM_NONE &&
           exchange->ended && !exchange->aborted && stream_open_now(&conn->stream);
}

static void conn_next(struct http_conn *conn) {
    conn_idle(conn);
    struct buf ahead = conn->ahead;
    conn->ahead = buf_make(AHEAD_MAX + LOOP_READ_SIZE);
    if (ahead.len > 0)
        conn_feed(conn, ahead.ptr, ahead.len);
    buf_free(&ahead);
}

FIBER_FN void conn_exchange_done(struct http_conn *conn) {
    struct exchange *exchange = conn->exchange;
    bool reusable = conn_reusable(conn, exchange);
    bool abort = exchange->aborted || (!exchange->ended && !exchange->cut);
    bool unread =
        !exchange->body_done || exchange->body_fault != PROBLEM_NONE || conn->ahead.len > 0;
    bool gone = exchange->gone;
    conn->exchange = NULL;
    exchange_free(exchange);
    atomic_fetch_sub(&server_here(conn->server)->exchanges, 1);
    if (conn->closed)
        conn_free(conn);
    else if (reusable)
        conn_next(conn);
    else if (abort && !gone)
        conn_abort(conn);
    else if (unread && !gone)
        conn_linger(conn);
    else
        conn_close(conn);
}
