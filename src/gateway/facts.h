/* What routing may see of a request (struct facts, fleet/policy.h), read from its body and
 * headers. */
#pragma once

#include "gateway/request.h"

/* Scans the body once, checking it, for model and stream flag; large ones in the offload pool.
 * PROBLEM_NONE, or JSON_PARSE with the position. */
FIBER_FN struct problem facts_read(struct request *request);
