/* The inside of the HTTP server that its three files share: http_server.c (the object), http_conn.c
 * (connections, loop's stack) and http_exchange.c (what handlers call, fibers). */
#pragma once

#include "base/buf.h"
#include "io/stream.h"
#include "proto/http1.h"
#include "proto/http_server.h"

enum conn_state {
    CONN_IDLE,   /* between requests */
    CONN_HEAD,   /* part of a head has come */
    CONN_BUSY,   /* an exchange is in flight */
    CONN_LINGER, /* our side is shut; the client's bytes are thrown away */
    CONN_CLOSING,
};

struct http_conn {
    struct stream stream; /* first: stream callbacks cast back */
    struct list link;     /* in server_loop.conns */
    struct timer timer;
    struct http_server *server;
    struct http1 parser;
    struct exchange *exchange;
    struct buf ahead; /* pipelined bytes while busy */
    union peer_address peer;
    enum conn_state state;
    bool closed; /* while an exchange was in flight: it frees */
};

struct exchange {
    struct http_conn *conn;
    struct arena *arena;
    struct fiber *fiber;
    struct http1_head head;
    struct http_request request;
    struct buf body;
    uint64_t body_allowed; /* bytes that may be held without asking the budget */
    uint64_t budget;       /* bytes taken from it */
    bool body_done, body_wanted, wants_continue, starved;
    enum problem_id body_fault;
    bool gone;
    bool keep_alive;
    /* answer */
    struct str out_head; /* not sent yet */
    int status;
    uint64_t out_length; /* UINT64_MAX: until the end */
    uint64_t out_body;   /* body bytes given so far */
    uint64_t bytes_in;   /* body bytes */
    int64_t started_us, head_us;
    bool chunked, no_body, ended, aborted, cut, head_given;
};

/* Per loop: so that counting and draining need no lock. */
struct server_loop {
    struct list conns;
    _Atomic uint64_t exchanges, connections;
    char pad[64];
};

struct http_server {
    struct http_server_options options;
    struct http1_limits limits;
    _Atomic bool draining;
    struct server_loop *loops;
};

/* http_conn.c */
void conn_open(struct http_server *server, int fd);
/* The handler is done: on to the next request, or close. On the exchange's fiber. */
FIBER_FN void conn_exchange_done(struct http_conn *conn);
/* Lets body bytes flow again (after the budget gave room). */
void conn_resume(struct http_conn *conn);
/* http_exchange.c */
struct exchange *exchange_new(struct http_conn *conn);
void exchange_free(struct exchange *exchange);
/* Fills request from the complete head; PROBLEM_NONE or what is wrong. */
enum problem_id exchange_head_done(struct exchange *exchange);
/* Takes body bytes; may set body_fault or starved. */
void exchange_body_bytes(struct exchange *exchange, const char *ptr, size_t len);
void exchange_main(void *arg);
/* The bytes of a small complete answer, for faults before a handler runs. */
struct str exchange_refusal(struct exchange *exchange, struct problem problem);
struct server_loop *server_here(const struct http_server *server);
