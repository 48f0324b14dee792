/* Errors look as the engines make them: clients and the gateway must cope with these shapes. */
#include "lab/mock_call.h"

FIBER_FN void mock_call_json(struct mock_call *call, int status, struct json_writer *writer) {
    struct str body = json_writer_end(writer, call->arena);
    if (body.ptr)
        (void)mock_wire_answer(&call->wire, status, "application/json", body);
    else
        mock_call_error(call, 500, STR("the answer is too large"));
}

FIBER_FN void mock_call_text(struct mock_call *call, int status, struct str text) {
    (void)mock_wire_answer(&call->wire, status, "text/plain; charset=utf-8", text);
}

static struct str error_type(int status) {
    switch (status) {
    case 401: return STR("Unauthorized");
    case 404: return STR("NotFoundError");
    case 429: return STR("RateLimitError");
    default: return status >= 500 ? STR("InternalServerError") : STR("BadRequestError");
    }
}

static void write_anthropic(struct json_writer *writer, int status, struct str message) {
    json_kv_str(writer, "type", STR("error"));
    json_key(writer, "error");
    json_object(writer);
    struct str type = status == 429   ? STR("rate_limit_error")
                      : status >= 500 ? STR("api_error")
                                      : STR("invalid_request_error");
    json_kv_str(writer, "type", type);
    json_kv_str(writer, "message", message);
    json_object_end(writer);
}

static void write_openai(struct json_writer *writer, int status, struct str message) {
    json_kv_str(writer, "object", STR("error"));
    json_kv_str(writer, "message", message);
    json_kv_str(writer, "type", error_type(status));
    json_key(writer, "param");
    json_null(writer);
    json_kv_int(writer, "code", status);
}

FIBER_FN void mock_call_error(struct mock_call *call, int status, struct str message) {
    struct json_writer writer;
    json_writer_init(&writer, 1 << 20);
    json_object(&writer);
    if (str_eq(call->request->path, STR("/v1/messages")))
        write_anthropic(&writer, status, message);
    else
        write_openai(&writer, status, message);
    json_object_end(&writer);
    mock_call_json(call, status, &writer);
}

struct str mock_call_query(const struct mock_call *call, struct str name, struct str fallback) {
    struct str rest = call->request->query, pair;
    if (rest.len == 0)
        return fallback;
    while (str_split(&rest, '&', &pair)) {
        ptrdiff_t equals = str_find_char(pair, '=');
        struct str key = equals < 0 ? pair : str_head(pair, (size_t)equals);
        if (str_eq(key, name))
            return equals < 0 ? STR("") : str_skip(pair, (size_t)equals + 1);
    }
    return fallback;
}
