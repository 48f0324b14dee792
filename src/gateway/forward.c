/* See forward.h. */
#include "gateway/forward.h"

#include "auth/keys.h"

/* Request headers that always go on, beside --request-id-headers and x-request-id-*. */
static const struct str allowed[] = {
    STR_INIT("x-request-id"), STR_INIT("x-correlation-id"),  STR_INIT("traceparent"),
    STR_INIT("tracestate"),   STR_INIT("x-smg-routing-key"),
};

static bool is_id_header(const struct request *request, struct str name) {
    const struct opt_list *list = &request->settings->request_id_headers;
    for (size_t i = 0; i < list->len; i++)
        if (str_ieq(name, str_from(list->items[i])))
            return true;
    return false;
}

static bool goes_on(const struct request *request, struct str name) {
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (str_ieq(name, allowed[i]))
            return true;
    return str_istarts(name, STR("x-request-id-")) || is_id_header(request, name);
}

static bool carries_id(const struct request *request, struct str name) {
    return str_ieq(name, STR("x-request-id")) || str_ieq(name, STR("x-correlation-id")) ||
           is_id_header(request, name);
}

bool forward_own_key(const struct request *request, struct str authorization) {
    struct str token = keys_bearer(authorization);
    return token.ptr != NULL && keys_equal(token, str_from(request->settings->api_key));
}


static char *put(char *at, struct str s) {
    memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static char *put_line(char *at, struct str name, struct str value) {
    at = put(at, name);
    at = put(at, STR(": "));
    at = put(at, value);
    return put(at, STR("\r\n"));
}

/* Room for every client header, whatever goes on, and ours. */
static size_t lines_room(const struct request *request, const struct worker *worker) {
    const struct headers *headers = &request->http->headers;
    size_t room = 128 + request->id.len + worker->auth_line.len;
    for (size_t i = 0; i < headers->len; i++)
        room += headers->items[i].name.len + headers->items[i].value.len + 4;
    return room;
}

static char *put_authorization(char *at, const struct request *request, const struct worker *worker) {
    struct str theirs = request->facts.authorization;
    if (worker->auth_line.len > 0)
        return put(at, worker->auth_line);
    if (theirs.len > 0 && !forward_own_key(request, theirs))
        return put_line(at, STR("authorization"), theirs);
    return at;
}

struct str forward_head(struct request *request, const struct worker *worker) {
    const struct headers *headers = &request->http->headers;
    char *start = arena_alloc(request->arena, lines_room(request, worker));
    char *at = put(start, STR("content-type: application/json\r\n"));
    bool has_id = false;
    for (size_t i = 0; i < headers->len; i++) {
        const struct header *header = &headers->items[i];
        if (!goes_on(request, header->name))
            continue;
        has_id = has_id || carries_id(request, header->name);
        at = put_line(at, header->name, header->value);
    }
    if (!has_id)
        at = put_line(at, STR("x-request-id"), request->id);
    at = put_authorization(at, request, worker);
    return str_make(start, (size_t)(at - start));
}

static bool comes_back(struct str name, bool event_stream) {
    if (headers_hop_by_hop(name) || str_ieq(name, STR("content-length")))
        return false;
    if (event_stream && str_ieq(name, STR("content-type")))
        return false;
    return !str_ieq(name, STR("x-request-id")) && !str_ieq(name, STR("content-encoding")) &&
           !str_ieq(name, STR("host")) && !str_istarts(name, STR("access-control-"));
}

/* Repeated names: the last one wins, but every cookie counts. */
static bool repeated_later(const struct headers *headers, size_t i) {
    if (str_ieq(headers->items[i].name, STR("set-cookie")))
        return false;
    for (size_t k = i + 1; k < headers->len; k++)
        if (headers->items[k].name.len == headers->items[i].name.len &&
            str_ieq(headers->items[k].name, headers->items[i].name))
            return true;
    return false;
}

struct headers forward_answer(struct request *request, const struct headers *theirs, bool event_stream) {
    struct headers headers = request->out;
    for (size_t i = 0; i < theirs->len; i++) {
        const struct header *header = &theirs->items[i];
        if (comes_back(header->name, event_stream) && headers_value_ok(header->value) &&
            !repeated_later(theirs, i))
            headers_add(&headers, request->arena, header->name, header->value);
    }
    if (event_stream)
        headers_add(&headers, request->arena, STR("content-type"), STR("text/event-stream"));
    return headers;
}
