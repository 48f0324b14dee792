/* HTTP/1 messages, either direction: llhttp does the parsing, this keeps what it says. The head is recorded as
 * offsets while it arrives in whatever pieces, and copied once; body bytes are gathered at the front of
 * the reader's own buffer, so that chunk framing vanishes without a copy in the common case.
 *
 * Framing is llhttp's strict mode plus the checks of http1_head_check: what two parsers could read differently
 * is a fault. Runs on a loop's stack or a fiber; never parks. */
#pragma once

#include <llhttp.h>

#include "base/problem.h"
#include "proto/headers.h"

struct http1_limits {
    size_t head_bytes, header_count, line_bytes;
};

/* A head under construction; lives in the arena it was given. */
struct http1_head {
    struct arena *arena;
    const struct http1_limits *limits;
    char *bytes; /* what arrived of it so far */
    size_t len, cap;
    struct header *fields; /* until it is complete: offsets instead of pointers */
    size_t count, field_cap;
    size_t url_at, url_len, method_at, method_len;
    bool in_value;
    enum problem_id fault;
};

enum http1_progress {
    HTTP1_MORE,     /* all taken, the message goes on */
    HTTP1_HEAD,     /* the head has just become complete */
    HTTP1_COMPLETE, /* the message ends here; bytes may be left */
    HTTP1_FAULT,
};

struct http1 {
    llhttp_t ll;
    struct http1_head *head;
    const char *base; /* of the piece being fed */
    char *body;       /* body bytes of the piece, gathered */
    size_t body_len;
    bool complete;
};

/* `type` is HTTP_REQUEST or HTTP_RESPONSE. */
void http1_init(struct http1 *parser, llhttp_type_t type);
/* Ready for the next message on the same connection, whose head goes into `head`. */
void http1_begin(struct http1 *parser, struct http1_head *head);
void http1_head_init(struct http1_head *head, struct arena *arena,
                     const struct http1_limits *limits);

/* Feeds bytes of a message. *used = bytes taken. After HTTP1_HEAD the caller looks at the head, then feeds the
 * rest. Body bytes lie at parser->body (inside `ptr`, which is written to), body_len of them; they are
 * reset by each feed. After HTTP1_FAULT head->fault says what to answer (BAD_REQUEST...). */
enum http1_progress http1_feed(struct http1 *parser, char *ptr, size_t len, size_t *used);
/* The connection ended: HTTP1_COMPLETE when that ends the message (an answer without length), else FAULT. */
enum http1_progress http1_end(struct http1 *parser);
/* True when this message lets the connection be used again. */
bool http1_keep_alive(const struct http1 *parser);
/* The answer to a HEAD request, or 204/304: no body follows whatever the head says. Before the rest is fed. */
void http1_no_body(struct http1 *parser);

/* Requests only, after HTTP1_HEAD: Host, length and target rules. PROBLEM_NONE or BAD_REQUEST. */
enum problem_id http1_request_check(const struct http1 *parser);
