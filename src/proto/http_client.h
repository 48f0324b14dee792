/* HTTP/1.1 client to workers: pooled keep-alive connections, per loop and peer. A call is one request with
 * its answer, in the caller's arena; the body is pulled chunk by chunk straight out of the loop's read
 * buffer when the caller is already waiting (else at most 64 KiB are held and the socket is not read). */
#pragma once

#include "io/stream.h"
#include "proto/headers.h"
#include "proto/url.h"

/* Where a worker lives. Shared by loops, counted; immutable but for the idle lists inside. */
struct http_peer;
struct http_peer_options {
    struct str host; /* name or address, bare or bracketed IPv6 */
    uint16_t port;
    bool tls;        /* refused by http_call_start with -EPROTONOSUPPORT until TLS lands */
    size_t max_idle; /* per loop */
    int64_t idle_ms; /* how long an idle connection is kept */
    int64_t connect_ms;
    /* Asked of each resolved address before a connection to it; NULL: any. So a name that changes its mind after it
     * was checked gets nowhere. Any loop; must not park. */
    bool (*permits)(struct str host, const struct sockaddr_storage *address);
};
/* Limits of the process: idle connections over all peers, and open ones (0 = by descriptors). */
void http_client_limits(size_t max_idle, size_t max_open);

struct http_peer *http_peer_new(const struct http_peer_options *options);
struct http_peer *http_peer_ref(struct http_peer *peer);
void http_peer_unref(struct http_peer *peer);
/* "host:port" as sent in the Host header. */
struct str http_peer_authority(const struct http_peer *peer);

struct http_call;

struct http_call_request {
    struct str method;      /* "POST" */
    struct str target;      /* "/v1/chat/completions" */
    struct str head;        /* further header lines, each ended by CRLF; Host, Content-Length,
                           Connection and Accept-Encoding: identity are added */
    const struct str *body; /* parts sent one after the other */
    size_t body_parts;
    bool has_body;        /* send Content-Length even when it is 0 */
    deadline_ms deadline; /* of the whole call */
    int64_t head_ms; /* longest wait for the head once the request is sent; 0: none of its own */
    size_t max_head; /* response head bytes; 0 = 64 KiB */
};

struct http_response {
    int status;
    struct headers headers;  /* in the call's arena */
    uint64_t content_length; /* UINT64_MAX: chunked or until close */
    bool reused_connection;
};

/* How a call failed, beside the errno: what may be retried and what is blamed. */
enum http_failure {
    HTTP_FINE,
    HTTP_CONNECT_FAILED, /* refused, unreachable, DNS, connect timeout: nothing was sent */
    HTTP_BROKEN,         /* reset, end, garbage before or inside the answer */
    HTTP_TIMED_OUT,      /* a deadline after the request was sent */
    HTTP_CANCELLED,      /* our side gave up */
    HTTP_NO_CONNECTION,  /* max_open reached and none came free */
};

/* Sends the request and waits for the response head (1xx answers are skipped). A reused connection that dies
 * before any response byte is replaced once, silently. 0 with *out; the call must be ended by
 * http_call_finish, also after a failure. The call is closed by the arena's defer list if forgotten. */
FIBER_FN int http_call_start(struct arena *arena, struct http_peer *peer,
                             const struct http_call_request *request, struct http_call **out);
const struct http_response *http_call_response(const struct http_call *call);
/* The next piece of the body: 1 with *piece (valid until the next call on this call object or park of
 * this fiber elsewhere), 0 at its proper end, or a negative errno. `idle` = longest silence in ms,
 * 0 = no limit of its own. */
FIBER_FN int http_call_read(struct http_call *call, struct str *piece, int64_t idle);
/* Monotonic µs when the request had been written, 0 before. */
int64_t http_call_sent_us(const struct http_call *call);
/* True when a further piece (or the end) is already here: reading would not park. */
bool http_call_ready(const struct http_call *call);
enum http_failure http_call_failure(const struct http_call *call);
/* Human text of the failure ("connection refused"). */
struct str http_call_error(const struct http_call *call);
/* Ends the call: the connection goes back to the pool when the answer was read to its end and it may be
 * kept, else it is closed at once (so that the worker notices). */
void http_call_finish(struct http_call *call);

/* One small request for the control plane: the whole body (at most max_body) into the arena. Status, or a
 * negative errno; *failure_text (may be NULL) says why. */
struct http_fetch {
    struct str method, target, head, body;
    bool has_body;
    size_t max_body;
    deadline_ms deadline;
};
FIBER_FN int http_fetch(struct arena *arena, struct http_peer *peer, const struct http_fetch *fetch,
                        struct str *body, struct str *failure_text);
