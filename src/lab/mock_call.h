/* One request to a simulated worker, and the answers that all endpoints share. */
#pragma once

#include "lab/mock_site.h"
#include "lab/mock_wire.h"

struct mock_call {
    struct mock_site *site;
    struct exchange *exchange;
    const struct http_request *request;
    struct arena *arena;
    struct str body;
    yyjson_val *root; /* the body's JSON object; NULL on routes that take none */
    struct mock_wire wire;
    const struct mock_lab *lab;
};

/* All workers of the process, for controls that concern all. */
struct mock_lab {
    struct mock_options options;
    struct mock_site *sites;
    unsigned count;
};

/* Serves a request that is past authorisation and faults. */
typedef FIBER_FN void mock_handler(struct mock_call *call);

/* Makes an answer of what the writer holds, and frees it. */
FIBER_FN void mock_call_json(struct mock_call *call, int status, struct json_writer *writer);
FIBER_FN void mock_call_text(struct mock_call *call, int status, struct str text);
/* {"object":"error",...} as engines have it, or the Anthropic shape on /v1/messages. */
FIBER_FN void mock_call_error(struct mock_call *call, int status, struct str message);
/* A member of the query string ("all" of "?all=1"), or fallback; not decoded. */
struct str mock_call_query(const struct mock_call *call, struct str name, struct str fallback);
