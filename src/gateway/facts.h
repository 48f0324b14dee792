/* What routing may see of a request (struct facts, fleet/policy.h), read from its body and headers. */
#pragma once

#include "gateway/request.h"

/* Parses the body once for model and stream flag; large bodies go through the offload pool. Nothing of the parse
 * survives but the facts. PROBLEM_NONE, or JSON_PARSE with the position. */
FIBER_FN struct problem facts_read(struct request *request);
