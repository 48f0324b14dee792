/* Just enough HTTP/1.1 for a load generator and a canned backend that only meet well-formed peers
 * on loopback. Heads are read from one contiguous buffer; a response is fed piece by piece. */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_head {
    const char *start; /* the first line, without its end */
    size_t start_len;
    size_t len;     /* of the whole head with its empty line */
    int64_t length; /* Content-Length, -1 without one */
    bool chunked;
    bool close;
};

/* Parses a head at the front of n bytes. Returns 1, 0 when more bytes are needed, -1 when bad. */
int http_head_parse(const char *p, size_t n, struct http_head *head);

enum response_state {
    RESPONSE_HEAD,
    RESPONSE_FIXED,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_DATA,
    CHUNK_DATA_END,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LINE,
    RESPONSE_DONE
};

/* Reader of one response; zero it before each. Counts server-sent events (empty lines). */
struct response {
    enum response_state state;
    int status;
    bool close;
    bool at_newline;   /* the last body byte ended a line */
    bool event_open;   /* a new event's first byte has been seen */
    uint32_t head_len; /* of an incomplete head in `head` */
    uint64_t left;     /* bytes of this body or chunk still to come */
    uint64_t body;     /* body bytes so far, chunk framing taken off */
    uint32_t events;
    char tail[16]; /* the last body bytes */
    char head[4096];
};

/* Called with the bytes at hand from an event's first byte on. */
typedef void event_begin_fn(const char *p, size_t n);

/* Feeds n bytes. Returns how many belong to this response, or -1 when it is malformed. Whether it
 * is complete says its state. */
int64_t response_feed(struct response *r, const char *p, size_t n, event_begin_fn *on_event);

/* Whether the body ended with the event `data: [DONE]`. */
bool response_saw_done(const struct response *r);

#endif
