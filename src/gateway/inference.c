/* See inference.h. */
#include "gateway/inference.h"

#include <errno.h>

#include "base/clock.h"
#include "gateway/counts.h"
#include "gateway/dispatch.h"
#include "gateway/facts.h"
#include "gateway/relay.h"
#include "gateway/routes.h"
#include "io/offload.h"
#include "proto/json.h"
#include "proto/json_scan.h"

#define RERANK_MAX (32 * 1024 * 1024) /* an answer that is rebuilt takes its size several times */
#define OFFLOAD_FROM (256 * 1024)

/* A media type that is given must be JSON; how it is refused depends on the route. */
static FIBER_FN bool media_ok(struct request *request) {
    if (request_media_json(request))
        return true;
    if (request->route->media == MEDIA_JSON_415)
        request_fail(request, PROBLEM_UNSUPPORTED_MEDIA_TYPE);
    else
        request_problem(
            request,
            (struct problem){.id = PROBLEM_JSON_PARSE,
                             .message = STR("Missing Content-Type: application/json header")});
    return false;
}

static FIBER_FN bool take_request(struct request *request) {
    request->facts.endpoint = request->route->endpoint; /* from here on it counts as routed */
    if (!media_ok(request) || !request_read_body(request))
        return false;
    request->outcome.ready_us = clock_us();
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

/* The answer ended early, after its head had been sent. */
static enum breaker_outcome cut_short(struct request *request, enum problem_id problem,
                                      const char *type) {
    request->outcome.error_code = problem_code(problem);
    request->outcome.error_type = type;
    request->outcome.error_status = problem_status(problem);
    return BREAKER_FAILURE;
}

/* What the end of the relay means for the worker and for the books. */
static enum breaker_outcome relayed(struct request *request, struct dispatched *dispatched,
                                    enum relay_end end) {
    switch (end) {
    case RELAY_DONE: return dispatch_outcome(dispatched);
    case RELAY_CLIENT_GONE:
        request->outcome.error_code = problem_code(PROBLEM_CLIENT_GONE);
        return BREAKER_NEUTRAL;
    case RELAY_TIMED_OUT:
        return cut_short(request, PROBLEM_UPSTREAM_TIMEOUT, "call_upstream_timeout");
    case RELAY_BROKEN: return cut_short(request, PROBLEM_STREAM_BROKEN, "upstream_stream_broken");
    }
    return BREAKER_NEUTRAL;
}

static FIBER_FN void relay(struct request *request, struct dispatched *dispatched) {
    request->outcome.error_type = error_type(dispatched, dispatched->reply.status);
    request->outcome.answer_code = count_code(&dispatched->reply);
    if (dispatched->reply.whole)
        dispatch_release(dispatched);
    enum relay_end end = relay_reply(request, &dispatched->reply);
    dispatch_end(dispatched, relayed(request, dispatched, end));
}

/* The answer of a dispatch that no worker could give. */
static FIBER_FN void refuse(struct request *request, struct dispatched *dispatched) {
    dispatch_end(dispatched, dispatch_outcome(dispatched));
    if (dispatched->problem.id == PROBLEM_CLIENT_GONE)
        request->outcome.error_code = problem_code(PROBLEM_CLIENT_GONE);
    else
        request_problem(request, dispatched->problem);
}

/* Takes the request and finds a worker that answers it; false when it was answered here. */
static FIBER_FN bool dispatch(struct request *request, struct dispatched *dispatched) {
    if (!take_request(request))
        return false;
    dispatch_run(request, dispatched);
    if (!dispatched->answered)
        refuse(request, dispatched);
    return dispatched->answered;
}

FIBER_FN void inference_proxy(struct request *request) {
    struct dispatched dispatched;
    if (dispatch(request, &dispatched))
        relay(request, &dispatched);
}

/* --- rerank --- */

struct rerank {
    struct request *request;
    struct str answer; /* of the worker */
    int64_t top_k;     /* < 0: all */
    bool documents;
    struct str rid;  /* JSON text; empty: none */
    struct str json; /* what the client gets; ptr NULL: the answer is no rerank array */
};

/* Whole numbers only, as everywhere: another kind of value counts as absent. */
static int64_t count_of(struct str value) {
    int64_t count;
    return str_to_i64(value, &count) == 0 && count >= 0 ? count : -1;
}

static void on_option(void *arg, struct str key, struct str value) {
    struct rerank *rerank = arg;
    if (str_eq(key, STR("top_k")))
        rerank->top_k = count_of(value);
    else if (str_eq(key, STR("return_documents")))
        rerank->documents = !str_eq(value, STR("false"));
    else if (str_eq(key, STR("rid")))
        rerank->rid = str_starts(value, STR("\"")) ? value : STR("");
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
        json_raw(writer, json_text(rerank->request->arena, value));
    }
    json_object_end(writer);
}

