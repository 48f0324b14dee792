/* See http_server.h: the server object and what concerns all its connections. */
#include "base/panic.h"
#include "proto/http_server_core.h"

struct http_server *http_server_new(const struct http_server_options *options) {
    struct http_server *server = mem_zalloc(sizeof *server);
    server->options = *options;
    server->limits = (struct http1_limits){.head_bytes = options->max_header_bytes,
                                           .header_count = options->max_headers,
                                           .line_bytes = options->max_request_line};
    server->loops = mem_zalloc(loops_count() * sizeof *server->loops);
    for (unsigned i = 0; i < loops_count(); i++)
        list_init(&server->loops[i].conns);
    return server;
}

struct server_loop *server_here(const struct http_server *server) {
    return &server->loops[loop_index(loop_here())];
}

void http_server_accept(void *server, int fd) { conn_open(server, fd); }

/* --- for all connections, loop by loop --- */

struct sweep {
    struct message message;
    struct http_server *server;
    bool cut;
};

static void sweep_conn(struct http_conn *conn, bool cut) {
    if (!cut && conn->state != CONN_IDLE)
        return;
    if (cut && conn->state == CONN_BUSY) {
        conn->exchange->gone = true;
        conn->exchange->keep_alive = false;
        stream_abort(&conn->stream);
        fiber_cancel(conn->exchange->fiber);
        return;
    }
    conn->state = CONN_CLOSING;
    stream_close(&conn->stream);
}

static void sweep_here(struct message *message) {
    struct sweep sweep = *container_of(message, struct sweep, message);
    mem_free(message);
    struct list *conns = &server_here(sweep.server)->conns;
    /* Closing is asynchronous, so the list stays as it is but for exchanges that end and close. */
    for (struct list *item = conns->next, *next; item != conns; item = next) {
        next = item->next;
        sweep_conn(container_of(item, struct http_conn, link), sweep.cut);
    }
}

static void sweep_all(struct http_server *server, bool cut) {
    for (unsigned i = 0; i < loops_count(); i++) {
        struct sweep *sweep = mem_alloc(sizeof *sweep);
        *sweep = (struct sweep){.message.run = sweep_here, .server = server, .cut = cut};
        loop_post(loop_at(i), &sweep->message);
    }
}

void http_server_drain(struct http_server *server) {
    atomic_store(&server->draining, true);
    sweep_all(server, false);
}

void http_server_cut(struct http_server *server) { sweep_all(server, true); }

uint64_t http_server_exchanges(const struct http_server *server) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < loops_count(); i++)
        sum += atomic_load(&server->loops[i].exchanges);
    return sum;
}

uint64_t http_server_connections(const struct http_server *server) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < loops_count(); i++)
        sum += atomic_load(&server->loops[i].connections);
    return sum;
}
