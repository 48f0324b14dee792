/* One request on its way through the gateway: made in one place, finished in one place. All of
 * it lives in the exchange's arena and on the exchange's fiber. */
#pragma once

#include "fleet/policy.h"
#include "gateway/inflight.h"
#include "gateway/settings.h"
#include "proto/http_server.h"

struct gateway;
struct route;

/* What is told of a request at its end: log, metrics. */
struct outcome {
    struct str worker, model; /* model: a label that is bounded (spec 06 section 1.9) */
    struct str error_code;    /* of an answer the gateway made, or of a broken stream */
    const char
        *answer_code; /* metric label for the X-SMG-Error-Code of the answer; NULL: it has none */
    const char *error_type; /* metric label of a final failure; NULL: none */
    int error_status; /* what it counts as where the status sent was a good one; 0: that status */
    int attempts;
    bool streamed;
    int64_t ready_us;      /* monotonic, the body was complete; 0: it never was */
    int64_t first_byte_us; /* monotonic, first body byte of a stream; 0: none */
    int64_t sent_us;       /* monotonic, first upstream request written; 0: none */
};

struct request {
    struct gateway *gateway;
    const struct gateway_settings *settings;
    struct exchange *exchange;
    const struct http_request *http;
    struct arena *arena;
    const struct route *route; /* NULL: unknown path */
    struct str id;             /* x-request-id */
    struct str param;          /* what stands for {id} in the path, not decoded */
    struct str body;
    struct facts facts;
    deadline_ms deadline;
    struct headers out; /* sent with every answer: request id, CORS */
    struct outcome outcome;
    struct inflight inflight;
};

/* Answers in one piece; `type` is the media type. */
FIBER_FN void request_respond(struct request *request, int status, struct str type,
                              struct str body);
FIBER_FN void request_json(struct request *request, int status, struct str json);
FIBER_FN void request_text(struct request *request, int status, struct str text);
/* The error object of spec 01 section 4.1. */
FIBER_FN void request_problem(struct request *request, struct problem problem);
FIBER_FN void request_fail(struct request *request, enum problem_id id);
/* {"error": text, "code": code}, as the worker routes answer. */
FIBER_FN void request_error_text(struct request *request, int status, const char *code,
                                 struct str text);
/* A header for the answer. */
void request_header(struct request *request, struct str name, struct str value);

/* True when no media type was given, or a JSON one. */
bool request_media_json(const struct request *request);
/* Reads the whole body into request->body. False when it was answered already (413, 408, client
 * gone). */
FIBER_FN bool request_read_body(struct request *request);
/* A value of the query string, percent-decoded, in the arena; ptr NULL when absent. */
struct str request_query(struct request *request, struct str name);
