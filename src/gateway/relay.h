/* From a worker's answer to the client (spec 01 section 6.7): in one piece, as it comes, or as
 * an event stream whose breaks are told. */
#pragma once

#include "gateway/backend/backend.h"

enum relay_end {
    RELAY_DONE, /* to the last byte */
    RELAY_CLIENT_GONE,
    RELAY_BROKEN,    /* the worker broke off after the head had been sent */
    RELAY_TIMED_OUT, /* a deadline did */
};

/* Sends status, headers and body to the client. The reply is not finished here. */
FIBER_FN enum relay_end relay_reply(struct request *request, struct reply *reply);
