/* See json_body.h. */
#include "gateway/admin/json_body.h"

FIBER_FN bool json_body_read(struct request *request) {
    bool empty = !request->http->has_body || request->http->content_length == 0;
    if (!empty && !request_media_json(request)) {
        request_fail(request, PROBLEM_UNSUPPORTED_MEDIA_TYPE);
        return false;
    }
    return request_read_body(request);
}

FIBER_FN void json_body_malformed(struct request *request, struct str why) {
    request_problem(request, (struct problem){.id = PROBLEM_JSON_PARSE, .message = why});
}

FIBER_FN void json_body_wrong(struct request *request, struct str why) {
    request_problem(request, (struct problem){.id = PROBLEM_INVALID_FIELD, .message = why});
}
