/* See broadcast.h. Flush and profile answer with a tally of who took it; a cancel answers with one
 * worker's answer. */
#include "gateway/admin/broadcast.h"

#include <errno.h>

#include "fleet/fields.h"
#include "gateway/admin/control_call.h"
#include "gateway/admin/fanout.h"
#include "gateway/admin/json_body.h"
#include "gateway/forward.h"

#define FLUSH_PARALLEL 32
#define FLUSH_TIMEOUT_MS 45000
#define PROFILE_PARALLEL 64
#define PROFILE_TIMEOUT_MS 630000
#define CANCEL_PARALLEL 64
#define CANCEL_TIMEOUT_MS 30000
/* How long the others may still be told after the first worker has cancelled. */
#define CANCEL_LINGER_MS 250
#define ANSWER_MAX ((size_t)1 << 20)
#define REPLY_MAX ((size_t)64 << 20)

/* --- the tally --- */

struct action {
    struct str route;
    size_t parallel;
    int64_t timeout_ms;
    const char *counted;     /* key of the number of workers that took it */
    const char *done, *noun; /* for the message: "Flushed the cache of", "flush" */
    bool must_match;         /* no worker is an error */
};
static const struct action flush_cache = {
    .route = STR_INIT("/flush_cache"),
    .parallel = FLUSH_PARALLEL,
    .timeout_ms = FLUSH_TIMEOUT_MS,
    .counted = "workers_flushed",
    .done = "Flushed the cache of",
    .noun = "Cache flush",
};
static const struct action start_profile = {
    .route = STR_INIT("/start_profile"),
    .parallel = PROFILE_PARALLEL,
    .timeout_ms = PROFILE_TIMEOUT_MS,
    .counted = "workers_profiled",
    .done = "Started profiling on",
    .noun = "Profile start",
    .must_match = true,
};
static const struct action stop_profile = {
    .route = STR_INIT("/stop_profile"),
    .parallel = PROFILE_PARALLEL,
    .timeout_ms = PROFILE_TIMEOUT_MS,
    .counted = "workers_profiled",
    .done = "Stopped profiling on",
    .noun = "Profile stop",
    .must_match = true,
};

struct tally {
    struct request *request;
    const struct action *action;
    struct str only; /* URL; ptr NULL: all workers */
    struct str body;
    struct fanout_list list;
    struct str *faults; /* per worker; ptr NULL: it took it */
    size_t good;
};

static FIBER_FN void tell_one(void *ctx, size_t index, const struct fanout_target *target,
                              struct arena *scratch) {
    struct tally *tally = ctx;
    struct fanout_fetch fetch = {.method = STR("POST"),
                                 .route = tally->action->route,
                                 .head = tally->body.len ? STR("content-type: application/json\r\n")
                                                         : STR(""),
                                 .body = tally->body,
                                 .has_body = true,
                                 .max_body = ANSWER_MAX,
                                 .timeout_ms = tally->action->timeout_ms};
    struct str body, why = STR("no answer");
    int status = fanout_call(scratch, target->worker, &fetch, &body, &why);
    if (status / 100 == 2)
        tally->good++;
    else if (status > 0)
        tally->faults[index] = arena_printf(tally->request->arena, "HTTP %d", status);
    else
        tally->faults[index] = arena_dup(tally->request->arena, why);
}

static FIBER_FN int tell_all(void *arg) {
    struct tally *tally = arg;
    struct fanout fanout = {.parallel = tally->action->parallel, .one = tell_one, .ctx = tally};
    struct arena *arena = tally->request->arena;
    tally->list = fanout_list_make(arena, tally->only);
    tally->faults = arena_zalloc(arena, (tally->list.count + 1) * sizeof *tally->faults);
    return fanout_run(&fanout, &tally->list);
}

static struct str tally_message(const struct tally *tally) {
    const struct action *action = tally->action;
    struct arena *arena = tally->request->arena;
    if (tally->list.count == 0 && tally->only.ptr != NULL)
        return arena_printf(arena, "No worker matches url '%.*s'", STR_ARG(tally->only));
    if (tally->list.count == 0)
        return action->must_match ? STR("No worker is registered") : STR("No workers to flush");
    if (tally->good == tally->list.count)
        return arena_printf(arena, "%s %zu worker%s", action->done, tally->good,
                            tally->good == 1 ? "" : "s");
    return arena_printf(arena, "%s: %zu of %zu workers failed", action->noun,
                        tally->list.count - tally->good, tally->list.count);
}

