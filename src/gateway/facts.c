/* See facts.h. */
#include "gateway/facts.h"

#include <errno.h>

#include "gateway/routes.h"
#include "io/offload.h"
#include "proto/json.h"
#include "proto/json_scan.h"

#define OFFLOAD_FROM (1024 * 1024) /* scanned at several GB/s: below this a hop costs more */
#define DESCRIBE_MAX (1024 * 1024) /* the parser that can tell takes many times the text's size */
#define BYTES_PER_TOKEN 4
#define MODEL_NAME_MAX 1024

struct parse {
    struct request *request;
    struct problem problem;
};

/* The value's text when it is a JSON string, decoded. A name longer than any model's is not
 * copied. */
static struct str model_value(struct arena *arena, struct str value) {
    if (value.len < 2 || value.ptr[0] != '"')
        return STR_NONE;
    if (value.len > MODEL_NAME_MAX)
        return STR("unknown");
    struct str inner = str_make(value.ptr + 1, value.len - 2);
    if (str_find_char(inner, '\\') < 0)
        return arena_dup(arena, inner);
    yyjson_doc *doc = json_parse(arena, value, NULL);
    return doc ? json_str(yyjson_doc_get_root(doc)) : STR_NONE;
}

static void on_member(void *arg, struct str key, struct str value) {
    struct request *request = arg;
    struct facts *facts = &request->facts;
    if (str_eq(key, STR("model"))) {
        struct str model = model_value(request->arena, value);
        facts->has_model = model.ptr != NULL;
        facts->model = model.ptr ? model : STR("unknown");
    } else if (str_eq(key, STR("stream"))) {
        facts->stream = request->route->may_stream && str_eq(value, STR("true"));
    }
}

/* What exactly is wrong is worth a second look by the parser that can tell. */
static struct problem describe(struct request *request, enum json_kind kind) {
    struct problem problem = {.id = PROBLEM_JSON_PARSE};
    if (kind == JSON_OTHER) {
        problem.message = STR("Invalid JSON data: the body must be a JSON object");
        return problem;
    }
    struct arena *scratch = arena_new();
    struct str error = STR("malformed text");
    if (request->body.len <= DESCRIBE_MAX)
        (void)json_parse(scratch, request->body, &error);
    problem.message = arena_printf(request->arena, "JSON syntax error: %.*s", STR_ARG(error));
    arena_free(scratch);
    return problem;
}

/* Runs on the loop or on a pool thread; nobody else uses the request's arena meanwhile. */
static int parse_body(void *arg) {
    struct parse *parse = arg;
    enum json_kind kind = json_scan(parse->request->body, on_member, parse->request);
    if (kind != JSON_OBJECT)
        parse->problem = describe(parse->request, kind);
    return 0;
}

static void facts_from_headers(struct request *request) {
    const struct headers *headers = &request->http->headers;
    struct facts *facts = &request->facts;
    facts->routing_key = headers_get(headers, STR("x-smg-routing-key"));
    facts->target_worker = headers_get(headers, STR("x-smg-target-worker"));
    facts->authorization = headers_get(headers, STR("authorization"));
    facts->forwarded_for = headers_get(headers, STR("x-forwarded-for"));
    facts->cookie = headers_get(headers, STR("cookie"));
}

FIBER_FN struct problem facts_read(struct request *request) {
    struct parse parse = {.request = request};
    request->facts.model = STR("unknown");
    int rc = request->body.len < OFFLOAD_FROM ? parse_body(&parse) : offload(parse_body, &parse);
    if (rc == -EBUSY)
        (void)parse_body(&parse);
    if (parse.problem.id != PROBLEM_NONE)
        return parse.problem;
    request->facts.route = request->route->path;
    request->facts.tokens = (int64_t)(request->body.len / BYTES_PER_TOKEN);
    facts_from_headers(request);
    return parse.problem;
}
