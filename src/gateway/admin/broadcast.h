/* One request of a client, sent on to many workers: flushing caches, profiling, cancelling a
 * response. */
#pragma once

#include "gateway/request.h"

FIBER_FN void broadcast_flush_cache(struct request *request);
FIBER_FN void broadcast_start_profile(struct request *request);
FIBER_FN void broadcast_stop_profile(struct request *request);
/* POST /v1/responses/{id}/cancel: nobody knows who works on it, so all are told; the first 2xx
 * answer is the client's. */
FIBER_FN void broadcast_cancel_response(struct request *request);
