/* See forward.h. */
#include "gateway/forward.h"

#include "auth/keys.h"

#define ID_MAX 256

/* Request headers that always go on, beside --request-id-headers and x-request-id-*. */
static const struct str allowed[] = {
    STR_INIT("x-request-id"), STR_INIT("x-correlation-id"),  STR_INIT("traceparent"),
    STR_INIT("tracestate"),   STR_INIT("x-smg-routing-key"),
};

/* --request-id-headers as strs. */
static struct str *id_names;
static size_t id_name_count;

void forward_init(const struct opt_list *names) {
    mem_free(id_names);
    id_names = mem_alloc((names->len + 1) * sizeof *id_names);
    id_name_count = names->len;
    for (size_t i = 0; i < names->len; i++)
        id_names[i] = str_from(names->items[i]);
}

static bool is_id_header(struct str name) {
    for (size_t i = 0; i < id_name_count; i++)
        if (str_eq(name, id_names[i]))
            return true;
    return false;
}

/* What the gateway says by itself, whatever --request-id-headers names. */
static bool is_ours(struct str name) {
    return headers_hop_by_hop(name) || str_starts(name, STR("content-")) ||
           str_starts(name, STR("accept")) || str_eq(name, STR("authorization")) ||
           str_eq(name, STR("expect"));
}

bool forward_id_usable(struct str id) {
    if (id.len == 0 || id.len > ID_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++)
        if (id.ptr[i] < 0x21 || id.ptr[i] > 0x7e)
            return false;
    return true;
}

struct str forward_given_id(const struct headers *headers) {
    for (size_t i = 0; i < id_name_count; i++) {
        struct str id = headers_get(headers, id_names[i]);
        if (!is_ours(id_names[i]) && forward_id_usable(id))
            return id;
    }
    return STR_NONE;
}

static bool is_allowed(struct str name) {
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (str_eq(name, allowed[i]))
            return true;
    return str_starts(name, STR("x-request-id-")) || (is_id_header(name) && !is_ours(name));
}

static bool carries_id(const struct header *header) {
    return forward_id_usable(header->value) &&
           (str_eq(header->name, STR("x-request-id")) ||
            str_eq(header->name, STR("x-correlation-id")) || is_id_header(header->name));
}

static bool is_text(struct str value) {
    for (size_t i = 0; i < value.len; i++)
        if ((value.ptr[i] < ' ' && value.ptr[i] != '\t') || value.ptr[i] > '~')
            return false;
    return true;
}

/* What a message's Connection header names is meant for its first receiver only. */
static bool for_one_hop(const struct headers *headers, struct str name) {
    return headers_has_token(headers, STR("connection"), name);
}

/* An x-request-id that we did not take makes way for the one that we made. */
static bool goes_on(const struct headers *headers, const struct header *header) {
    if (str_eq(header->name, STR("x-request-id")) && !forward_id_usable(header->value))
        return false;
    return is_allowed(header->name) && is_text(header->value) &&
           !for_one_hop(headers, header->name);
}

bool forward_own_key(const struct request *request, struct str authorization) {
    struct str token = keys_bearer(authorization);
    return token.ptr != NULL && keys_equal(token, str_from(request->settings->api_key));
}

static char *put_line(char *at, struct str name, struct str value) {
    at = str_put(at, name);
    at = str_put(at, STR(": "));
    at = str_put(at, value);
    return str_put(at, STR("\r\n"));
}

/* Room for every client header, whatever goes on, and ours. */
static size_t lines_room(const struct request *request, const struct worker *worker) {
    const struct headers *headers = &request->http->headers;
    size_t room = 128 + request->id.len + worker->auth_line.len;
    for (size_t i = 0; i < headers->len; i++)
        room += headers->items[i].name.len + headers->items[i].value.len + 4;
    return room;
}

static char *put_authorization(char *at, const struct request *request,
                               const struct worker *worker) {
    struct str theirs = request->facts.authorization;
    if (worker->auth_line.len > 0)
        return str_put(at, worker->auth_line);
    if (theirs.len > 0 && is_text(theirs) && !forward_own_key(request, theirs))
        return put_line(at, STR("authorization"), theirs);
    return at;
}

struct str forward_head(struct request *request, const struct worker *worker) {
    const struct headers *headers = &request->http->headers;
    char *start = arena_alloc(request->arena, lines_room(request, worker));
    char *at = str_put(start, STR("content-type: application/json\r\n"));
    bool has_id = false;
    for (size_t i = 0; i < headers->len; i++) {
        const struct header *header = &headers->items[i];
        if (!goes_on(headers, header))
            continue;
        has_id = has_id || carries_id(header);
        at = put_line(at, header->name, header->value);
    }
    if (!has_id)
        at = put_line(at, STR("x-request-id"), request->id);
    at = put_authorization(at, request, worker);
    return str_make(start, (size_t)(at - start));
}

static bool comes_back(struct str name, bool event_stream) {
    if (headers_hop_by_hop(name) || str_eq(name, STR("content-length")))
        return false;
    if (event_stream && str_eq(name, STR("content-type")))
        return false;
    return !str_eq(name, STR("x-request-id")) && !str_starts(name, STR("access-control-"));
}

/* Repeated names: the last one wins, but every cookie counts. */
static bool repeated_later(const struct headers *headers, size_t i) {
    if (str_eq(headers->items[i].name, STR("set-cookie")))
        return false;
    for (size_t k = i + 1; k < headers->len; k++)
        if (headers->items[k].name.len == headers->items[i].name.len &&
            str_eq(headers->items[k].name, headers->items[i].name))
            return true;
    return false;
}

struct headers forward_answer(struct request *request, const struct headers *theirs,
                              bool event_stream) {
    struct headers headers = request->out;
    bool one_hop = headers_get(theirs, STR("connection")).ptr != NULL;
    for (size_t i = 0; i < theirs->len; i++) {
        const struct header *header = &theirs->items[i];
        if (comes_back(header->name, event_stream) && !repeated_later(theirs, i) &&
            !(one_hop && for_one_hop(theirs, header->name)))
            headers_add(&headers, request->arena, header->name, header->value);
    }
    if (event_stream)
        headers_add(&headers, request->arena, STR("content-type"), STR("text/event-stream"));
    return headers;
}