static void write_outcomes(struct json_writer *writer, const struct tally *tally) {
    json_key(writer, "successful");
    json_array(writer);
    for (size_t i = 0; i < tally->list.count; i++) {
        if (tally->faults[i].ptr == NULL)
            json_string(writer, tally->list.items[i].base);
    }
    json_array_end(writer);
    json_key(writer, "failed");
    json_array(writer);
    for (size_t i = 0; i < tally->list.count; i++) {
        if (tally->faults[i].ptr == NULL)
            continue;
        json_object(writer);
        json_kv_str(writer, "worker", tally->list.items[i].base);
        json_kv_str(writer, "error", tally->faults[i]);
        json_object_end(writer);
    }
    json_array_end(writer);
}

static struct str tally_json(const struct tally *tally, const char *status) {
    struct json_writer writer;
    int64_t count = (int64_t)tally->list.count;
    json_writer_init(&writer, REPLY_MAX);
    json_object(&writer);
    json_kv_str(&writer, "status", str_from(status));
    json_kv_str(&writer, "message", tally_message(tally));
    json_kv_int(&writer, tally->action->counted, (int64_t)tally->good);
    json_kv_int(&writer, "total_http_workers", count);
    json_kv_int(&writer, "total_grpc_workers", 0);
    json_kv_int(&writer, "total_zmq_workers_skipped", 0);
    json_kv_int(&writer, "total_workers", count);
    if (tally->good < tally->list.count)
        write_outcomes(&writer, tally);
    json_object_end(&writer);
    return json_writer_end(&writer, tally->request->arena);
}

static FIBER_FN void tally_run(struct tally *tally) {
    if (control_call(tell_all, tally) < 0)
        return; /* only when the client has gone, or the process stops */
    size_t count = tally->list.count;
    bool unmatched = count == 0 && tally->action->must_match;
    const char *word = unmatched ? "error" : tally->good == count ? "success" : "partial_success";
    int status = unmatched ? 404 : tally->good == count ? 200 : 206;
    struct str json = tally_json(tally, word);
    if (json.ptr == NULL)
        request_fail(tally->request, PROBLEM_INTERNAL);
    else
        request_json(tally->request, status, json);
}

FIBER_FN void broadcast_flush_cache(struct request *request) {
    struct tally tally = {.request = request, .action = &flush_cache};
    tally_run(&tally);
}

/* --- profiling --- */

struct profile {
    struct str url, output_dir;
    int64_t start_step, num_steps;
    struct text_list activities;
    int with_stack, record_shapes, profile_by_stage;
};
#define AT(member) offsetof(struct profile, member)
static const struct field profile_rows[] = {
    {"url", FIELD_TEXT, 0, AT(url), 0, 2048},
    {"output_dir", FIELD_TEXT, 0, AT(output_dir), 0, 4096},
    {"start_step", FIELD_INT, 0, AT(start_step), 0, INT32_MAX},
    {"num_steps", FIELD_INT, 0, AT(num_steps), 0, INT32_MAX},
    {"activities", FIELD_TEXTS, 0, AT(activities), 0, 16},
    {"with_stack", FIELD_BOOL, 0, AT(with_stack), 0, 0},
    {"record_shapes", FIELD_BOOL, 0, AT(record_shapes), 0, 0},
    {"profile_by_stage", FIELD_BOOL, 0, AT(profile_by_stage), 0, 0},
};
static const struct field_table profile_table = {"", profile_rows,
                                                 sizeof profile_rows / sizeof *profile_rows};

/* The client's object without `url`, which is for us; what we do not know goes on. */
static struct str profile_body(struct request *request, yyjson_val *object) {
    struct json_writer writer;
    size_t i, max;
    yyjson_val *key, *value;
    json_writer_init(&writer, request->body.len * 6 + 64);
    json_object(&writer);
    yyjson_obj_foreach(object, i, max, key, value) {
        if (yyjson_equals_str(key, "url"))
            continue;
        json_key_str(&writer, json_str(key));
        json_value(&writer, value);
    }
    json_object_end(&writer);
    return json_writer_end(&writer, request->arena);
}

/* False when it was answered already. */
static FIBER_FN bool profile_read(struct request *request, struct tally *tally, bool send_body) {
    struct profile profile;
    struct str error;
    if (!json_body_read(request))
        return false;
    if (str_trim(request->body).len == 0)
        return true;
    yyjson_doc *doc = json_parse(request->arena, request->body, &error);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    if (!yyjson_is_obj(root)) {
        json_body_malformed(
            request, doc ? STR("Invalid JSON data: the body must be a JSON object")
                         : arena_printf(request->arena, "JSON syntax error: %.*s", STR_ARG(error)));
        return false;
    }
    fields_clear(&profile_table, &profile);
    if (fields_read(request->arena, &profile_table, root, 0, &profile, &error) < 0) {
        json_body_wrong(request, error);
        return false;
    }
    tally->only = profile.url;
    if (send_body)
        tally->body = profile_body(request, root);
    return true;
}

