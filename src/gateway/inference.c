/* See inference.h. */
#include "gateway/inference.h"

#include <errno.h>

#include "base/clock.h"
#include "gateway/counts.h"
#include "gateway/dispatch.h"
#include "gateway/facts.h"
#include "gateway/relay.h"
#include "gateway/routes.h"
#include "proto/json.h"

static bool json_type(struct str type) {
    ptrdiff_t semicolon = str_find_char(type, ';');
    struct str media = str_trim(semicolon < 0 ? type : str_head(type, (size_t)semicolon));
    return str_ieq(media, STR("application/json")) ||
           (str_istarts(media, STR("application/")) && str_ends(media, STR("+json")));
}

/* A media type that is given must be JSON; how it is refused depends on the route. */
static FIBER_FN bool media_ok(struct request *request) {
    struct str type = headers_get(&request->http->headers, STR("content-type"));
    if (type.ptr == NULL || json_type(type))
        return true;
    if (request->route->media == MEDIA_JSON_415)
        request_fail(request, PROBLEM_UNSUPPORTED_MEDIA_TYPE);
    else
        request_problem(request,
                        (struct problem){.id = PROBLEM_JSON_PARSE,
                                         .message = STR("Missing Content-Type: application/json header")});
    return false;
}

static FIBER_FN bool take_request(struct request *request) {
    if (!media_ok(request) || !request_read_body(request))
        return false;
    struct problem problem = facts_read(request);
    if (problem.id != PROBLEM_NONE)
        request_problem(request, problem);
    return problem.id == PROBLEM_NONE;
}

static const char *error_type(const struct dispatched *dispatched, int status) {
    if (status / 100 == 2)
        return NULL;
    return dispatched->exhausted ? "retries_exhausted" : "non_retryable_error";
}

/* What the end of the relay means for the worker and for the books. */
static enum breaker_outcome relayed(struct request *request, struct dispatched *dispatched,
                                    enum relay_end end) {
    struct outcome *outcome = &request->outcome;
    outcome->error_type = error_type(dispatched, dispatched->reply.status);
    switch (end) {
    case RELAY_DONE: return dispatch_outcome(dispatched->guard.worker, &dispatched->reply);
    case RELAY_CLIENT_GONE:
        outcome->error_code = problem_code(PROBLEM_CLIENT_GONE);
        return BREAKER_NEUTRAL;
    case RELAY_TIMED_OUT:
        outcome->error_code = problem_code(PROBLEM_UPSTREAM_TIMEOUT);
        outcome->error_type = "call_upstream_timeout";
        return BREAKER_FAILURE;
    case RELAY_BROKEN:
        outcome->error_code = problem_code(PROBLEM_STREAM_BROKEN);
        outcome->error_type = "upstream_stream_broken";
        return BREAKER_FAILURE;
    }
    return BREAKER_NEUTRAL;
}

/* The answer of a dispatch that no worker could give. */
static FIBER_FN void refuse(struct request *request, struct dispatched *dispatched) {
    if (dispatched->guard.worker != NULL)
        dispatch_end(dispatched, dispatch_outcome(dispatched->guard.worker, &dispatched->reply));
    if (dispatched->problem.id == PROBLEM_CLIENT_GONE)
        request->outcome.error_code = problem_code(PROBLEM_CLIENT_GONE);
    else
        request_problem(request, dispatched->problem);
}

FIBER_FN void inference_proxy(struct request *request) {
    if (!take_request(request))
        return;
    struct dispatched dispatched;
    dispatch_run(request, &dispatched);
    if (!dispatched.answered) {
        refuse(request, &dispatched);
        return;
    }
    enum relay_end end = relay_reply(request, &dispatched.reply);
    dispatch_end(&dispatched, relayed(request, &dispatched, end));
}

/* --- rerank --- */

struct rerank {
    int64_t top_k; /* < 0: all */
    bool documents;
    struct str rid;
    struct arena *arena;
};

static void rerank_options(struct request *request, struct rerank *rerank) {
    struct str error;
    *rerank = (struct rerank){.top_k = -1, .documents = true, .arena = request->arena};
    yyjson_doc *doc = json_parse(request->arena, request->body, &error);
    yyjson_val *root = yyjson_doc_get_root(doc);
    rerank->top_k = json_get_int(root, "top_k", -1);
    rerank->documents = json_get_bool(root, "return_documents", true);
    rerank->rid = json_get_str(root, "rid", STR_NONE);
}

