/* See json_body.h. */
#include "gateway/admin/json_body.h"

static bool is_json(struct str type) {
    ptrdiff_t semicolon = str_find_char(type, ';');
    struct str media = str_trim(semicolon < 0 ? type : str_head(type, (size_t)semicolon));
    return str_ieq(media, STR("application/json")) ||
           (str_istarts(media, STR("application/")) && str_ends(media, STR("+json")));
}

FIBER_FN bool json_body_read(struct request *request) {
    struct str type = headers_get(&request->http->headers, STR("content-type"));
    bool empty = !request->http->has_body || request->http->content_length == 0;
    if (!empty && type.ptr != NULL && !is_json(type)) {
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