static void put_results(struct json_writer *writer, const struct rerank *rerank,
                        yyjson_val *array) {
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

static struct str rerank_json(const struct rerank *rerank, yyjson_val *array) {
    struct json_writer writer;
    json_writer_init(&writer, 2 * RERANK_MAX);
    json_object(&writer);
    json_key(&writer, "results");
    put_results(&writer, rerank, array);
    json_kv_str(&writer, "model", rerank->request->facts.model);
    json_key(&writer, "usage");
    json_null(&writer);
    json_kv_str(&writer, "object", STR("rerank"));
    json_key(&writer, "id");
    json_raw(&writer, rerank->rid.len > 0 ? rerank->rid : STR("null"));
    json_kv_int(&writer, "created", clock_wall_ms() / 1000);
    json_object_end(&writer);
    return json_writer_end(&writer, rerank->request->arena);
}

/* The whole body of a long reply; short ones are held already. 0 or a negative errno. */
static FIBER_FN int whole_body(struct request *request, struct reply *reply, struct str *body) {
    *body = reply->held;
    if (reply->whole)
        return 0;
    struct buf all = buf_make(RERANK_MAX);
    struct str piece = reply->held;
    int rc = 1;
    while (rc == 1) {
        rc = buf_add(&all, piece);
        if (rc == 0)
            rc = reply->ops->read(request, reply, &piece);
    }
    if (rc == 0)
        *body = arena_dup(request->arena, buf_str(&all));
    buf_free(&all);
    return rc;
}

static FIBER_FN enum breaker_outcome rerank_unread(struct request *request, int rc) {
    if (rc == -ECANCELED) {
        request->outcome.error_code = problem_code(PROBLEM_CLIENT_GONE);
        return BREAKER_NEUTRAL;
    }
    request_fail(request, rc == -ETIMEDOUT ? PROBLEM_UPSTREAM_TIMEOUT : PROBLEM_READ_BODY);
    return BREAKER_FAILURE;
}

/* Runs on the loop or on a pool thread; nobody else uses the request's arena meanwhile. */
static int rerank_build(void *arg) {
    struct rerank *rerank = arg;
    yyjson_doc *doc = json_parse(rerank->request->arena, rerank->answer, NULL);
    yyjson_val *array = yyjson_doc_get_root(doc);
    (void)json_scan(rerank->request->body, on_option, rerank);
    rerank->json = all_objects(array) ? rerank_json(rerank, array) : STR_NONE;
    return 0;
}

static FIBER_FN void rerank_respond(struct request *request, struct str answer) {
    struct rerank rerank = {.request = request, .answer = answer, .top_k = -1, .documents = true};
    if (answer.len < OFFLOAD_FROM || offload(rerank_build, &rerank) == -EBUSY)
        (void)rerank_build(&rerank);
    if (rerank.json.ptr != NULL)
        request_json(request, 200, rerank.json);
    else
        request_fail(request, PROBLEM_RERANK_BUILD);
}

static FIBER_FN void rerank_answer(struct request *request, struct dispatched *dispatched) {
    struct str body;
    int rc = whole_body(request, &dispatched->reply, &body);
    if (rc < 0) {
        dispatch_end(dispatched, rerank_unread(request, rc));
        return;
    }
    dispatch_release(dispatched);
    rerank_respond(request, body);
    dispatch_end(dispatched, BREAKER_NEUTRAL); /* the outcome has been told */
}

FIBER_FN void inference_rerank(struct request *request) {
    struct dispatched dispatched;
    if (!dispatch(request, &dispatched))
        return;
    if (dispatched.reply.status / 100 == 2)
        rerank_answer(request, &dispatched);
    else
        relay(request, &dispatched);
}