static bool wanted_key(const struct rerank *rerank, yyjson_val *key) {
    return rerank->documents || !yyjson_equals_str(key, "document");
}

static void put_result(struct json_writer *writer, const struct rerank *rerank, yyjson_val *item) {
    size_t i, max;
    yyjson_val *key, *value;
    json_object(writer);
    yyjson_obj_foreach(item, i, max, key, value) {
        if (!wanted_key(rerank, key))
            continue;
        json_key_str(writer, str_make(yyjson_get_str(key), yyjson_get_len(key)));
        json_raw(writer, json_text(rerank->arena, value));
    }
    json_object_end(writer);
}

static void put_results(struct json_writer *writer, const struct rerank *rerank, yyjson_val *array) {
    size_t i, max;
    yyjson_val *item;
    json_array(writer);
    yyjson_arr_foreach(array, i, max, item) {
        if (rerank->top_k >= 0 && (int64_t)i >= rerank->top_k)
            break;
        put_result(writer, rerank, item);
    }
    json_array_end(writer);
}

static bool all_objects(yyjson_val *array) {
    size_t i, max;
    yyjson_val *item;
    if (!yyjson_is_arr(array))
        return false;
    yyjson_arr_foreach(array, i, max, item) {
        if (!yyjson_is_obj(item))
            return false;
    }
    return true;
}

static struct str rerank_json(struct request *request, const struct rerank *rerank, yyjson_val *array) {
    struct json_writer writer;
    json_writer_init(&writer, 64 * 1024 * 1024);
    json_object(&writer);
    json_key(&writer, "results");
    put_results(&writer, rerank, array);
    json_kv_str(&writer, "model", request->facts.model);
    json_key(&writer, "usage");
    json_null(&writer);
    json_kv_str(&writer, "object", STR("rerank"));
    json_key(&writer, "id");
    if (rerank->rid.ptr != NULL)
        json_string(&writer, rerank->rid);
    else
        json_null(&writer);
    json_kv_int(&writer, "created", clock_wall_ms() / 1000);
    json_object_end(&writer);
    return json_writer_end(&writer, request->arena);
}

/* The whole body of a long reply; short ones are held already. */
static FIBER_FN int whole_body(struct request *request, struct reply *reply, struct str *body) {
    *body = reply->held;
    if (reply->whole)
        return 0;
    struct buf all = buf_make(request->settings->limits.max_body);
    struct str piece = reply->held;
    int rc = 1;
    while (rc == 1) {
        if (buf_add(&all, piece) < 0) {
            rc = -EMSGSIZE;
            break;
        }
        rc = reply->ops->read(request, reply, &piece);
    }
    *body = rc == 0 ? arena_dup(request->arena, buf_str(&all)) : STR_NONE;
    buf_free(&all);
    return rc;
}

static FIBER_FN enum breaker_outcome rerank_answer(struct request *request, struct reply *reply) {
    struct str body, error;
    struct rerank rerank;
    if (whole_body(request, reply, &body) < 0) {
        request_fail(request, PROBLEM_READ_BODY);
        return BREAKER_FAILURE;
    }
    yyjson_doc *doc = json_parse(request->arena, body, &error);
    if (doc == NULL || !all_objects(yyjson_doc_get_root(doc))) {
        request_fail(request, PROBLEM_RERANK_BUILD);
        return BREAKER_SUCCESS;
    }
    rerank_options(request, &rerank);
    request_json(request, 200, rerank_json(request, &rerank, yyjson_doc_get_root(doc)));
    return BREAKER_SUCCESS;
}

FIBER_FN void inference_rerank(struct request *request) {
    if (!take_request(request))
        return;
    struct dispatched dispatched;
    dispatch_run(request, &dispatched);
    if (!dispatched.answered) {
        refuse(request, &dispatched);
        return;
    }
    if (dispatched.reply.status / 100 == 2) {
        dispatch_end(&dispatched, rerank_answer(request, &dispatched.reply));
        return;
    }
    enum relay_end end = relay_reply(request, &dispatched.reply);
    dispatch_end(&dispatched, relayed(request, &dispatched, end));
}
