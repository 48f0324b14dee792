/* See workers.h. The registry judges bodies and names; here its verdicts become answers. Refusals
 * of a body have the error object that all of the gateway's own routes have, the others the
 * {"error", "code"} of these routes. */
#include "gateway/admin/workers.h"

#include "fleet/registry.h"
#include "gateway/admin/json_body.h"
#include "proto/json.h"

#define REPLY_MAX 65536

static FIBER_FN void refuse(struct request *request, const struct registry_answer *answer) {
    switch (answer->verdict) {
    case REGISTRY_CANCELLED: request->outcome.error_code = problem_code(PROBLEM_CLIENT_GONE); break;
    case REGISTRY_BAD_JSON: json_body_malformed(request, answer->message); break;
    case REGISTRY_BAD_FIELD: json_body_wrong(request, answer->message); break;
    default:
        request_error_text(request, registry_status(answer->verdict),
                           registry_code(answer->verdict), answer->message);
    }
}

static FIBER_FN void shown(struct request *request, const struct registry_answer *answer) {
    if (answer->verdict != REGISTRY_DONE)
        refuse(request, answer);
    else if (answer->json.ptr == NULL)
        request_fail(request, PROBLEM_INTERNAL);
    else
        request_json(request, 200, answer->json);
}

/* --- queued changes --- */

/* With a location: the worker is new. */
static struct str accepted_json(struct request *request, const struct registry_answer *answer,
                                struct str location) {
    struct json_writer writer;
    json_writer_init(&writer, REPLY_MAX);
    json_object(&writer);
    json_kv_str(&writer, "status", STR("accepted"));
    json_kv_str(&writer, "worker_id", str_from(answer->id));
    if (location.len > 0) {
        json_kv_str(&writer, "url", answer->url);
        json_kv_str(&writer, "location", location);
    }
    json_kv_str(&writer, "message", answer->message);
    json_object_end(&writer);
    return json_writer_end(&writer, request->arena);
}

static FIBER_FN void queued(struct request *request, const struct registry_answer *answer) {
    if (answer->verdict != REGISTRY_DONE)
        refuse(request, answer);
    else
        request_json(request, 202, accepted_json(request, answer, STR("")));
}

FIBER_FN void workers_add(struct request *request) {
    struct registry_answer answer;
    if (!json_body_read(request))
        return;
    registry_post(request->arena, request->body, &answer);
    if (answer.verdict != REGISTRY_DONE) {
        refuse(request, &answer);
        return;
    }
    struct str location = arena_printf(request->arena, "/workers/%s", answer.id);
    request_header(request, STR("location"), location);
    request_json(request, 202, accepted_json(request, &answer, location));
}

FIBER_FN void workers_put(struct request *request) {
    struct registry_answer answer;
    if (!json_body_read(request))
        return;
    registry_put(request->arena, request->param, request->body, &answer);
    queued(request, &answer);
}

FIBER_FN void workers_patch(struct request *request) {
    struct registry_answer answer;
    if (!json_body_read(request))
        return;
    registry_patch(request->arena, request->param, request->body, &answer);
    queued(request, &answer);
}

FIBER_FN void workers_delete(struct request *request) {
    struct registry_answer answer;
    registry_delete(request->arena, request->param, &answer);
    queued(request, &answer);
}

/* --- reading --- */

FIBER_FN void workers_list(struct request *request) {
    struct registry_answer answer;
    registry_list(request->arena, request_query(request, STR("model")), &answer);
    shown(request, &answer);
}

FIBER_FN void workers_get(struct request *request) {
    struct registry_answer answer;
    registry_get(request->arena, request->param, &answer);
    shown(request, &answer);
}

FIBER_FN void workers_legacy_list(struct request *request) {
    struct registry_answer answer;
    registry_urls(request->arena, &answer);
    shown(request, &answer);
}

/* --- the old calls: text, and only when it is done --- */

/* They know one refusal only. */
static FIBER_FN void told(struct request *request, const struct registry_answer *answer) {
    int status = registry_status(answer->verdict);
    if (answer->verdict == REGISTRY_CANCELLED)
        request->outcome.error_code = problem_code(PROBLEM_CLIENT_GONE);
    else
        request_text(request, status / 100 == 4 ? 400 : status, answer->message);
}

static FIBER_FN bool url_of(struct request *request, struct str *url) {
    *url = request_query(request, STR("url"));
    if (url->len > 0)
        return true;
    request_text(request, 400, STR("Missing query parameter 'url'"));
    return false;
}

FIBER_FN void workers_legacy_add(struct request *request) {
    struct registry_answer answer;
    struct str url;
    if (!url_of(request, &url))
        return;
    registry_legacy_add(request->arena, url, request_query(request, STR("api_key")), &answer);
    told(request, &answer);
}

FIBER_FN void workers_legacy_remove(struct request *request) {
    struct registry_answer answer;
    struct str url;
    if (!url_of(request, &url))
        return;
    registry_legacy_remove(request->arena, url, &answer);
    told(request, &answer);
}