FIBER_FN void broadcast_start_profile(struct request *request) {
    struct tally tally = {.request = request, .action = &start_profile};
    if (profile_read(request, &tally, true))
        tally_run(&tally);
}

FIBER_FN void broadcast_stop_profile(struct request *request) {
    struct tally tally = {.request = request, .action = &stop_profile};
    if (profile_read(request, &tally, false))
        tally_run(&tally);
}

/* --- cancelling a response --- */

struct answer {
    int status; /* 0: none */
    struct headers headers;
    struct str body;
    struct str worker;
};

struct cancel {
    struct request *request;
    struct fanout_list list;
    struct answer first,
        last; /* the first 2xx; the failure of the last worker in order that answered */
    size_t last_index;
    bool enough;
};

static FIBER_FN int read_answer(struct http_call *call, struct buf *buf) {
    struct str piece;
    int rc;
    while ((rc = http_call_read(call, &piece, 0)) == 1) {
        if (buf_add(buf, piece) < 0)
            return -EMSGSIZE;
    }
    return rc;
}

/* The answer moves from the call's memory into the request's. */
static struct answer keep_answer(struct cancel *cancel, const struct http_response *response,
                                 const struct buf *buf, const struct fanout_target *target) {
    struct arena *arena = cancel->request->arena;
    struct answer answer = {
        .status = response->status, .body = arena_dup(arena, buf_str(buf)), .worker = target->base};
    for (size_t i = 0; i < response->headers.len; i++)
        headers_add(&answer.headers, arena, arena_dup(arena, response->headers.items[i].name),
                    arena_dup(arena, response->headers.items[i].value));
    return answer;
}

static void note_answer(struct cancel *cancel, size_t index, const struct http_response *response,
                        const struct buf *buf, const struct fanout_target *target) {
    if (response->status / 100 == 2 && !cancel->enough) {
        cancel->enough = true;
        cancel->first = keep_answer(cancel, response, buf, target);
    } else if (!cancel->enough && (cancel->last.status == 0 || index > cancel->last_index)) {
        cancel->last_index = index;
        cancel->last = keep_answer(cancel, response, buf, target);
    }
}

static FIBER_FN void cancel_one(void *ctx, size_t index, const struct fanout_target *target,
                                struct arena *scratch) {
    struct cancel *cancel = ctx;
    struct http_call_request request = {
        .method = STR("POST"),
        .target = fanout_route(scratch, target->worker, cancel->request->http->path),
        .head = forward_head(cancel->request, target->worker),
        .has_body = true,
        .deadline = deadline_sooner(cancel->request->deadline, deadline_in(CANCEL_TIMEOUT_MS)),
    };
    struct http_call *call;
    struct buf buf = buf_make(ANSWER_MAX);
    int rc = http_call_start(scratch, target->worker->peer, &request, &call);
    if (rc == 0)
        rc = read_answer(call, &buf);
    if (rc == 0)
        note_answer(cancel, index, http_call_response(call), &buf, target);
    buf_free(&buf);
    http_call_finish(call);
}

static FIBER_FN int cancel_all(void *arg) {
    struct cancel *cancel = arg;
    struct fanout fanout = {.parallel = CANCEL_PARALLEL,
                            .one = cancel_one,
                            .ctx = cancel,
                            .enough = &cancel->enough,
                            .linger_ms = CANCEL_LINGER_MS};
    cancel->list = fanout_list_make(cancel->request->arena, STR_NONE);
    return fanout_run(&fanout, &cancel->list);
}

/* The id goes into the path that workers see: nothing in it may change which path that is. */
static bool id_harmless(struct str id) {
    for (size_t i = 0; i < id.len; i++) {
        unsigned char c = (unsigned char)id.ptr[i];
        bool letter = (unsigned char)((c | 0x20) - 'a') < 26, digit = (unsigned char)(c - '0') < 10;
        if (!letter && !digit && c != '-' && c != '_')
            return false;
    }
    return id.len > 0;
}

FIBER_FN void broadcast_cancel_response(struct request *request) {
    struct cancel cancel = {.request = request};
    if (!id_harmless(request->param)) {
        request_fail(request, PROBLEM_NOT_FOUND);
        return;
    }
    request->facts.authorization = headers_get(&request->http->headers, STR("authorization"));
    if (control_call(cancel_all, &cancel) < 0)
        return; /* only when the client has gone, or the process stops */
    const struct answer *answer = cancel.enough ? &cancel.first : &cancel.last;
    if (cancel.list.count == 0) {
        request_fail(request, PROBLEM_NO_WORKERS);
    } else if (answer->status == 0) {
        request_fail(request, PROBLEM_NO_WORKER_RESPONSE);
    } else {
        struct headers headers = forward_answer(request, &answer->headers, false);
        request->outcome.worker = answer->worker;
        (void)exchange_respond(request->exchange, answer->status, &headers, answer->body);
    }
}
