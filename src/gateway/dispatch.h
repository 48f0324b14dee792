/* The retry loop (spec 01 section 6.5, 02 section 6): pick, try, classify, back off. */
#pragma once

#include "gateway/backend/backend.h"

/* What became of a dispatched request before relaying. */
struct dispatched {
    struct reply reply;        /* finish it through dispatch_end */
    struct worker_guard guard; /* of the last attempt; held until dispatch_end */
    bool answered;             /* `reply` is a worker's answer to relay; else `problem` is final */
    bool exhausted;            /* retryable, but no attempt was left */
    struct problem problem;
};

/* Tries workers until one has answered or nothing is left to try. Nothing is sent to the client. */
FIBER_FN void dispatch_run(struct request *request, struct dispatched *dispatched);
/* The answer has been relayed (or given up): tells the breaker how it ended, gives guard and
 * connection back. */
void dispatch_end(struct dispatched *dispatched, enum breaker_outcome outcome);
/* The worker has given all of its answer, though the client has not taken it yet: outcome and
 * guard as in dispatch_end; the reply stays. */
void dispatch_release(struct dispatched *dispatched);
/* The outcome class of the reply (02 section 5); neutral when the guard has been given back. */
enum breaker_outcome dispatch_outcome(const struct dispatched *dispatched);
