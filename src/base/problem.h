/* What can go wrong with a request: one table of status, code and message (spec 01 section 4).
 * A `struct problem` is what the client sees as JSON, what the log names and what metrics count. */
#pragma once

#include "base/str.h"

/* X(id, status, code, message) — message is the default text, often replaced by a precise one. */
#define PROBLEM_TABLE(X)                                                                           \
    X(BAD_REQUEST, 400, "bad_request", "malformed HTTP request")                                   \
    X(JSON_PARSE, 400, "json_parse_error", "JSON syntax error")                                    \
    X(REQUEST_PREPARATION, 400, "request_preparation_failed", "the request cannot be prepared")    \
    X(MISSING_MODEL, 400, "missing_model", "the request names no model")                           \
    X(INVALID_QUERY, 400, "invalid_query", "malformed query string")                               \
    X(UNAUTHORIZED, 401, "invalid_api_key", "missing or wrong API key")                            \
    X(NOT_FOUND, 404, "not_found", "no such path")                                                 \
    X(MODEL_NOT_FOUND, 404, "model_not_found", "no worker serves this model")                      \
    X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "this path does not take this method")        \
    X(HEADER_TIMEOUT, 408, "header_timeout", "the request head did not arrive in time")            \
    X(BODY_TIMEOUT, 408, "body_timeout", "the request body did not arrive in time")                \
    X(QUEUE_TIMEOUT, 408, "queue_timeout", "waited too long for a free place")                     \
    X(PAYLOAD_TOO_LARGE, 413, "payload_too_large", "request body too large")                       \
    X(URI_TOO_LONG, 414, "uri_too_long", "request line too long")                                  \
    X(UNSUPPORTED_MEDIA_TYPE, 415, "unsupported_media_type",                                       \
      "expected Content-Type: application/json")                                                   \
    X(INVALID_FIELD, 422, "invalid_field", "wrong or missing field")                               \
    X(QUEUE_FULL, 429, "queue_full", "too many requests in progress")                              \
    X(HEADERS_TOO_LARGE, 431, "headers_too_large", "request head too large")                       \
    X(CLIENT_GONE, 499, "client_gone", "the client has gone")                                      \
    X(INTERNAL, 500, "internal_error", "internal error")                                           \
    X(UPSTREAM_REQUEST, 500, "call_upstream_request_error", "the upstream request failed")         \
    X(RERANK_BUILD, 500, "rerank_response_build_failed",                                           \
      "the worker's reply is not a rerank array")                                                  \
    X(NOT_IMPLEMENTED, 501, "not_implemented", "not implemented")                                  \
    X(UPSTREAM_CONNECT, 502, "call_upstream_connection_failed", "the worker cannot be reached")    \
    X(READ_BODY, 502, "read_response_body_failed", "the worker's answer broke off")                \
    X(STREAM_BROKEN, 502, "upstream_stream_broken", "the worker's stream broke off")               \
    X(NO_WORKER_RESPONSE, 502, "no_worker_response", "no worker answered")                         \
    X(NO_AVAILABLE_WORKERS, 503, "no_available_workers",                                           \
      "No available workers (all circuits open or unhealthy)")                                     \
    X(NO_WORKERS, 503, "no_workers", "no workers are registered or healthy")                       \
    X(OVERLOADED, 503, "overloaded", "the gateway is out of memory budget")                        \
    X(UPSTREAM_TIMEOUT, 504, "call_upstream_timeout", "the worker did not answer in time")

enum problem_id {
#define PROBLEM_ENUM(id, status, code, message) PROBLEM_##id,
    PROBLEM_NONE,
    PROBLEM_TABLE(PROBLEM_ENUM)
#undef PROBLEM_ENUM
        PROBLEM_COUNT
};

struct problem {
    enum problem_id id; /* PROBLEM_NONE: all is well */
    struct str message; /* empty: the table's text */
};

/* Row of the table. */
int problem_status(enum problem_id id);
struct str problem_code(enum problem_id id);
struct str problem_text(struct problem problem);
/* The table's own text of a code (static memory), ptr NULL when it is not there. */
struct str problem_code_find(struct str code);
/* True when the code is in the table (for bounded metric labels). */
bool problem_code_known(struct str code);
/* HTTP reason phrase ("Service Unavailable"); "Unknown" for others. */
struct str status_reason(int status);
