/* HTTP server: connections in, exchanges out. An exchange is one request with its answer; the handler
 * runs on a fiber that starts when the head is complete. HTTP/1.1 has one exchange at a time on a
 * connection (pipelined ones wait, at most 64 KiB read ahead); nothing above proto/ depends on that.
 *
 * Framing is strict: what two parsers could read differently is answered 400 and closed. While a request
 * is in flight its connection keeps being read; its end cancels the handler's fiber. */
#pragma once

#include "base/problem.h"
#include "io/listener.h"
#include "proto/headers.h"

struct exchange;
struct http_server;

enum http_method {
    HTTP_GET_METHOD,
    HTTP_HEAD_METHOD,
    HTTP_POST_METHOD,
    HTTP_PUT_METHOD,
    HTTP_PATCH_METHOD,
    HTTP_DELETE_METHOD,
    HTTP_OPTIONS_METHOD,
    HTTP_OTHER_METHOD
};

struct http_server_options {
    size_t max_header_bytes, max_headers, max_request_line;
    uint64_t max_body; /* larger bodies: 413 */
    int64_t header_timeout_ms, idle_timeout_ms;
    int64_t body_idle_timeout_ms; /* silence inside a body */
    int64_t write_timeout_ms;     /* a client that takes nothing for so long is gone */
    /* Serves one exchange; on a fiber. Whatever it leaves unanswered becomes a 500. */
    void (*handler)(void *arg, struct exchange *exchange);
    void *arg;
    /* Told of answers the server gives by itself (malformed head, malformed small body...): for the log; must not
     * park; may be NULL. */
    void (*refused)(void *arg, struct exchange *exchange, struct problem problem);
};

/* A server that takes descriptors (listener's accepted callback = http_server_accept). Options are
 * copied. One object serves all loops. */
struct http_server *http_server_new(const struct http_server_options *options);
/* Takes a connected socket over on the calling loop. */
void http_server_accept(void *server, int fd);
/* From now on answers carry Connection: close, and idle connections are closed; on all loops. Any loop. */
void http_server_drain(struct http_server *server);
/* Exchanges and connections now open, over all loops. */
uint64_t http_server_exchanges(const struct http_server *server);
uint64_t http_server_connections(const struct http_server *server);
/* Cuts every connection (end of the grace period). */
void http_server_cut(struct http_server *server);

/* What the request says; all in the exchange's arena. */
struct http_request {
    enum http_method method;
    struct str method_text;
    struct str target; /* as sent */
    struct str path;   /* target up to '?', not decoded */
    struct str query;  /* after '?', or empty */
    struct headers headers;
    struct str host;
    int minor; /* HTTP/1.minor */
    bool has_body;
    uint64_t content_length; /* UINT64_MAX: chunked */
};
const struct http_request *exchange_request(const struct exchange *exchange);
struct arena *exchange_arena(struct exchange *exchange);
/* Monotonic µs when the head was complete. */
int64_t exchange_started_us(const struct exchange *exchange);
/* "127.0.0.1:4711" into the arena. */
struct str exchange_peer(struct exchange *exchange);
/* True once the client's connection has ended: nobody reads the answer. */
bool exchange_client_gone(const struct exchange *exchange);

/* Reads the whole body (sends 100-continue when asked for). PROBLEM_NONE with *body, or what to answer:
 * PAYLOAD_TOO_LARGE, BODY_TIMEOUT, BAD_REQUEST, OVERLOADED, CLIENT_GONE. The bytes live until the exchange
 * ends or exchange_drop_body. */
FIBER_FN struct problem exchange_body(struct exchange *exchange, deadline_ms deadline,
                                      struct str *body);
/* Gives the body's memory back early. */
void exchange_drop_body(struct exchange *exchange);

/* The answer in one piece: adds Content-Length, Date, Connection. `headers` may be NULL. For HEAD the body
 * is left out and its length told. 0 or a negative errno (the client is gone). */
FIBER_FN int exchange_respond(struct exchange *exchange, int status, const struct headers *headers,
                              struct str body);
/* The answer in pieces: head (sent with the first piece, or at exchange_flush), pieces, end. With
 * `length` UINT64_MAX it is chunked (or ended by close for HTTP/1.0); else exactly so many bytes follow. */
void exchange_begin(struct exchange *exchange, int status, const struct headers *headers,
                    uint64_t length);
FIBER_FN int exchange_write(struct exchange *exchange, struct str piece);
FIBER_FN int exchange_flush(struct exchange *exchange);
FIBER_FN int exchange_end(struct exchange *exchange);
/* Breaks the connection off (RST): the client must not take what it has for a whole answer. */
void exchange_abort(struct exchange *exchange);
/* The same with an orderly end (FIN) after what was written, but without what would complete the answer
 * (last chunk, missing bytes): what a dying worker looks like. The connection is not used again; nothing
 * may be written afterwards. Before a head was given it is an end without any answer. */
void exchange_cut(struct exchange *exchange);
/* Writes bytes to the connection as they are, outside all framing; for simulated faults (garbage instead of
 * HTTP). A head that is still held back is sent first. The connection is closed when the exchange ends, and
 * nothing is added to the bytes. 0 or a negative errno (the client is gone). */
FIBER_FN int exchange_raw(struct exchange *exchange, struct str bytes);

/* What has been sent so far. */
bool exchange_head_sent(const struct exchange *exchange);
int exchange_status(const struct exchange *exchange); /* 0 before a head was given */
/* Body bytes, without framing. */
uint64_t exchange_bytes_in(const struct exchange *exchange);
uint64_t exchange_bytes_out(const struct exchange *exchange);
/* Monotonic µs when the head went out, 0 before. */
int64_t exchange_head_us(const struct exchange *exchange);

/* The process-wide budget for bodies over 1 MiB (--memory-limit); 0 = no limit. */
void http_body_budget(uint64_t bytes);

/* Answers with the error object of spec 01 section 4.1 and X-SMG-Error-Code; `extra` headers may be
 * NULL. JSON_PARSE answers carry type invalid_request_error. */
FIBER_FN int exchange_problem(struct exchange *exchange, struct problem problem,
                              const struct headers *extra);
/* The body of such an answer, into the arena. */
struct str problem_json(struct arena *arena, struct problem problem);
