/* Bodies of the gateway's own routes: JSON or nothing (spec 01 section 4.2). */
#pragma once

#include "gateway/request.h"

/* Reads the body into request->body. False when it was answered already: 415 for another media type
 * (absent is JSON; an empty body has none), or what request_read_body answers. */
FIBER_FN bool json_body_read(struct request *request);
/* 400 json_parse_error. */
FIBER_FN void json_body_malformed(struct request *request, struct str why);
/* 422 invalid_field. */
FIBER_FN void json_body_wrong(struct request *request, struct str why);
