/* See request.h. */
#include "gateway/request.h"

#include "proto/json.h"

void request_header(struct request *request, struct str name, struct str value) {
    headers_add(&request->out, request->arena, name, value);
}

FIBER_FN void request_respond(struct request *request, int status, struct str type,
                              struct str body) {
    if (type.len > 0)
        request_header(request, STR("content-type"), type);
    (void)exchange_respond(request->exchange, status, &request->out, body);
}

FIBER_FN void request_json(struct request *request, int status, struct str json) {
    request_respond(request, status, STR("application/json"), json);
}

FIBER_FN void request_text(struct request *request, int status, struct str text) {
    request_respond(request, status, STR("text/plain; charset=utf-8"), text);
}

FIBER_FN void request_problem(struct request *request, struct problem problem) {
    request->outcome.error_code = problem_code(problem.id);
    request->outcome.answer_code = request->outcome.error_type = problem_code(problem.id).ptr;
    if (problem.id == PROBLEM_OVERLOADED)
        request_header(request, STR("retry-after"),
                       arena_printf(request->arena, "%lld",
                                    (long long)request->settings->overload_retry_after_s));
    (void)exchange_problem(request->exchange, problem, &request->out);
}

FIBER_FN void request_fail(struct request *request, enum problem_id id) {
    request_problem(request, (struct problem){.id = id});
}

FIBER_FN void request_error_text(struct request *request, int status, const char *code,
                                 struct str text) {
    struct json_writer writer;
    json_writer_init(&writer, 16384);
    json_object(&writer);
    json_kv_str(&writer, "error", text);
    json_kv_str(&writer, "code", str_from(code));
    json_object_end(&writer);
    request->outcome.error_code = str_from(code);
    request_json(request, status, json_writer_end(&writer, request->arena));
}

bool request_media_json(const struct request *request) {
    struct str type = headers_get(&request->http->headers, STR("content-type"));
    ptrdiff_t semicolon = str_find_char(type, ';');
    struct str media = str_trim(semicolon < 0 ? type : str_head(type, (size_t)semicolon));
    return type.ptr == NULL || str_ieq(media, STR("application/json")) ||
           (str_istarts(media, STR("application/")) && str_ends(media, STR("+json")));
}

FIBER_FN bool request_read_body(struct request *request) {
    struct problem problem = exchange_body(request->exchange, request->deadline, &request->body);
    if (problem.id == PROBLEM_NONE)
        return true;
    if (problem.id == PROBLEM_CLIENT_GONE)
        request->outcome.error_code = problem_code(problem.id);
    else
        request_problem(request, problem);
    return false;
}

static struct str query_decode(struct request *request, struct str value) {
    char *out = arena_alloc(request->arena, value.len + 1);
    for (size_t i = 0; i < value.len; i++)
        out[i] = value.ptr[i] == '+' ? ' ' : value.ptr[i];
    ptrdiff_t len = str_percent_decode(str_make(out, value.len), out);
    return len < 0 ? value : str_make(out, (size_t)len);
}

struct str request_query(struct request *request, struct str name) {
    struct str rest = request->http->query, pair;
    while (rest.ptr != NULL && str_split(&rest, '&', &pair)) {
        ptrdiff_t equals = str_find_char(pair, '=');
        struct str key = equals < 0 ? pair : str_head(pair, (size_t)equals);
        if (str_eq(key, name))
            return query_decode(request, equals < 0 ? STR("") : str_skip(pair, (size_t)equals + 1));
    }
    return STR_NONE;
}
