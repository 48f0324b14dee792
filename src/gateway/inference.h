/* The inference endpoints of HTTP workers: read the body, take the facts, dispatch, relay. */
#pragma once

#include "gateway/request.h"

/* Proxied as it is; the route's row says where to and whether it may stream. */
FIBER_FN void inference_proxy(struct request *request);
/* /rerank and /v1/rerank: the worker's array becomes the reply of spec 01 section 6.8. */
FIBER_FN void inference_rerank(struct request *request);
