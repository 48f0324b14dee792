/* The inside of the HTTP client that its three files share: http_peer.c (where workers live, idle lists),
 * http_client.c (connections, loop's stack) and http_call.c (what callers use, fibers). */
#pragma once

#include "base/buf.h"
#include "proto/http1.h"
#include "proto/http_client.h"

struct upstream {
    struct stream stream; /* first */
    struct list of_peer;  /* idle: newest first in peer_loop.idle */
    struct list of_loop;  /* idle: newest first, over all peers */
    struct timer timer;   /* idle time */
    struct http_peer *peer;
    struct http1 parser;
    struct http_call *call; /* NULL: idle */
    struct str fresh;       /* body bytes of the read that is being handled */
    struct buf held[2];     /* bytes nobody took at once; one may be lent while the other fills */
    int filling;
    int error;         /* how the connection ended; 1 = not at all */
    unsigned interims; /* 1xx heads before the answer */
    bool any_byte, head_done, complete, fault, waiting, excess;
    bool closed; /* while a call still had it */
};

struct http_call {
    struct arena *arena;
    struct http_peer *peer;
    struct upstream *conn;
    struct fiber *fiber;                     /* waits for bytes */
    const struct http_call_request *request; /* until http_call_start returns */
    struct http1_limits limits;
    struct http1_head head;
    struct http_response response;
    struct defer *defer;
    deadline_ms deadline;
    int64_t sent_us;
    enum http_failure failure;
    struct str error;
    bool no_body;
};

struct peer_loop {
    struct list idle;
    size_t count;
    char pad[40];
};

struct http_peer {
    _Atomic uint32_t refs;
    struct http_peer_options options; /* host points into `text` */
    struct str authority;
    char *text;
    struct peer_loop *loops;
};

extern const struct stream_events upstream_events;

/* http_client.c */
/* For a response head of at most `max_head` bytes (0: 64 KiB). */
struct http1_limits upstream_limits(size_t max_head);
struct upstream *upstream_new(struct http_peer *peer);
/* Binds a connection to a call: from here on its bytes are the call's answer. */
void upstream_begin(struct upstream *conn, struct http_call *call);
/* Unbinds it: back to the pool when `keep`, else closed. */
void upstream_end(struct upstream *conn, bool keep);
void upstream_close(struct upstream *conn);
/* http_peer.c */
struct peer_loop *peer_here(struct http_peer *peer);
/* The idle connection used last, taken out of the lists; NULL when there is none. */
struct upstream *peer_take_idle(struct http_peer *peer);
/* Keeps it for later, or closes the one unused for longest when there are too many. */
void peer_put_idle(struct upstream *conn);
void peer_forget_idle(struct upstream *conn);
/* Place for one more open connection; false at the limit (an idle one was closed if there was one). */
bool peer_may_open(void);
void peer_opened(int delta);
