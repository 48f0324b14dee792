/* Who a request is: its id (spec 01 section 5.4), and what a browser may know of the answer
 * (CORS, 5.8). */
#pragma once

#include "gateway/request.h"

/* Sets request->id from the first --request-id-headers name that was sent, or a new one by path,
 * and puts it into the answer's headers. */
void identity_set(struct request *request);
/* Adds the CORS headers when the client sent an Origin. */
void identity_cors(struct request *request);
/* Answers a preflight request (OPTIONS); false when it is none. */
FIBER_FN bool identity_preflight(struct request *request);
