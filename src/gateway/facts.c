/* See facts.h. */
#include "gateway/facts.h"

#include <errno.h>

#include "gateway/routes.h"
#include "io/offload.h"
#include "proto/json.h"

#define OFFLOAD_FROM (256 * 1024)
#define BYTES_PER_TOKEN 4

struct parse {
    struct request *request;
    struct problem problem;
};

static void facts_from(struct request *request, yyjson_val *root) {
    struct facts *facts = &request->facts;
    struct str model = json_get_str(root, "model", STR_NONE);
    facts->has_model = model.ptr != NULL;
    facts->model = model.ptr ? arena_dup(request->arena, model) : STR("unknown");
    facts->stream = request->route->may_stream && json_get_bool(root, "stream", false);
}

/* Runs on the loop or on a pool thread; the request's arena is not used by anybody else meanwhile. */
static int parse_body(void *arg) {
    struct parse *parse = arg;
    struct request *request = parse->request;
    struct arena *scratch = arena_new();
    struct str error;
    yyjson_doc *doc = json_parse(scratch, request->body, &error);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    parse->problem.id = yyjson_is_obj(root) ? PROBLEM_NONE : PROBLEM_JSON_PARSE;
    if (root == NULL)
        parse->problem.message =
            arena_printf(request->arena, "JSON syntax error: %.*s", STR_ARG(error));
    else if (!yyjson_is_obj(root))
        parse->problem.message = STR("Invalid JSON data: the body must be a JSON object");
    else
        facts_from(request, root);
    arena_free(scratch);
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
    int rc = request->body.len < OFFLOAD_FROM ? parse_body(&parse) : offload(parse_body, &parse);
    if (rc == -EBUSY)
        (void)parse_body(&parse);
    if (parse.problem.id != PROBLEM_NONE)
        return parse.problem;
    request->facts.endpoint = request->route->endpoint;
    request->facts.route = request->route->path;
    request->facts.tokens = (int64_t)(request->body.len / BYTES_PER_TOKEN);
    facts_from_headers(request);
    return parse.problem;
}
