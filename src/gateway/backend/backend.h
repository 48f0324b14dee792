/* The seam between endpoints and the ways to reach a model: start an attempt at a worker, then
 * pull the answer piece by piece. Whatever made it, the relay reads one thing. */
#pragma once

#include "gateway/request.h"
#include "io/loop.h"

/* How an attempt failed before there was anything to relay. */
enum attempt_failure {
    ATTEMPT_OK,        /* a worker's answer, of any status */
    ATTEMPT_CONNECT,   /* nothing was sent: another worker can be tried at once */
    ATTEMPT_BROKEN,    /* reset, end or garbage before the answer could be relayed */
    ATTEMPT_TIMED_OUT, /* after it was sent: final */
    ATTEMPT_CANCELLED, /* the client has gone, or we stop */
    ATTEMPT_NO_PLACE,  /* no upstream connection to be had */
};

/* The longest piece of an answer. */
#define PIECE_MAX (2 * LOOP_READ_SIZE)

struct backend_ops;

/* One attempt's answer. */
struct reply {
    const struct backend_ops *ops;
    void *state;
    enum attempt_failure failure;
    struct problem problem; /* what to answer for a failure */
    int status;
    const struct headers *headers;
    bool event_stream; /* relayed as SSE, never held */
    bool whole;        /* `held` is the complete body */
    struct str held;   /* the body's first bytes (at most 64 KiB), already read */
    uint64_t length;   /* of the body, UINT64_MAX when unknown */
};

struct backend_ops {
    const char *name;
    /* Sends the request and waits for the head; unless it is an event stream also for the first
     * 64 KiB of the body. Fills *reply; finish must follow in any case. */
    FIBER_FN void (*start)(struct request *request, struct worker *worker, struct reply *reply);
    /* The next piece after `held`: 1 with *piece, 0 at the end, negative errno (-ETIMEDOUT:
     * deadline). The piece is gone after the next read and whenever the fiber parks elsewhere: a
     * write takes care of that, but what is to be used after a write must be copied before it. */
    FIBER_FN int (*read)(struct request *request, struct reply *reply, struct str *piece);
    /* The next read would not park. */
    bool (*ready)(const struct reply *reply);
    void (*finish)(struct reply *reply);
};

extern const struct backend_ops backend_http_regular;
