/* What the request path counts (spec 06 sections 1.2, 1.5 to 1.7): events in, metric series
 * found without a lock. Series are looked up once a loop and combination of labels, then
 * remembered by number. */
#pragma once

#include "gateway/backend/backend.h"

/* The head of a request was parsed and routed. */
void count_arrival(const struct request *request);
/* One attempt at a worker has its answer, or none. */
void count_attempt(const struct request *request, const struct worker *worker,
                   const struct reply *reply);
/* Metric label for the error code of an attempt: ours, or the worker's own if our table has it
 * ("upstream" if not). */
const char *count_code(const struct reply *reply);
void count_retry(const struct request *request, uint32_t attempt, int64_t wait_ms);
void count_exhausted(const struct request *request);
/* The request is over; `status` is what was sent, 499 when the client had gone. */
void count_end(const struct request *request, int status, int64_t end_us);
/* Metric label of a method. */
const char *count_method(enum http_method method);
/* The configuration in force. */
void count_config(uint64_t version);
/* Hooks gauges that are read at scrape: loops, accepting, in-flight requests. */
struct http_server;
void counts_init(const struct http_server *server);
